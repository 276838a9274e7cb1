"""A conversation whose engine fails, over engines that answer from a script."""

import asyncio
import heapq
import itertools
from dataclasses import replace

import numpy as np
import pytest

from agent.failure import EngineLost, FailureWords, Spoken
from agent.failure_settings import FailureSettings
from agent.lasting_session import LastingSession
from agent.replica import EngineUnavailable
from agent.speech.request import TurnRequest
from agent.voice_session import AnswerChunk

SAY = TurnRequest(say="Hello.")
SPOKEN = TurnRequest(temperature=0.0)
SETTINGS = FailureSettings(patience=0.5, probe_timeout=1, recovery_timeout=10)
APOLOGY, FAREWELL = "One moment.", "Goodbye."
SECOND = 22_050


class Clock:
    """Time passes when everybody waits for it."""

    def __init__(self):
        self.now = 0.0
        self._sleepers = []
        self._order = itertools.count()

    def time(self):
        return self.now

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def drive(self):
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                deadline, _, future = heapq.heappop(self._sleepers)
                if not future.done():
                    self.now = max(self.now, deadline)
                    future.set_result(None)
            else:
                await asyncio.sleep(0.001)


class Inner:
    """A session on one engine: `script` holds chunks, errors, or None for silence."""

    def __init__(self, engine, turns=()):
        self.engine, self.turns = engine, list(turns)
        self.requests, self.audio, self.calls = [], 0, []
        self._stopped = asyncio.Event()

    def push(self, audio, expected=None):
        self.audio += len(audio)

    def discard(self):
        self.calls.append("discard")

    def confirm(self):
        self.calls.append("confirm")

    async def retract(self):
        self.calls.append("retract")
        await self.stop()

    async def transcribe(self):
        return "words"

    def answer(self, request):
        self.requests.append(request)
        return self._answer(self.engine.scripts.pop(0), self._stopped)

    async def _answer(self, script, stopped):
        for sequence, item in enumerate(script):
            await asyncio.sleep(0)
            if item is None:
                await stopped.wait()
                return
            if isinstance(item, Exception):
                raise item
            text, seconds = item
            audio = np.zeros(round(seconds * SECOND), np.int16)
            tokens = np.arange(round(seconds * 12.5), dtype=np.int32)
            yield AnswerChunk(sequence, text, audio, item is script[-1], {}, tokens=tokens)

    async def stop(self):
        self._stopped.set()
        self._stopped = asyncio.Event()

    async def close(self):
        self.calls.append("close")


class Engine:
    def __init__(self):
        self.scripts = []
        self.dead = None
        self.comes_back = asyncio.Event()
        self.comes_back.set()
        self.sessions = []
        self.probed = []
        self.abandoned = 0
        self.clock = Clock()

    def session(self):
        self.sessions.append(Inner(self))
        return self.sessions[-1]

    async def problem(self, session, known):
        self.probed.append(self.clock.now)
        return self.dead

    async def rebuild(self, turns):
        if not self.comes_back.is_set():
            raise EngineUnavailable("still dead")
        self.dead = None
        self.sessions.append(Inner(self, [as_told(turn) for turn in turns]))
        return self.sessions[-1], "two:1"

    def abandon(self, session):
        self.abandoned += 1


def as_told(turn):
    """What a turn tells, as it is now."""
    answer = turn.request.answered
    said = None if turn.audio is None else len(turn.audio)
    return said, turn.request.say, answer.text, len(answer.speech)


class Events:
    def __init__(self):
        self.all = []

    def event(self, name, /, **fields):
        self.all.append((name, fields))


@pytest.fixture
async def engine():
    engine = Engine()
    driver = asyncio.create_task(engine.clock.drive())
    yield engine
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)


