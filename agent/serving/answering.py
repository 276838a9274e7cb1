"""The language model as a service: one thread steps the engine for every session that answers."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from agent.speech.answer import AnswerPiece
from agent.speech.generation import CapacityError, GenerationEngine
from agent.speech.request import TurnRequest

_REMEMBERED = 1024
_EXPIRY_SECONDS = 1.0

T = TypeVar("T")
V = TypeVar("V")


class AnswerReply(Protocol):
    """Where one answer's pieces go."""

    def piece(self, piece: AnswerPiece) -> None:
        """Send a piece; the one whose ``last`` is set ends the reply."""

    def fail(self, message: str) -> None:
        """End the reply with an error."""


@dataclass
class _Answer:
    session: str
    name: str
    reply: AnswerReply


class AnsweringThread:
    """Runs a GenerationEngine in a thread of its own.

    The methods may be called from any thread and return at once; what they ask for happens between
    two steps of the engine. An answer has a name (Triton's request id) besides its session, because
    what is sent about one answer may arrive when the session's next one is already running. The
    empty name stands for whichever answer is running.

    Args:
        engine: Used by the thread alone.
        threads: Threads to compute with.
        report: Called in the thread with the number of sessions the engine holds.
    """

    def __init__(
        self,
        engine: GenerationEngine,
        threads: int = 1,
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._report = report
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Answers of each session whose last piece has not been sent, oldest first.
        self._answers: dict[str, deque[_Answer]] = {}
        # Stops that came before their answers, and whether they take the turn back: a caller who
        # goes on speaking stops an answer while its turn is still being tokenised.
        self._stops: OrderedDict[tuple[str, str], bool] = OrderedDict()
        # Sessions of calls that are over: what was heard last may still be on its way.
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def shutdown(self) -> None:
        """End the thread after its current step; answers that still run end with an error."""
        self._commands.put(None)
        self._thread.join()

    def submit(
        self,
        session: str,
        answer: str,
        tokens: npt.NDArray[np.int64],
        request: TurnRequest,
        reply: AnswerReply,
    ) -> None:
        """Answer a turn of int64 [m] speech tokens; stops the session's running answer."""
        self._commands.put(lambda: self._submit(session, answer, tokens, request, reply))

    def listen(self, session: str, tokens: npt.NDArray[np.int64], request: TurnRequest) -> None:
        """Read a turn that is being spoken, int64 [m] from its beginning."""
        self._commands.put(lambda: self._listen(session, tokens, request))

    def recall(
        self,
        session: str,
        answer: str,
        tokens: npt.NDArray[np.int64],
        request: TurnRequest,
        reply: AnswerReply,
    ) -> None:
        """Take a turn and its answer into the history; the reply is an empty last piece."""
        self._commands.put(lambda: self._recall(session, answer, tokens, request, reply))

    def transcribe(self, session: str, transcript: str, reply: AnswerReply) -> None:
        """Write down the caller's words in the session's last turn; the name is the reply's own."""
        self._commands.put(lambda: self._transcribe(session, transcript, reply))

    def stop(
        self, session: str, answer: str, request: TurnRequest, done: Callable[[], None]
    ) -> None:
        """Stop an answer, or one that is still on its way here; then call ``done``.

        With the request's ``retract`` its turn is forgotten, with ``close`` the session.
        """
        self._commands.put(lambda: self._stop(session, answer, request, done))

    def holds(self, session: str) -> bool:
        """Whether there is a session of this name."""
        return self._engine.holds(session)

    def credit(self, session: str, answer: str, decoded: int) -> None:
        """Tell the engine how many speech tokens of an answer have become audio."""
        self._commands.put(lambda: self._credit(session, answer, decoded))

    def _run(self) -> None:
        # OpenMP keeps the number of threads for each thread that computes.
        torch.set_num_threads(self._threads)
        reported = 0
        while self._obey():
            try:
                pieces = self._engine.step()
            except Exception as error:
                logger.exception("A step of the language model failed")
                self._give_up(f"a step of the language model failed: {error}")
                continue
            for piece in pieces:
                self._deliver(piece)
            if self._engine.sessions != reported:
                reported = self._engine.sessions
                self._report(reported)
        self._give_up("the language model is being unloaded")

    def _obey(self) -> bool:
        """Carry out what was asked for; with nothing to step, wait for it. False: shut down."""
        wait = self._engine.idle
        while True:
            try:
                command = self._commands.get(block=wait, timeout=_EXPIRY_SECONDS)
            except queue.Empty:
                return True
            if command is None:
                return False
            _guarded(command)
            wait = False

    def _submit(
        self,
        session: str,
        answer: str,
        tokens: npt.NDArray[np.int64],
        request: TurnRequest,
        reply: AnswerReply,
    ) -> None:
        try:
            self._engine.submit(session, tokens, request, answer)
        except (ValueError, CapacityError) as error:
            reply.fail(str(error))
            return
        self._closed.pop(session, None)
        self._expect(session, _Answer(session, answer, reply))
        retract = self._stops.pop((session, answer), None)
        if retract is not None:
            self._end(session, answer, retract)

    def _recall(
        self,
        session: str,
        answer: str,
        tokens: npt.NDArray[np.int64],
        request: TurnRequest,
        reply: AnswerReply,
    ) -> None:
        try:
            self._engine.recall(session, tokens, request)
        except (ValueError, CapacityError) as error:
            reply.fail(str(error))
            return
        self._closed.pop(session, None)
        reply.piece(AnswerPiece(session, np.zeros(0, dtype=np.int64), "", 0, last=True))

    def _listen(self, session: str, tokens: npt.NDArray[np.int64], request: TurnRequest) -> None:
        if session in self._closed:
            return
        try:
            self._engine.listen(session, tokens, request)
        except (ValueError, CapacityError) as error:
            # Whoever asks for the answer will hear of it.
            logger.bind(reason=str(error)).debug("A turn is not read ahead")

    def _transcribe(self, session: str, transcript: str, reply: AnswerReply) -> None:
        # No session's name has a line break.
        key = f"{session}\n{transcript}"
        try:
            self._engine.transcribe(session, key)
        except ValueError as error:
            reply.fail(str(error))
            return
        self._expect(key, _Answer(session, transcript, reply))

    def _expect(self, key: str, answer: _Answer) -> None:
        self._answers.setdefault(key, deque()).append(answer)

    def _stop(
        self, session: str, answer: str, request: TurnRequest, done: Callable[[], None]
    ) -> None:
        if request.close:
            self._engine.close(session)
            _remember(self._closed, session, None)
        elif not self._end(session, answer, request.retract) and answer:
            _remember(self._stops, (session, answer), request.retract)
        done()

    def _end(self, session: str, answer: str, retract: bool) -> bool:
        """Stop an answer or take back its turn; False if it is not known (any more)."""
        if retract:
            return self._engine.retract(session, answer)
        if not self._is_running(session, answer):
            return False
        self._engine.stop(session)
        return True

    def _credit(self, session: str, answer: str, decoded: int) -> None:
        if self._is_running(session, answer):
            self._engine.credit(session, decoded)

    def _is_running(self, session: str, answer: str) -> bool:
        answers = self._answers.get(session)
        return answers is not None and answer in ("", answers[-1].name)

    def _deliver(self, piece: AnswerPiece) -> None:
        answers = self._answers[piece.session]
        answer = answers[0]
        if piece.last:
            answers.popleft()
            if not answers:
                del self._answers[piece.session]
        _guarded(lambda: answer.reply.piece(replace(piece, session=answer.session)))

    def _give_up(self, message: str) -> None:
        """End all answers with an error; their sessions cannot be trusted any more."""
        for session, answers in self._answers.items():
            self._engine.close(session)
            for answer in answers:
                _guarded(partial(answer.reply.fail, message))
        self._answers.clear()
        # Nothing runs, so this only takes the last pieces, which nobody waits for now.
        self._engine.step()


def _remember(memory: OrderedDict[T, V], key: T, value: V) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _guarded(action: Callable[[], None]) -> None:
    """Do what one call asked for; that Triton takes no response for it must not end the others."""
    try:
        action()
    except Exception:
        logger.exception("A response could not be sent")
