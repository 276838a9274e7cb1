"""The speech decoder as a service: one thread decodes the pieces of many answers in turns."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from agent.speech.answer import AnswerPiece
from agent.speech.decoder import DecoderStream, SpeechDecoder

_EXPIRY_SECONDS = 1.0


class PieceReply(Protocol):
    """Where the audio of one piece goes."""

    def cancelled(self) -> bool:
        """Whether the client no longer wants it."""

    def audio(self, piece: AnswerPiece, audio: npt.NDArray[np.int16]) -> None:
        """Send the piece with its audio, int16 [s] at 22.05 kHz; ends the reply."""

    def fail(self, message: str) -> None:
        """End the reply with an error."""

    def finish(self) -> None:
        """End the reply without anything."""


class LanguageModelLink(Protocol):
    """The way back to the language model that sends the pieces."""

    def credit(self, session: str, answer: str, decoded: int) -> None:
        """So many speech tokens of the answer have become audio."""

    def stop(self, session: str, answer: str) -> None:
        """Nobody wants the answer any more."""


@dataclass
class _Job:
    piece: AnswerPiece
    reply: PieceReply
    arrived: float


@dataclass
class _Answer:
    """One answer whose pieces are arriving.

    Attributes:
        stream: Decodes it.
        jobs: What is still to be decoded, in order.
        decoded: Speech tokens decoded so far.
        first_audio: Seconds from the arrival of its first speech to the audio of it.
        gone: Its client no longer wants it.
        dead: It was stopped or a piece failed: what still comes is thrown away.
        used: When a piece last arrived.
    """

    stream: DecoderStream
    jobs: deque[_Job] = field(default_factory=deque)
    decoded: int = 0
    first_audio: float | None = None
    gone: bool = False
    dead: bool = False
    used: float = 0.0


Key = tuple[str, str]


class DecodingThread:
    """Decodes pieces in a thread of its own, one piece of one answer at a time.

    The pieces of an answer stay in order. Among the answers, one of which nothing has been heard
    goes first, because its caller waits in silence; the others take turns.

    Args:
        decoder: Used by the thread alone.
        link: Told what has been decoded, and what need not be generated.
        ttl_seconds: An answer of which nothing more arrives for so long is forgotten.
        threads: Threads to compute with.
        report: Called in the thread with the number of answers whose state is held.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        decoder: SpeechDecoder,
        link: LanguageModelLink,
        ttl_seconds: float,
        threads: int = 1,
        report: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder = decoder
        self._link = link
        self._ttl = ttl_seconds
        self._threads = threads
        self._report = report
        self._clock = clock
        self._arrived = threading.Condition()
        self._stopping = False
        # In the order of their turns: the first with something to do is next.
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def shutdown(self) -> None:
        """End the thread after the piece it is at; pieces that still wait end with an error."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        self._thread.join()

    def submit(self, answer: str, piece: AnswerPiece, reply: PieceReply) -> None:
        """Decode a piece of the named answer (Triton's request id) of the piece's session."""
        key = (piece.session, answer)
        with self._arrived:
            state = self._answers.get(key)
            if state is None:
                state = _Answer(self._decoder.stream())
                self._answers[key] = state
            state.used = self._clock()
            state.jobs.append(_Job(piece, reply, state.used))
            self._arrived.notify()

    def stop(self, session: str, answer: str) -> None:
        """Throw away what has not been decoded of an answer; without a name, of all the session's.

        Triton does not say of a piece that was queued before it that the client has cancelled.
        """
        with self._arrived:
            for (owner, name), state in self._answers.items():
                if owner == session and answer in ("", name):
                    state.dead = True

    def _run(self) -> None:
        # OpenMP keeps the number of threads for each thread that computes.
        torch.set_num_threads(self._threads)
        while (found := self._next()) is not None:
            key, state, job = found
            try:
                self._work(key, state, job)
            except Exception:
                # Triton would not take a response, or the language model no message: one call's.
                logger.exception("A piece of an answer could not be sent")
            self._report(len(self._answers))
        for state in self._answers.values():
            for job in state.jobs:
                job.reply.fail("the speech decoder is being unloaded")

    def _next(self) -> tuple[Key, _Answer, _Job] | None:
        """Wait for the next piece to decode; None when it is time to end."""
        with self._arrived:
            while not self._stopping:
                waiting = [(key, state) for key, state in self._answers.items() if state.jobs]
                if waiting:
                    silent = (item for item in waiting if not item[1].decoded)
                    key, state = next(silent, waiting[0])
                    state.gone = any(job.reply.cancelled() for job in state.jobs)
                    job = state.jobs.popleft()
                    if job.piece.last:
                        # Before its audio is out: what comes in reply to that is another answer.
                        del self._answers[key]
                    else:
                        self._answers.move_to_end(key)
                    return key, state, job
                self._expire()
                self._arrived.wait(_EXPIRY_SECONDS)
        return None

    def _expire(self) -> None:
        oldest = self._clock() - self._ttl
        expired = [key for key, state in self._answers.items() if state.used < oldest]
        for key in expired:
            del self._answers[key]
        if expired:
            self._report(len(self._answers))

    def _work(self, key: Key, state: _Answer, job: _Job) -> None:
        if not state.dead and state.gone:
            self._abandon(key, state)
        if state.dead:
            job.reply.finish()
            return
        try:
            tokens = torch.from_numpy(job.piece.speech_tokens)
            audio = state.stream.push(tokens, job.piece.last)
        except Exception as error:
            # What is wrong with one answer must not end the others.
            if not isinstance(error, ValueError):
                logger.exception("A piece of an answer could not be decoded")
            job.reply.fail(str(error))
            self._abandon(key, state)
            return
        timing = dict(job.piece.timing)
        if len(tokens) and state.first_audio is None:
            state.first_audio = self._clock() - job.arrived
        if state.first_audio is not None:
            timing["first_audio"] = state.first_audio
        job.reply.audio(replace(job.piece, timing=timing), _to_int16(audio))
        state.decoded += len(tokens)
        if len(tokens) and not job.piece.last:
            self._link.credit(*key, state.decoded)

    def _abandon(self, key: Key, state: _Answer) -> None:
        state.dead = True
        self._link.stop(*key)


def _to_int16(audio: torch.Tensor) -> npt.NDArray[np.int16]:
    samples = (audio.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)
    return samples.numpy()