@pytest.fixture
async def session(engine):
    words = FailureWords(
        Spoken(APOLOGY, np.ones(SECOND, np.int16)), Spoken(FAREWELL, np.ones(SECOND, np.int16))
    )
    session = LastingSession(engine, lambda: words, SETTINGS, engine.clock)
    session.events = Events()
    session.observe(session.events)
    yield session
    await session.close()


def speech(seconds=1.0):
    return np.zeros(round(seconds * 16_000), np.float32)


async def collect(chunks):
    async with asyncio.timeout(30):
        return [chunk async for chunk in chunks]


async def texts(chunks):
    return [chunk.text for chunk in await collect(chunks)]


async def until_it_fails(chunks, said):
    async for chunk in chunks:
        said.append(chunk.text)


async def settle():
    for _ in range(200):
        await asyncio.sleep(0)


async def test_an_answer_without_a_failure_passes_as_it_is(engine, session):
    engine.scripts = [[("Hello.", 2.0)]]
    assert await texts(session.answer(SAY)) == ["Hello."]
    assert session.events.all == []


async def test_a_broken_answer_is_apologised_for_and_begun_anew_with_the_history(engine, session):
    engine.scripts = [
        [("We are here.", 2.0)],
        [("It is", 0.8), EngineUnavailable("it died")],
        [("It is Monday.", 2.4)],
    ]
    session.push(speech())
    await collect(session.answer(SPOKEN))
    session.push(speech(2.0))
    chunks = await collect(session.answer(SPOKEN))
    assert [chunk.text for chunk in chunks] == ["It is", APOLOGY, "It is Monday."]
    assert [chunk.sequence for chunk in chunks] == [0, 1, 2]
    assert [chunk.last for chunk in chunks] == [False, False, True]
    first, second = engine.sessions
    assert second.turns == [(16_000, None, "We are here.", 25)]
    # The turn that broke off is said again, as it was asked for.
    assert second.audio == 32_000
    assert second.requests == [replace(SPOKEN, goes_on=True)]
    assert [request.goes_on for request in first.requests] == [False, True]
    assert engine.abandoned == 1
    assert [name for name, _ in session.events.all] == ["engine_failed", "engine_recovered"]
    assert session.events.all[0][1] == {"message": "it died"}
    assert session.events.all[1][1]["where"] == "two:1"


async def test_silence_is_a_failure_only_if_the_engine_shows_no_life(engine, session):
    engine.scripts = [[("Hello", 2.0), None], [("Hello.", 1.0)]]
    asked = asyncio.create_task(texts(session.answer(SAY)))
    async with asyncio.timeout(30):
        while len(engine.probed) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    # Not before the caller has heard all there was.
    assert engine.probed[0] == pytest.approx(2.5)
    assert session.events.all == []
    engine.dead = "no sign of life"
    assert await asked == ["Hello", APOLOGY, "Hello."]


async def test_what_is_heard_after_a_failure_counts_from_the_answer_that_stands(engine, session):
    engine.scripts = [
        [("It is", 0.8), EngineUnavailable("it died")],
        [("It is Monday.", 2.4)],
        [("Yes.", 0.8)],
    ]
    await collect(session.answer(SAY))
    session.push(speech(), replace(SPOKEN, heard_seconds=3.0))
    await collect(session.answer(replace(SPOKEN, heard_seconds=3.0)))
    # 0.8 s of the attempt that broke off and the apology's second come before.
    assert engine.sessions[1].requests[1].heard_seconds == pytest.approx(1.2)


async def test_an_early_answer_that_breaks_says_nothing_until_the_turn_is_over(engine, session):
    engine.scripts = [[EngineUnavailable("it died")], [("Monday.", 0.8)]]
    session.push(speech())
    early = asyncio.create_task(texts(session.answer(replace(SPOKEN, early=True))))
    await settle()
    assert not early.done()
    session.push(speech(0.5))
    session.confirm()
    # An engine has taken over in the meantime: no apology is due.
    assert await early == ["Monday."]
    second = engine.sessions[1]
    assert second.audio == 24_000
    assert second.turns == []
    assert second.requests == [SPOKEN]


