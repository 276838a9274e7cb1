"""The answering thread over an engine whose steps are let through one by one."""

import queue
import threading

import numpy as np
import pytest

from agent.serving.answering import AnsweringThread
from agent.speech.answer import AnswerPiece
from agent.speech.generation import CapacityError
from agent.speech.request import TurnRequest


def piece(session: str, text: str = "", last: bool = False) -> AnswerPiece:
    return AnswerPiece(session, np.zeros(0, dtype=np.int64), text, 0, last)


class Engine:
    """Each step gives every running answer's next word; runs only as often as `steps` says."""

    def __init__(self):
        self.running: dict[str, int] = {}
        self.outbox: list[AnswerPiece] = []
        self.closed: list[str] = []
        self.credits: list[tuple[str, int]] = []
        self.heard: list[tuple[str, list[int]]] = []
        self.names: dict[str, str] = {}
        self.retracted: list[tuple[str, str]] = []
        self.steps = threading.Semaphore(0)
        self.fail = False
        self.full = False
        self.sessions = 0
        self.over = False

    def end(self):
        """Let the thread go: steps neither wait nor do anything any more."""
        self.over = True
        self.steps.release(100)

    @property
    def idle(self) -> bool:
        return not self.running and not self.outbox

    def submit(self, session, tokens, request, name):
        if self.full:
            raise CapacityError("no room")
        if not len(tokens) and request.instruction is None:
            raise ValueError("an empty turn")
        self.stop(session)
        self.running[session] = 0
        self.names[session] = name
        self.sessions = 1

    def listen(self, session, tokens, request):
        if self.full:
            raise CapacityError("no room")
        self.heard.append((session, tokens.tolist()))

    def retract(self, session, name):
        if self.names.get(session) != name:
            return False
        self.retracted.append((session, name))
        self.stop(session)
        return True

    def transcribe(self, session, transcript):
        if transcript in self.running:
            raise ValueError("a session already")
        self.outbox += [piece(transcript, "his words"), piece(transcript, last=True)]

    def stop(self, session):
        if self.running.pop(session, None) is not None:
            self.outbox.append(piece(session, last=True))

    def close(self, session):
        self.stop(session)
        self.closed.append(session)
        self.sessions = 0

    def credit(self, session, decoded):
        self.credits.append((session, decoded))

    def step(self):
        pieces, self.outbox = self.outbox, []
        if self.running and self.steps.acquire(timeout=10) and not self.over:
            if self.fail:
                self.fail = False
                raise RuntimeError("out of memory")
            for session, number in self.running.items():
                pieces.append(piece(session, f"word {number}"))
                self.running[session] += 1
        return pieces


class Reply:
    def __init__(self):
        self.events: queue.Queue = queue.Queue()

    def piece(self, piece):
        self.events.put("last" if piece.last else piece.text)

    def fail(self, message):
        self.events.put(f"failed: {message}")

    def get(self):
        return self.events.get(timeout=10)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def answering(engine):
    thread = AnsweringThread(engine)
    thread.start()
    yield thread
    engine.end()
    thread.shutdown()


TOKENS = np.array([1, 2], dtype=np.int64)


def submit(answering, session, answer, tokens=TOKENS, request=None):
    reply = Reply()
    answering.submit(session, answer, tokens, request or TurnRequest(), reply)
    return reply


def stop(answering, session, answer, **fields):
    done = threading.Event()
    answering.stop(session, answer, TurnRequest(**fields), done.set)
    return done


def test_a_stop_takes_effect_within_one_step(answering, engine):
    reply = submit(answering, "s", "s/0")
    engine.steps.release()
    assert reply.get() == "word 0"
    done = stop(answering, "s", "s/0")
    engine.steps.release()
    assert done.wait(10)
    events = [reply.get()]
    while events[-1] != "last":
        events.append(reply.get())
    assert len(events) <= 2


def test_a_stop_for_the_last_answer_leaves_the_next_one_alone(answering, engine):
    first = submit(answering, "s", "s/0")
    engine.steps.release()
    assert first.get() == "word 0"
    second = submit(answering, "s", "s/1")
    engine.steps.release()
    stop(answering, "s", "s/0")
    engine.steps.release(3)
    received = [first.get()]
    while received[-1] != "last":
        received.append(first.get())
    assert [second.get() for _ in range(2)] == ["word 0", "word 1"]


def test_a_stop_that_overtakes_its_turn_prevents_the_answer(answering):
    assert stop(answering, "s", "s/0").wait(10)
    assert submit(answering, "s", "s/0").get() == "last"


def test_a_nameless_stop_stops_whatever_runs(answering, engine):
    reply = submit(answering, "s", "s/0")
    done = stop(answering, "s", "")
    engine.steps.release()
    assert done.wait(10)
    assert reply.get() in ("last", "word 0")


def test_a_stop_for_a_silent_session_is_no_error(answering):
    assert stop(answering, "nobody", "").wait(10)


