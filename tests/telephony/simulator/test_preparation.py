"""A scenario's sounds: recorded, spoken, pressed, silent, and what lies behind them."""

import numpy as np
import pytest
import soundfile

from telephony.media_streams import Dtmf, Start
from telephony.simulator.caller import Caller
from telephony.simulator.preparation import prepare, read_sound
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.scenario import Scenario

SILENCE = np.zeros(160, np.int16)


class Tones:
    """A speaker whose every text is half a second of a tone."""

    def __init__(self, tone):
        self.tone = tone
        self.orders = []

    def speak(self, text, voice):
        self.orders.append((text, voice.name))
        return self.tone(0.5, 16000).astype(np.float32) / 32768


@pytest.fixture
def speaker(tone):
    return Tones(tone)


def script(*turns, **fields):
    return Scenario.model_validate({"name": "test", "turns": turns, **fields})


def loud(audio):
    return float(np.sqrt(np.mean(audio.astype(float) ** 2)))


def test_texts_are_spoken_by_the_turns_voice_or_the_scenarios(speaker, wav):
    turns = [{"say": "One."}, {"say": "Two.", "voice": "nano"}, {"say": "Three.", "wav": wav()}]

    sounds = prepare(script(*turns, voice="espeak-ng:en-029"), speaker)

    assert speaker.orders == [("One.", "espeak-ng:en-029"), ("Two.", "nano")]
    assert [len(line.audio) / 8000 for line in sounds.lines] == [0.5, 0.5, 1.3]
    assert sounds.background is None


def test_gain_is_the_scenarios_and_the_lines(speaker):
    turns = [{"say": "One."}, {"say": "Two.", "gain_db": -10}]

    plain = prepare(script(*turns), speaker).lines
    soft = prepare(script(*turns, gain_db=-6), speaker).lines

    def decibels(one, other):
        return 20 * np.log10(loud(one.audio) / loud(other.audio))

    assert decibels(plain[0], soft[0]) == pytest.approx(6, abs=0.05)
    assert decibels(soft[0], soft[1]) == pytest.approx(10, abs=0.05)
    # Far below what counts as audible, a line still has its place.
    faint = prepare(script({"say": "One."}, gain_db=-50), speaker).lines[0]
    assert (faint.first, faint.end) == (plain[0].first, plain[0].end)


def test_noise_lies_behind_lines_and_pauses_alike(speaker):
    noisy = script({"say": "One."}, {"silence_ms": 400}, noise={"kind": "pink", "snr_db": 10})

    sounds = prepare(noisy, speaker)

    assert sounds.background is not None
    level = 8000 / np.sqrt(2) * 10 ** (-10 / 20)
    assert loud(sounds.background.frame(80_000)) == pytest.approx(level, rel=0.05)
    assert loud(sounds.lines[1].audio) == pytest.approx(level, rel=0.15)
    assert loud(sounds.lines[0].audio) > loud(
        prepare(script({"say": "One."}), speaker).lines[0].audio
    )


def test_a_recording_of_noise_may_have_any_rate_and_channels(speaker, tmp_path):
    path = tmp_path / "street.wav"
    sound = np.random.default_rng(0).normal(0, 0.1, (44_100, 2))
    soundfile.write(path, sound, 44_100)

    assert len(read_sound(path)) == 8000
    noisy = script({"say": "One."}, noise={"wav": str(path), "snr_db": 20})
    assert prepare(noisy, speaker).background is not None
    with pytest.raises(ValueError, match=r"nowhere\.wav: not a readable sound file"):
        read_sound(tmp_path / "nowhere.wav")


def test_codecs_change_the_sound(speaker):
    plain = prepare(script({"say": "One."}), speaker).lines[0].audio
    mobile = prepare(script({"say": "One."}, codec=["gsm", "g711_alaw"]), speaker).lines[0].audio

    assert len(mobile) == len(plain)
    assert loud(mobile.astype(int) - plain) > 10


