"""The service while the agent is held: what the caller says then, what becomes of the answer."""

from collections.abc import AsyncIterator

import pytest
from pipecat.frames.frames import (
    InterruptionFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from agent.frames import HoldSpeechFrame, ResumeSpeechFrame
from tests.paper_call import FRAME, Call, running


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    async with running() as call:
        yield call


async def answered(call: Call, seconds: float = 4.0) -> None:
    """The caller has asked and hears the answer."""
    await call.asks()
    call.session.says("We are open from eight in the morning to six.", seconds)
    call.session.ends()
    await call.spoken()
    call.session.pushed.clear()


async def starts_over_the_agent(call: Call) -> None:
    assert await call.service.hold()
    await call.send(VADUserStartedSpeakingFrame(start_secs=0.2))


async def test_a_false_interruption_leaves_no_trace_in_the_conversation(call: Call) -> None:
    await answered(call)
    await call.heard(0, 1.0)
    await starts_over_the_agent(call)
    await call.audio(10)
    await call.service.resume(0.3, 0.4)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await call.events.until(lambda: bool(call.down.of(ResumeSpeechFrame)))
    await call.heard(0, 4.0, completed=True)
    heard = await call.events.wait("heard")
    assert heard["text"] == "We are open from eight in the morning to six."
    assert call.events.named("false_interruption") == [{"spoken": 0.3, "paused": 0.4}]
    assert call.session.pushed == []
    assert (call.session.discarded, call.session.stopped) == (0, 0)
    assert call.events.named("interrupted") == []
    assert len(call.down.of(HoldSpeechFrame)) == 1
    # The next turn is heard whole, and alone.
    before = call._sent
    await call.speaks()
    await call.send(UserStoppedSpeakingFrame())
    await call.events.wait("turn_decided", 2)
    assert before / 32768 in call.session.pushed
    assert call.service.is_leaving() is False


async def test_an_interruption_brings_along_what_was_said_while_it_was_in_doubt(
    call: Call,
) -> None:
    await answered(call)
    await call.heard(0, 1.0)
    await starts_over_the_agent(call)
    first = call._sent
    await call.audio(10)
    assert call.session.pushed == []
    await call.send(InterruptionFrame())
    await call.audio(5)
    await call.heard(0, 1.2, interrupted=True)
    await call.events.wait("interrupted")
    said = [first + n for n in range(15 * FRAME)]
    assert [round(sample * 32768) for sample in call.session.pushed[-len(said) :]] == said
    await call.service.resume(0.3, 0.4)
    assert call.events.named("false_interruption") == []


async def test_who_speaks_while_the_last_word_is_on_its_way_answers_it(call: Call) -> None:
    await answered(call, 2.0)
    assert await call.service.hold()
    await call.service.resume(0.3, 0.4)
    await call.heard(0, 1.5)
    await call.events.until(lambda: call.service._history.open[0].heard_seconds == 1.5)
    assert not await call.service.hold()


async def test_a_turn_that_ends_during_the_last_words_is_not_answered(call: Call) -> None:
    await call.speaks()
    await call.service.end_with("Goodbye.")
    await call.send(UserStoppedSpeakingFrame())
    call.session.says("Goodbye.", 1.0)
    call.session.ends()
    await call.spoken()
    assert [request.say for request in call.session.requests] == ["Goodbye."]
    assert call.events.named("turn_decided") == []


async def test_the_agent_says_nothing_more_of_its_own_accord_after_goodbye(call: Call) -> None:
    await call.service.end_with("Goodbye.")
    call.service.say("Are you still there?")
    call.session.says("Goodbye.", 1.0)
    call.session.ends()
    await call.spoken()
    assert [request.say for request in call.session.requests] == ["Goodbye."]