def test_close_forgets_the_session(answering, engine):
    reply = submit(answering, "s", "s/0")
    done = stop(answering, "s", "", close=True)
    engine.steps.release()
    assert done.wait(10)
    assert engine.closed == ["s"]
    assert reply.get() in ("last", "word 0")


def test_a_turn_that_goes_on_is_taken_back(answering, engine):
    reply = submit(answering, "s", "s/0")
    engine.steps.release()
    assert reply.get() == "word 0"
    done = stop(answering, "s", "s/0", retract=True)
    engine.steps.release()
    assert done.wait(10)
    assert engine.retracted == [("s", "s/0")]
    events = [reply.get()]
    while events[-1] != "last":
        events.append(reply.get())


def test_a_turn_is_taken_back_before_it_came(answering, engine):
    assert stop(answering, "s", "s/0", retract=True).wait(10)
    assert submit(answering, "s", "s/0").get() == "last"
    assert engine.retracted == [("s", "s/0")]


def test_what_is_said_after_the_call_opens_it_again(answering, engine):
    """The last words of a caller who hung up are still on their way when the session closes."""
    answering.listen("s", TOKENS, TurnRequest())
    assert stop(answering, "s", "", close=True).wait(10)
    answering.listen("s", TOKENS, TurnRequest())
    assert stop(answering, "other", "").wait(10)
    assert engine.heard == [("s", [1, 2])]
    # A new call by the same name is another matter.
    submit(answering, "s", "s/1")
    answering.listen("s", TOKENS, TurnRequest())
    done = stop(answering, "s", "s/1")
    engine.steps.release(2)
    assert done.wait(10)
    assert len(engine.heard) == 2


def test_listening_to_a_full_engine_fails_somebody(answering, engine):
    engine.full = True
    answering.listen("s", TOKENS, TurnRequest())
    engine.full = False
    reply = submit(answering, "s", "s/0")
    engine.steps.release()
    assert reply.get() == "word 0"


def test_a_transcript_is_mixed_with_the_answer(answering, engine):
    answer, words = submit(answering, "s", "s/0"), Reply()
    engine.steps.release()
    assert answer.get() == "word 0"
    sessions = []
    take = words.piece
    words.piece = lambda piece: (sessions.append(piece.session), take(piece))
    answering.transcribe("s", "s/0/words", words)
    engine.steps.release(2)
    assert [words.get(), words.get()] == ["his words", "last"]
    assert sessions == ["s", "s"]
    assert answer.get() == "word 1"


def test_credit_of_an_answer_that_is_over_is_not_given_to_the_next(answering, engine):
    submit(answering, "s", "s/1")
    answering.credit("s", "s/0", 50)
    answering.credit("s", "s/1", 10)
    done = stop(answering, "s", "s/1")
    engine.steps.release(3)
    assert done.wait(10)
    assert engine.credits == [("s", 10)]


@pytest.mark.parametrize("full", [False, True])
def test_a_refused_turn_fails_alone(answering, engine, full):
    other = submit(answering, "other", "other/0")
    engine.steps.release()
    assert other.get() == "word 0"
    engine.full = full
    bad = submit(answering, "s", "s/0", tokens=TOKENS if full else TOKENS[:0])
    engine.steps.release(2)
    assert bad.get() == ("failed: no room" if full else "failed: an empty turn")
    assert other.get() == "word 1"


def test_a_failed_step_ends_its_answers_and_the_thread_goes_on(answering, engine):
    first = submit(answering, "s", "s/0")
    engine.fail = True
    engine.steps.release()
    assert first.get() == "failed: a step of the language model failed: out of memory"
    second = submit(answering, "s", "s/1")
    engine.steps.release()
    # And not the last piece of the answer that failed.
    assert second.get() == "word 0"


def test_a_response_that_triton_does_not_take_stops_nobody_else(answering, engine):
    def broken(*args):
        raise RuntimeError("the response sender is closed")

    reply = Reply()
    reply.piece = reply.fail = broken
    answering.submit("a", "a/0", TOKENS, TurnRequest(), reply)
    answering.submit("b", "b/0", TOKENS[:0], TurnRequest(), reply)
    answering.stop("c", "", TurnRequest(), broken)
    other = submit(answering, "d", "d/0")
    engine.steps.release(2)
    assert other.get() == "word 0"


def test_unloading_ends_running_answers(engine):
    answering = AnsweringThread(engine)
    answering.start()
    reply = submit(answering, "s", "s/0")
    engine.steps.release()
    assert reply.get() == "word 0"
    engine.end()
    answering.shutdown()
    events = []
    while not reply.events.empty():
        events.append(reply.get())
    assert events[-1] == "failed: the language model is being unloaded"


def test_the_number_of_sessions_is_reported(engine):
    counts: queue.Queue = queue.Queue()
    answering = AnsweringThread(engine, report=counts.put)
    answering.start()
    submit(answering, "s", "s/0")
    engine.steps.release()
    assert counts.get(timeout=10) == 1
    engine.end()
    stop(answering, "s", "", close=True)
    assert counts.get(timeout=10) == 0
    answering.shutdown()