def test_keys_are_pressed_one_after_another_and_w_waits(speaker):
    turns = [{"digits": "1w23"}, {"say": "One."}]
    scenario = script(*turns)
    caller = Caller(scenario, prepare(scenario, speaker).lines)
    pressed = {}

    for tick in range(150):
        caller.tick(SILENCE)
        while caller.keys:
            pressed[caller.keys.popleft()] = tick * 0.02

    assert list(pressed) == ["1", "2", "3"]
    assert pressed["2"] - pressed["1"] == pytest.approx(0.2 + 0.5, abs=0.021)
    assert pressed["3"] - pressed["2"] == pytest.approx(0.2, abs=0.021)
    assert caller.spoken[0].end / 8000 == pytest.approx(pressed["3"] + 0.2, abs=0.021)


def test_an_answer_to_silence_may_come_while_it_lasts(speaker, tone):
    turns = [{"silence_ms": 6000}, {"say": "Yes, I am here."}]
    scenario = script(*turns, patience_ms=1000)
    caller = Caller(scenario, prepare(scenario, speaker).lines)

    for tick in range(600):
        talks = 4.0 <= tick * 0.02 < 5.0
        caller.tick(tone(0.02) if talks else SILENCE)

    silence, line = caller.spoken
    assert (line.start - silence.start) / 8000 == pytest.approx(6.0, abs=0.021)
    assert not line.waited_in_vain


def murmur(wav, seconds):
    return {
        "say": "mm-hm",
        "wav": wav("murmur.wav", seconds=seconds),
        "when": {"during_agent": {"after_ms": 500}},
        "backchannel": True,
    }


async def test_a_call_with_keys_silence_and_a_murmur_is_reported(agent, clock, wav):
    turns = [
        {"say": "line 1", "wav": wav()},
        murmur(wav, 0.2),
        {"silence_ms": 3000, "expect": {"answered": False}},
        {"digits": "12#", "expect": {"answered": False}},
    ]
    scenario = script(*turns, greeting=True, patience_ms=500)
    pressed = []
    behave = agent.behave

    async def listen(line):
        events = line.events

        async def noting():
            async for event in events():
                if isinstance(event, Dtmf):
                    pressed.append(event.digit)
                yield event

        line.events = noting
        await behave(line)

    agent.behave = listen

    report = await run_scenario(scenario, agent.target, None, records=agent.records, clock=clock)

    assert [turn.caller for turn in report.turns[1:]] == [
        "line 1",
        "mm-hm",
        "[is silent for 3 s]",
        "[presses 12#]",
    ]
    # This agent takes every sound for an interruption.
    failed = {check.name for turn in report.turns for check in turn.checks if not check.passed}
    assert failed == {"backchannel"}
    assert pressed == ["1", "2", "#"]


async def test_an_agent_that_talks_on_passes_a_murmur(agent, clock, wav):
    async def deaf(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(3.0)

    agent.behave = deaf
    turn = murmur(wav, 0.2)
    report = await run_scenario(script(turn, greeting=True), agent.target, None, clock=clock)

    assert report.passed, report.model_dump_json(indent=1)
    assert report.turns[1].checks[0].found.startswith("it was heard for 2400 ms")


@pytest.mark.parametrize(("silence", "passed"), [(0.4, True), (0.9, False)])
async def test_an_agent_may_fall_silent_for_a_murmur_and_soon_go_on(
    agent, clock, wav, silence, passed
):
    async def doubting(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(0.7)
                await clock.sleep(0.7 + silence)
                await line.say(2.0)

    agent.behave = doubting
    turn = murmur(wav, 0.3)
    report = await run_scenario(script(turn, greeting=True), agent.target, None, clock=clock)

    (check,) = [check for check in report.turns[1].checks if check.name == "backchannel"]
    assert check.passed is passed, check.found
