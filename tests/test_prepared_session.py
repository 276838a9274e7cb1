"""A greeting that is made before anybody asks for it."""

import asyncio

import numpy as np
import pytest

from agent.prepared_session import PreparedSession
from agent.speech.request import TurnRequest
from agent.voice_session import AnswerChunk

GREETING = TurnRequest(say="Oak Street Clinic.")


class Session:
    """Answers in two chunks, the second when it is let."""

    def __init__(self):
        self.requests = []
        self.go_on = asyncio.Event()
        self.error = None
        self.closed = False

    async def answer(self, request=None):
        self.requests.append(request)
        yield AnswerChunk(0, "Oak", np.ones(100, np.int16), False, {})
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        yield AnswerChunk(1, "Street", np.ones(100, np.int16), True, {})

    async def close(self):
        self.closed = True


@pytest.fixture
def session():
    return Session()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_greeting_is_made_before_it_is_asked_for_and_given_whole(session):
    now = 10.0
    prepared = PreparedSession(session, GREETING, clock=lambda: now)
    assert prepared.ahead is None
    await settle()
    now = 10.25
    assert prepared.ahead == 0.25
    chunks = aiter(prepared.answer(GREETING))
    assert (await anext(chunks)).sequence == 0
    session.go_on.set()
    assert (await anext(chunks)).last
    assert await anext(chunks, None) is None
    assert session.requests == [GREETING]
    assert prepared.ahead is None


async def test_only_the_first_answer_is_the_greeting(session):
    session.go_on.set()
    prepared = PreparedSession(session, GREETING)
    for _ in range(2):
        assert len([chunk async for chunk in prepared.answer(GREETING)]) == 2
    assert session.requests == [GREETING, GREETING]


async def test_a_greeting_that_nobody_heard_is_forgotten(session):
    session.go_on.set()
    prepared = PreparedSession(session, GREETING)
    await settle()
    _ = [chunk async for chunk in prepared.answer(TurnRequest(instruction="Wait."))]
    assert session.requests[1] == TurnRequest(instruction="Wait.", heard_seconds=0.0)


async def test_a_greeting_that_failed_is_tried_again(session):
    session.error = RuntimeError("the engine went away")
    session.go_on.set()
    prepared = PreparedSession(session, GREETING)
    await settle()
    with pytest.raises(RuntimeError, match="went away"):
        _ = [chunk async for chunk in prepared.answer(GREETING)]
    assert len(session.requests) == 2


async def test_an_error_on_the_way_comes_in_its_place(session):
    prepared = PreparedSession(session, GREETING)
    chunks = aiter(prepared.answer(GREETING))
    assert (await anext(chunks)).text == "Oak"
    session.error = RuntimeError("the engine went away")
    session.go_on.set()
    with pytest.raises(RuntimeError, match="went away"):
        await anext(chunks)


async def test_without_a_greeting_nothing_is_begun(session):
    prepared = PreparedSession(session, None)
    await settle()
    assert session.requests == []
    await prepared.close()


async def test_closing_leaves_no_task_behind(session):
    before = asyncio.all_tasks()
    prepared = PreparedSession(session, GREETING)
    await settle()
    await prepared.close()
    assert session.closed
    assert asyncio.all_tasks() == before
