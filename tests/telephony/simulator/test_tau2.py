"""Results of tau2-bench, in the shapes of its text runs and its voice runs."""

import base64
import json

import numpy as np
import pytest
import soundfile

from telephony import mulaw
from telephony.simulator.loading import load_scenarios
from telephony.simulator.spoken_text import CACHE_VARIABLE

TASK = {
    "id": "7",
    "user_scenario": {"persona": None, "instructions": "You want to cancel."},
    "evaluation_criteria": {
        "actions": [{"action_id": "1", "name": "cancel", "arguments": {"id": "Q69"}}],
        "communicate_info": ["327"],
        "nl_assertions": ["The agent is polite."],
        "reward_basis": ["DB", "COMMUNICATE"],
    },
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    def write(*simulations, beside=(), task=TASK):
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"tasks": [task], "simulations": simulations, "info": {}}))
        for number, simulation in enumerate(beside):
            folder = tmp_path / "simulations"
            folder.mkdir(exist_ok=True)
            (folder / f"sim_{number}.json").write_text(json.dumps(simulation))
        return path

    return write


def user(content, **fields):
    return {"role": "user", "content": content, **fields}


def chunk(content, sound=None):
    audio = None if sound is None else base64.b64encode(mulaw.encode(sound)).decode()
    form = {"encoding": "ulaw", "sample_rate": 8000, "channels": 1, "sample_width": 1}
    return {
        "user_chunk": user(
            content, is_audio=True, audio_content=audio, audio_format=form, contains_speech=True
        )
    }


def test_the_words_of_a_text_run_are_said_again(results):
    messages = [
        {"role": "assistant", "content": "Hi! How can I help you today?"},
        user("I want to cancel."),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "{}"},
        user("Thanks. ###STOP###"),
        user("###STOP###"),
    ]
    environment = {"persona_name": "arjun_roy", "background_noise_file": "people_talking.wav"}

    (scenario,) = load_scenarios(
        results({"id": "a", "task_id": 7, "messages": messages, "speech_environment": environment})
    )

    assert scenario.name == "tau2 task 7 / a"
    assert [turn.say for turn in scenario.turns] == ["I want to cancel.", "Thanks."]
    assert scenario.greeting is not None
    assert scenario.voice is not None
    assert scenario.voice.name == "espeak-ng:bn+m2"
    assert scenario.expect.words == ("327",)
    assert scenario.expect.tools is None
    assert scenario.expect.judge == ()
    assert scenario.not_judged == ("reward: DB", "behind the caller: people_talking.wav")


def test_tools_and_assertions_are_expected_where_the_reward_has_them(results):
    basis = ["ACTION", "NL_ASSERTION"]
    criteria = {**TASK["evaluation_criteria"], "reward_basis": basis}
    messages = [user("I want to cancel.")]

    (scenario,) = load_scenarios(
        results(
            {"id": "a", "task_id": 7, "messages": messages},
            task={**TASK, "evaluation_criteria": criteria},
        )
    )

    assert scenario.expect.words == ()
    assert scenario.expect.tools is not None
    assert [tool.name for tool in scenario.expect.tools.called] == ["cancel"]
    assert [judge.criterion for judge in scenario.expect.judge] == ["The agent is polite."]
    assert scenario.not_judged == ()


def test_the_audio_of_a_voice_run_is_played_again(results, tone):
    sound = tone(0.2)
    silent = {"user_chunk": {**chunk("")["user_chunk"], "contains_speech": False}}
    ticks = [
        {"user_chunk": None, "agent_chunk": {"role": "assistant", "content": "Hi"}},
        chunk("I wa", sound),
        chunk("nt to cancel.", sound),
        silent,
        chunk("Bye.", None),
    ]

    (scenario,) = load_scenarios(results(beside=[{"id": "b", "task_id": "7", "ticks": ticks}]))

    first, second = scenario.turns
    assert first.say == "I want to cancel."
    audio, rate = soundfile.read(first.wav, dtype="int16")
    assert rate == 8000
    assert np.array_equal(audio, np.tile(mulaw.decode(mulaw.encode(sound)), 2))
    assert (second.say, second.wav) == ("Bye.", None)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"tasks": []}', "no simulation in which a caller speaks"),
        ("[1]", "not as tau2-bench writes it"),
        ("{", "not a JSON file"),
        ('{"tasks": [], "simulations": [{"id": "a"}]}', "simulations.0.task_id"),
    ],
)
def test_what_holds_no_calls_is_named(tmp_path, content, named):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json") as error:
        load_scenarios(path)
    assert named in str(error.value)
