"""Whole calls over the loopback Twilio: who speaks when, with real turn detection."""

import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.voice_session import AnswerChunk
from telephony import mulaw
from telephony.resampler import Resampler
from telephony.sentences import ENGLISH
from telephony.simulator.network import Network
from telephony.simulator.trace import Cause

DESK = "+15550100002"
GREETING = "Oak Street Clinic, we are open from eight in the morning to six in the evening, daily."
PHONE_RATE, AGENT_RATE = 8000, 22_050
FRAME = 160
SPEECH = Path(__file__).parents[2] / "data" / "opening_hours.wav"


def sweep(seconds):
    """int16 at the agent's rate: rises without end, so that no two moments are the same."""
    t = np.arange(round(seconds * AGENT_RATE)) / AGENT_RATE
    return (8000 * np.sin(2 * np.pi * (250 + 1000 / seconds * t / 2) * t)).astype(np.int16)


def at_phone_rate(audio, rate):
    resampler = Resampler(rate, PHONE_RATE)
    audio = np.concatenate([resampler.push(audio), resampler.flush()])
    return np.pad(audio, (0, -len(audio) % FRAME))


def speech(begin, seconds):
    """A piece of a spoken question, loud."""
    audio, rate = soundfile.read(SPEECH, dtype="int16")
    piece = audio[round(begin * rate) : round((begin + seconds) * rate)]
    return at_phone_rate(piece, rate)


