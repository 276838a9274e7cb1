"""Scenario files of Pipecat's evals, as people write them."""

import numpy as np
import pytest
import soundfile

from telephony.simulator.loading import load_scenarios
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.spoken_text import CACHE_VARIABLE

HEAD = """
name: desk
user: !include user.yaml
judge: {modality: audio, transcription: {service: moonshine}}
scenarios:
  - name: one
    turns:
"""
USER = "modality: audio\nspeech: {service: kokoro, voice: af_heart}\n"
GREETING = """
      - expect:
          - {event: response, eval: greets the caller}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "user.yaml").write_text(USER)

    def load(turns, head=HEAD):
        path = tmp_path / "desk.yaml"
        path.write_text(head + turns)
        return load_scenarios(path)

    return load


def test_a_first_turn_that_waits_is_the_greeting(load):
    (scenario,) = load(
        GREETING
        + """
      - user: When do you open?
        expect:
          - event: response
            text_contains: eight in  the morning
            text_excludes: "●"
            within_ms: 3000
"""
    )

    assert scenario.name == "desk/one"
    assert scenario.greeting is not None
    assert [judge.criterion for judge in scenario.greeting.expect.judge] == ["greets the caller"]
    (turn,) = scenario.turns
    assert turn.say == "When do you open?"
    assert turn.expect.answered
    assert turn.expect.answer_within_ms == 3000
    assert scenario.not_judged == ()


def test_an_interruption_is_a_barge_in(load):
    (scenario,) = load(
        """
      - user: Tell me a long story.
        expect: [{event: llm_started}]
      - user: Never mind.
        send_after: {event: llm_started, delay_ms: 2000}
        expect: [{event: response}]
"""
    )

    story, stop = scenario.turns
    assert story.when.after_agent is not None
    assert stop.when.during_agent is not None
    assert stop.when.during_agent.after_ms == 2000


def test_keys_recordings_and_pauses_are_kept(load, tmp_path, tone):
    stereo = np.stack([tone(0.5, 44_100)] * 2, axis=1)
    soundfile.write(tmp_path / "question.ogg", stereo, 44_100)

    (scenario,) = load(
        """
      - dtmf: 012
      - user: What is it?
        audio: question.ogg
      - user: [Last week I went to, {pause_ms: 2000}, Spain.]
"""
    )

    keys, recorded, pausing = scenario.turns
    assert keys.digits == "012"
    audio, rate = soundfile.read(recorded.wav)
    assert (rate, audio.ndim) == (8000, 1)
    assert len(audio) == pytest.approx(4000, abs=2)
    assert pausing.say == 'Last week I went to <break time="2000ms"/> Spain.'
    assert pausing.label == "Last week I went to Spain."


def test_somebody_who_goes_on_after_a_pause_says_one_thing(load):
    (scenario,) = load(
        """
      - user: Let me think,
        expect: [{event: vad_user_stopped_speaking}]
      - user: I would go to Japan.
        send_after: {event: vad_user_stopped_speaking, delay_ms: 3000}
        expect: [{event: response, eval: engages with Japan}]
"""
    )

    (turn,) = scenario.turns
    assert turn.say == 'Let me think, <break time="3000ms"/> I would go to Japan.'
    assert turn.expect.answered
    assert len(turn.expect.judge) == 1


def test_a_turn_without_input_is_silence(load):
    (scenario,) = load(
        GREETING
        + """
      - user: I plan a trip.
        expect: [{event: response}]
      - expect: [{event: response, within_ms: 45000}]
      - expect: [{event: response, absent: true, within_ms: 4000}]
"""
    )

    _, waits, quiet = scenario.turns
    assert waits.silence_ms == 45_000
    assert waits.expect.answered
    assert quiet.silence_ms == 4000
    assert not quiet.expect.answered
    assert quiet.expect.answer_within_ms is None


def test_tools_are_expected_and_what_no_phone_can_tell_is_listed(load):
    (scenario,) = load(
        """
      - user: The weather, please.
        image: cat.jpg
        expect:
          - {event: user_transcription, text_contains: weather}
          - {event: user_started_speaking}
          - {event: llm_marker, marker: complete}
          - event: function_call
            calls: [{name: get_weather, args: {place: Rome}}]
"""
    )

    (turn,) = scenario.turns
    assert turn.expect.tools is not None
    (tool,) = turn.expect.tools.called
    assert (tool.name, tool.arguments) == ("get_weather", {"place": "Rome"})
    assert scenario.not_judged == (
        "image: a phone has none",
        "user_transcription: “weather”",
        "llm_marker",
    )


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("We open at Eight in\nthe morning.", False),
        ("Hours: eight in the\n morning.", True),
        ("● eight in the morning", False),
    ],
)
def test_texts_are_compared_as_pipecat_compares_them(load, text, passes):
    from telephony.simulator.checks.said import check_said

    (scenario,) = load(
        """
      - user: When?
        expect: [{event: response, text_contains: eight in the morning, text_excludes: "●"}]
"""
    )

    checks = check_said(scenario.turns[0].expect, [text])
    assert all(check.passed for check in checks) is passes
    assert len(checks) == 2


def test_the_older_shape_of_a_file_is_read(load):
    head = "name: old\nuser: !include user.yaml\nturns:\n"

    (scenario,) = load("  - user: Hello.\n    expect: [{event: llm_response}]\n", head)

    assert scenario.name == "old"


@pytest.mark.parametrize(
    ("turns", "named"),
    [
        ("      - user: Hello.\n        dtmf: '1'\n", "both 'user:' and 'dtmf:'"),
        ("      - expect: [{event: response}]\n", "desk/one: the caller never says anything"),
        ("      - user: Hello.\n        audio: no.wav\n", "no.wav"),
    ],
)
def test_what_is_wrong_is_named(load, turns, named):
    with pytest.raises(ValueError, match=r"desk\.yaml|no\.wav") as error:
        load(turns)
    assert named in str(error.value)


def test_simulated_callers_are_named_as_such(load):
    head = "name: x\nscenarios:\n  - {name: y, persona: Jamie, goal: Book., success: booked}\n"
    with pytest.raises(ValueError, match="only simulated callers"):
        load("", head)


async def test_a_file_of_pipecats_runs_as_it_is(load, agent, clock, tmp_path, tone):
    soundfile.write(tmp_path / "line.wav", tone(1.0, 24_000), 24_000)
    turns = """
      - expect: [{event: response, text_contains: Hello}]
      - user: line 1
        audio: line.wav
        expect: [{event: response, text_contains: thing 1}]
      - user: line 2
        audio: line.wav
        send_after: {event: llm_started, delay_ms: 500}
        expect: [{event: response, text_contains: thing 2, within_ms: 5000}]
"""
    (scenario,) = load(turns)

    report = await run_scenario(scenario, agent.target, None, records=agent.records, clock=clock)

    assert report.passed, report.model_dump_json(indent=1)
    assert report.turns[2].barge_in is not None


async def test_what_is_not_judged_is_unknown_in_the_report(load, agent, clock, tmp_path, tone):
    soundfile.write(tmp_path / "line.wav", tone(1.0, 16_000), 16_000)
    turns = """
      - user: line 1
        audio: line.wav
        expect: [{event: image}, {event: response}]
"""
    (scenario,) = load(turns)

    report = await run_scenario(scenario, agent.target, None, clock=clock)

    (check,) = [check for check in report.checks if check.name == "not_judged"]
    assert (check.expected, check.passed) == ("image", None)
    assert not report.passed