async def test_a_caller_who_goes_on_never_hears_of_an_early_answer_that_broke(engine, session):
    engine.scripts = [[EngineUnavailable("it died")], [("Monday.", 0.8)]]
    session.push(speech())
    early = asyncio.create_task(texts(session.answer(replace(SPOKEN, early=True))))
    await settle()
    await session.retract()
    assert await early == []
    session.push(speech())
    assert await texts(session.answer(SPOKEN)) == ["Monday."]
    assert engine.sessions[1].audio == 32_000


async def test_a_filler_that_fails_is_left_out(engine, session):
    engine.scripts = [[EngineUnavailable("it died")], [("Monday.", 0.8)]]
    with pytest.raises(EngineUnavailable, match="it died"):
        await collect(session.answer(TurnRequest(say="One second.", early=True)))
    await session.retract()
    assert "Monday." in await texts(session.answer(TurnRequest(result="Monday")))
    assert engine.sessions[1].turns == []


async def test_a_caller_who_interrupts_the_apology_is_answered_by_the_next_engine(engine, session):
    engine.scripts = [[("It is", 0.8), EngineUnavailable("it died")], [("Tuesday.", 0.8)]]
    engine.comes_back.clear()
    session.push(speech())
    asked = asyncio.create_task(texts(session.answer(SPOKEN)))
    await settle()
    await session.stop()
    assert await asked == ["It is", APOLOGY]
    session.push(speech(2.0))
    again = asyncio.create_task(texts(session.answer(replace(SPOKEN, heard_seconds=0.8))))
    await settle()
    engine.comes_back.set()
    assert await again == [APOLOGY, "Tuesday."]
    # What was heard of the broken answer is not forgotten.
    assert engine.sessions[1].turns == [(16_000, None, "It is", 10)]
    assert engine.sessions[1].requests[0].heard_seconds == 0.8
    assert engine.sessions[1].audio == 32_000


async def test_an_engine_that_stays_away_ends_the_call_with_a_sentence(engine, session):
    engine.scripts = [[EngineUnavailable("it died")]]
    engine.comes_back.clear()
    said = []
    with pytest.raises(EngineLost, match="no engine within 10 s"):
        await until_it_fails(session.answer(SAY), said)
    assert said == [APOLOGY, FAREWELL]
    assert session.lost


async def test_a_request_that_no_engine_takes_is_an_error_after_one_apology(engine, session):
    engine.scripts = [[EngineUnavailable("too long")], [EngineUnavailable("too long")], [("a", 1)]]
    said = []
    with pytest.raises(EngineUnavailable, match="too long"):
        await until_it_fails(session.answer(SAY), said)
    assert said == [APOLOGY]
    assert await texts(session.answer(SAY)) == ["a"]


async def test_a_call_that_ends_meanwhile_leaves_nothing_behind(engine, session):
    engine.scripts = [[EngineUnavailable("it died")]]
    engine.comes_back.clear()
    before = asyncio.all_tasks()
    asked = asyncio.create_task(texts(session.answer(SAY)))
    await settle()
    await session.close()
    assert await asked == [APOLOGY]
    assert asyncio.all_tasks() <= before


async def test_only_so_much_of_the_call_is_kept(engine):
    settings = FailureSettings(history_secs=2.5)
    words = FailureWords(Spoken("", np.ones(1, np.int16)), Spoken("", np.ones(1, np.int16)))
    session = LastingSession(engine, lambda: words, settings, engine.clock)
    engine.scripts = [[(str(turn), 1.0)] for turn in range(3)]
    engine.scripts += [[EngineUnavailable("it died")], [("4", 1.0)]]
    for _ in range(4):
        session.push(speech())
        await collect(session.answer(SPOKEN))
    assert [turn[2] for turn in engine.sessions[1].turns] == ["2"]
    await session.close()