def hiss(seconds):
    """Noise that is no voice."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 4000, round(seconds * PHONE_RATE)).astype(np.int16)


def cough(seconds):
    """A rough burst with a voice in it, which the VAD takes for speech."""
    rng = np.random.default_rng(0)
    burst = np.zeros(round(seconds * PHONE_RATE))
    places = np.cumsum(rng.uniform(58, 63, len(burst) // 58)).astype(int)
    burst[places[places < len(burst)]] = 1
    t = np.arange(600) / PHONE_RATE
    formants = ((700, 1), (1150, 0.6), (2600, 0.3))
    throat = sum(level * np.sin(2 * np.pi * hertz * t) for hertz, level in formants)
    burst = np.convolve(burst, throat * np.exp(-250 * t))[: len(burst)]
    burst = burst / np.abs(burst).max() + rng.normal(0, 0.05, len(burst))
    place = np.linspace(0, 1, len(burst))
    loudness = np.minimum(1, 6 * place) * np.minimum(1, 4 - 4 * place)
    return (8000 * loudness * burst).astype(np.int16)


class Talker:
    """Says sounds at seconds since the agent was first heard; is told when to do anything else."""

    def __init__(self, *sounds, hangs_up):
        self.keys = deque()
        end = max([round(at * PHONE_RATE) + len(audio) for at, audio in sounds], default=0)
        self._line = np.zeros(end, np.int16)
        for at, audio in sounds:
            begin = round(at * PHONE_RATE)
            self._line[begin : begin + len(audio)] = audio
        self._hangs_up = hangs_up
        self._ticks = 0

    def tick(self, heard):
        if self._hangs_up(self._ticks * FRAME / PHONE_RATE):
            return None
        if not self._ticks and not heard.any():
            return np.zeros(FRAME, np.int16)
        frame = self._line[self._ticks * FRAME : (self._ticks + 1) * FRAME]
        self._ticks += 1
        return np.pad(frame, (0, FRAME - len(frame)))


@pytest.fixture
def long_winded(engine):
    """Long sentences take four seconds, others half a second."""
    open_session = engine.open_session

    def open_long():
        session = open_session()

        async def answer(request=None):
            session.requests.append(request)
            words = request.say or "An answer."
            yield AnswerChunk(0, words, sweep(4 if len(words) > 60 else 0.5), True, {})

        session.answer = answer
        return session

    engine.open_session = open_long
    return engine


async def place(house, *sounds, hangs_up, key_after=None, network=None):
    """A call to its end; ``hangs_up`` tells by the seconds that the agent is heard, and events."""
    trace = house.twilio.new_call()

    looks = itertools.count()

    def over(seconds):
        # A record is read from a database.
        if next(looks) % 10:
            return False
        names = house.names(trace)
        if key_after in names and not trace.stream.keys:
            talker.keys.append("1")
        return seconds > 200 or hangs_up(seconds, names)

    talker = Talker(*sounds, hangs_up=over)
    await house.twilio.place(trace, talker, "+15550109999", DESK, network)
    await house.until(trace, "call_ended")
    return trace


def after(seconds):
    return lambda now, events: now > seconds and "heard" in events


def never(now, events):
    return False


def heard(house, trace):
    return [event["text"] for event in house.events(trace) if event["event"] == "heard"]


def played(trace):
    audio = trace.stream.agent_audio
    return audio[: np.flatnonzero(audio)[-1] + 1]


def lost(trace):
    """Samples of the greeting that were not played; below zero, some were played twice."""
    whole = mulaw.decode(mulaw.encode(at_phone_rate(sweep(4), AGENT_RATE)))
    whole = np.trim_zeros(whole)
    audio = np.trim_zeros(trace.stream.agent_audio)
    length = min(len(whole), len(audio))
    begin = np.argmin(np.append(audio[:length] == whole[:length], False))
    end = np.argmin(np.append(audio[::-1][:length] == whole[::-1][:length], False))
    return len(whole) - begin - end


# ---- over the agent


@pytest.mark.parametrize(
    "sound", [speech(0.3, 0.35), cough(0.35)], ids=["a word of assent", "a cough"]
)
async def test_a_short_sound_holds_the_agent_who_then_says_the_rest(house, long_winded, sound):
    # So that the VAD has no doubt about the cough.
    house = await house({"desk": {"greeting_text": GREETING, "vad": {"confidence": 0.4}}})
    trace = await place(house, (1.5, sound), hangs_up=after(6))
    assert heard(house, trace) == [GREETING]
    assert lost(trace) <= 0
    # Silent within a moment of the first sound, and for no longer than it took to be sure.
    pauses = np.flatnonzero(np.diff(np.flatnonzero(played(trace))) > 800)
    assert len(pauses) == len(trace.stream.clears) == 1
    found = house.event(trace, "false_interruption")
    assert 0.2 <= found["spoken"] < 0.5
    assert found["paused"] < 0.8
    assert not {"interrupted", "turn_decided"} & {*house.names(trace)}
    (session,) = long_winded.sessions
    assert [request.say for request in session.requests] == [GREETING]


async def test_a_slow_network_repeats_a_little_and_loses_nothing(house, long_winded):
    house = await house({"desk": {"greeting_text": GREETING}})
    word = speech(0.3, 0.35)
    trace = await place(house, (1.5, word), hangs_up=after(6), network=Network(delay_ms=80))
    assert heard(house, trace) == [GREETING]
    assert len(trace.stream.clears) == 1
    assert -0.5 * PHONE_RATE < lost(trace) <= 0


async def test_noise_that_is_no_voice_is_not_even_noticed(house, long_winded):
    house = await house({"desk": {"greeting_text": GREETING}})
    trace = await place(house, (1.0, hiss(0.3)), (2.0, hiss(1.0)), hangs_up=after(5))
    assert heard(house, trace) == [GREETING]
    assert len(played(trace)) / PHONE_RATE < 4.2
    assert trace.stream.clears == []
    assert "false_interruption" not in house.names(trace)


async def test_a_shout_interrupts_and_only_what_was_heard_is_remembered(house, long_winded):
    house = await house({"desk": {"greeting_text": GREETING}})
    trace = await place(
        house, (1.5, speech(0, 2)), hangs_up=lambda now, events: events.count("heard") == 2
    )
    cut = house.event(trace, "interrupted")
    before = trace.stream.agent_audio[: trace.stream.clears[0] + FRAME]
    phone_played = len(np.trim_zeros(before)) / PHONE_RATE
    assert phone_played - 0.1 < cut["heard_seconds"] <= phone_played
    assert heard(house, trace) == [cut["heard_text"], "An answer."]
    assert GREETING.startswith(cut["heard_text"])
    assert cut["heard_text"] != GREETING
    assert "false_interruption" not in house.names(trace)
    (session,) = long_winded.sessions
    assert session.requests[1].heard_seconds == cut["heard_seconds"]


async def test_a_short_answer_to_an_agent_who_has_finished_is_a_turn(house, long_winded):
    house = await house({"desk": {"greeting_text": GREETING}})
    trace = await place(
        house, (4.6, speech(0.6, 0.45)), hangs_up=lambda now, events: events.count("heard") == 2
    )
    assert heard(house, trace) == [GREETING, "An answer."]
    assert "false_interruption" not in house.names(trace)


# ---- when nobody speaks


async def test_silence_is_asked_about_twice_and_ends_with_a_goodbye(house, long_winded):
    house = await house({"desk": {"greeting_text": "Hello.", "language": "en-GB"}})
    trace = await place(house, hangs_up=never)
    prompt, goodbye = ENGLISH.silence_prompt, ENGLISH.silence_goodbye
    assert heard(house, trace) == ["Hello.", prompt, prompt, goodbye]
    prompts = [one for one in house.events(trace) if one["event"] == "silence_prompt"]
    assert [(one["number"], one["silence"]) for one in prompts] == [(1, 8), (2, 8)]
    assert house.event(trace, "goodbye") == {"reason": "silence"}
    assert house.event(trace, "call_ended") == {"cause": "silence"}
    assert trace.cause is Cause.AGENT_HUNG_UP
    assert trace.stream.unplayed == 0
    assert house.nothing_left()


async def test_a_key_is_as_good_as_a_word_against_silence(house, long_winded):
    words = {"silence_prompt": "Hello?", "silence_goodbye": "Bye."}
    desk = {"greeting_text": "Hi.", "turn_taking": {"silence_secs": 3, **words}}
    house = await house({"desk": desk})
    trace = await place(house, hangs_up=never, key_after="silence_prompt")
    assert heard(house, trace)[-1] == "Bye."
    prompts = [one for one in house.events(trace) if one["event"] == "silence_prompt"]
    assert [one["number"] for one in prompts] == [1, 1, 2]


# ---- when the time is up


async def test_the_longest_call_ends_after_a_warning_in_a_gap_and_a_goodbye(house, long_winded):
    limits = {"call_secs": 42, "warning_secs": 40}
    turn_taking = {"time_warning": "Nearly over.", "silence_secs": None}
    desk = {"greeting_text": GREETING, "limits": limits, "goodbye": "Goodbye."}
    house = await house({"desk": desk | {"turn_taking": turn_taking}})
    trace = await place(house, hangs_up=never)
    # The warning is due while the greeting is being said, and does not cut it.
    assert house.event(trace, "time_warning") == {"seconds": 40}
    names = house.names(trace)
    assert names.index("time_warning") < names.index("heard")
    assert heard(house, trace) == [GREETING, "Nearly over.", "Goodbye."]
    assert house.event(trace, "goodbye") == {"reason": "time_limit"}
    assert house.event(trace, "call_ended") == {"cause": "time_limit"}
    assert trace.stream.unplayed == 0


async def test_a_goodbye_is_heard_whole_whoever_talks_meanwhile(house, long_winded):
    goodbye = "I have to end our call now, please call again tomorrow. Thank you, and goodbye."
    desk = {"greeting_text": "Hello.", "goodbye": goodbye, "limits": {"call_secs": 6}}
    house = await house({"desk": desk})
    trace = await place(house, (6.5, speech(0, 2)), hangs_up=never)
    assert heard(house, trace) == ["Hello.", goodbye]
    assert not {"interrupted", "turn_decided"} & {*house.names(trace)}
    assert house.event(trace, "call_ended") == {"cause": "time_limit"}
    assert trace.stream.unplayed == 0
