"""Whole calls whose engine dies or freezes in the middle of an answer, in virtual time."""

import asyncio
import itertools
from collections import deque

import numpy as np
import pytest
import soundfile

from agent.failure_settings import FailureSettings
from agent.replica import EngineUnavailable
from agent.voice_session import AnswerChunk
from telephony.lasting_calls import LastingCalls
from telephony.sentences import ENGLISH
from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.callee import Listener
from telephony.simulator.trace import Cause
from tests.telephony.call_centre.conftest import CALLER, Engine, Session

DESK = "+15550100002"
AGENTS = {"desk": {"numbers": [DESK], "turn": {"early_secs": None}}}
"""Time is virtual but for what turn detection computes: an early answer would have failed, and been
mended, before the turn is decided."""
LOUD = np.full(11_025, 3000, np.int16)
"""Half a second."""


class FailingSession(Session):
    """Says something, half a second at a time."""

    def __init__(self, engine, turns=()):
        super().__init__()
        self.engine, self.turns = engine, turns
        self.stopped = asyncio.Event()

    async def answer(self, request=None):
        self.requests.append(request)
        self.engine.asked.append(request)
        for sequence in range(4):
            if self.engine.fails and request.say is None and sequence == 2:
                await self.engine.fail(self)
            text = (request.say or "Something.") if sequence == 0 else ""
            yield AnswerChunk(sequence, text, LOUD, sequence == 3, {})

    async def stop(self):
        self.stopped.set()


class FailingEngine(Engine):
    """Fails in the second half of its next answer; comes back after so many seconds."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.fails = ""
        self.back_after = 3.0
        self.lasting = self._lasting
        self.settings = FailureSettings(recovery_timeout=10)
        self.died = None

    def _lasting(self, clock):
        self.clock = clock
        return LastingCalls(self, self.settings, clock)

    def session(self):
        self.sessions.append(FailingSession(self))
        return self.sessions[-1]

    async def fail(self, session):
        how, self.fails = self.fails, ""
        self.died = self.clock.time()
        if how == "dies":
            raise EngineUnavailable("the model has died")
        await session.stopped.wait()

    async def problem(self, session, known):
        if self.died is None:
            return None
        await self.clock.sleep(1.0)
        return "the model shows no life"

    async def rebuild(self, turns):
        if self.clock.time() < self.died + self.back_after:
            raise EngineUnavailable("not yet")
        self.died = None
        self.sessions.append(FailingSession(self, turns))
        return self.sessions[-1], "here"

    def abandon(self, session):
        session.closed = True
        session.stopped.set()


class Speaker(Listener):
    """A listener who asks something when told to."""

    def __init__(self, path):
        super().__init__(seconds=40.0)
        speech, _ = soundfile.read(path, dtype="int16")
        speech = speech[::2]
        self.speaks = asyncio.Event()
        self._speech = deque(speech[: len(speech) // 160 * 160].reshape(-1, 160))

    def tick(self, heard):
        said = super().tick(heard)
        return self._speech.popleft() if self.speaks.is_set() and self._speech else said


@pytest.fixture
def engine():
    return FailingEngine()


@pytest.fixture
def asks(goldens, engine):
    """Calls, and asks something after the greeting, in the answer to which the engine fails."""

    async def ask(house, how):
        person = Speaker(goldens.parent / "data" / "opening_hours.wav")
        trace = house.twilio.new_call()
        talking = asyncio.create_task(house.twilio.place(trace, person, CALLER, DESK))
        await house.until(trace, "heard")
        engine.fails = how
        person.speaks.set()
        return trace, talking, person

    return ask


def silences(trace):
    """Seconds between what was heard of the agent, from the end of the greeting on."""
    spans = audible_spans(trace.stream.agent_audio, 100.0)
    return [(after - before) / SAMPLE_RATE for (_, before), (after, _) in itertools.pairwise(spans)]


@pytest.mark.parametrize("how", ["dies", "freezes"])
async def test_the_caller_hears_an_apology_and_then_the_answer(
    house, engine, asks, how, eventually
):
    house = await house(AGENTS)
    trace, talking, person = await asks(house, how)
    await eventually(lambda: house.names(trace).count("heard") == 2)
    person._left = 0
    await talking
    await house.until(trace, "call_ended")
    await eventually(lambda: house.gateway.switchboard.active == 0)
    heard = [event["text"] for event in house.events(trace) if event["event"] == "heard"]
    assert heard[1].startswith(f"Something.{ENGLISH.trouble}")
    assert heard[1].endswith("Something.")
    message = {"dies": "the model has died", "freezes": "the model shows no life"}[how]
    assert house.event(trace, "engine_failed") == {"message": message}
    recovered = house.event(trace, "engine_recovered")
    assert recovered["where"] == "here"
    # The other engine was told of the greeting, and asked what was asked of the first.
    (told,) = engine.sessions[-1].turns
    assert told.text == "Something."
    assert engine.sessions[-1].requests[0].goes_on
    assert house.events(trace)[-1]["cause"] == "caller_hung_up"
    print(f"{how}: silences of {[round(one, 2) for one in silences(trace)]} s")
    assert house.nothing_left()


async def test_an_engine_that_does_not_come_back_ends_the_call_with_a_sentence(
    house, engine, asks, eventually
):
    house = await house(AGENTS)
    engine.back_after = 1000.0
    trace, talking, _ = await asks(house, "dies")
    await talking
    await house.until(trace, "call_ended")
    await eventually(lambda: house.gateway.switchboard.active == 0)
    heard = [event["text"] for event in house.events(trace) if event["event"] == "heard"]
    assert heard[1] == f"Something.{ENGLISH.trouble}{ENGLISH.lost}"
    assert house.events(trace)[-1]["cause"] == "engine"
    assert trace.cause is Cause.AGENT_HUNG_UP
    assert "engine_recovered" not in house.names(trace)
    assert house.nothing_left()
