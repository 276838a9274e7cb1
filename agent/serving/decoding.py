"""The speech decoder as a service: one thread decodes the pieces of many answers."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from agent.serving.schedule import Candidate, Schedule, extended
from agent.speech.answer import AnswerPiece
from agent.speech.decoder import DecoderStream, SpeechDecoder

SAMPLE_RATE = 22_050

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
class _Session:
    """A call, as long as something of it arrives.

    Attributes:
        joined: When its first piece arrived.
        used: When its last one did.
    """

    joined: float
    used: float


@dataclass
class _Answer:
    """One answer whose pieces are arriving.

    Attributes:
        stream: Decodes it.
        session: Whose answer.
        jobs: What is still to be decoded, in order.
        decoded: Speech tokens decoded so far.
        runs_out: When the audio sent so far will have been played; None before the first.
        timing: Seconds from the arrival of its first speech to the beginning of its decoding
            ("decoder_queue") and to the audio of it ("first_audio").
        gone: Its client no longer wants it.
        dead: It was stopped or a piece failed: what still comes is thrown away.
        used: When a piece last arrived.
    """

    stream: DecoderStream
    session: _Session
    jobs: deque[_Job] = field(default_factory=deque)
    decoded: int = 0
    runs_out: float | None = None
    timing: dict[str, float] = field(default_factory=dict)
    gone: bool = False
    dead: bool = False
    used: float = 0.0

    def is_free(self) -> bool:
        """Whether what comes next needs no decoding (an answer's last samples hardly count)."""
        return bool(self.jobs) and (self.dead or not len(self.jobs[0].piece.speech_tokens))

    def candidate(self) -> Candidate:
        """What the schedule sees of it."""
        ends = bool(self.jobs) and self.jobs[-1].piece.last
        pieces = sum(bool(len(job.piece.speech_tokens)) for job in self.jobs) if ends else math.inf
        return Candidate(self.session.joined, bool(self.jobs), pieces, self.runs_out)


Key = tuple[str, str]


@dataclass
class _Task:
    key: Key
    answer: _Answer
    job: _Job


class DecodingThread:
    """Decodes pieces in a thread of its own, one of each answer at a time.

    The pieces of an answer stay in order; whose piece is next, the schedule says. What needs no
    decoding goes out at once.

    Args:
        decoder: Used by the thread alone.
        link: Told what has been decoded, and what need not be generated. As its credit follows the
            decoding, an answer that the schedule holds back is not generated far ahead either.
        schedule: Used by the thread alone.
        ttl_seconds: An answer of which nothing more arrives for so long is forgotten.
        threads: Threads to compute with.
        report: Called in the thread with the number of answers whose state is held.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        decoder: SpeechDecoder,
        link: LanguageModelLink,
        schedule: Schedule,
        ttl_seconds: float,
        threads: int = 1,
        report: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder = decoder
        self._link = link
        self._schedule = schedule
        self._ttl = ttl_seconds
        self._threads = threads
        self._report = report
        self._clock = clock
        # Something has arrived or was stopped.
        self._changed = threading.Condition()
        self._stopping = False
        self._sessions: dict[str, _Session] = {}
        # The one decoded longest ago comes first.
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def shutdown(self) -> None:
        """End the thread after the piece it is at; pieces that still wait end with an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, answer: str, piece: AnswerPiece, reply: PieceReply) -> None:
        """Decode a piece of the named answer (Triton's request id) of the piece's session."""
        key = (piece.session, answer)
        with self._changed:
            now = self._clock()
            session = self._sessions.setdefault(piece.session, _Session(now, now))
            state = self._answers.get(key)
            if state is None:
                state = _Answer(self._decoder.stream(), session)
                self._answers[key] = state
            session.used = state.used = now
            state.jobs.append(_Job(piece, reply, now))
            self._changed.notify()

    def stop(self, session: str, answer: str) -> None:
        """Throw away what has not been decoded of an answer; without a name, of all the session's.

        Triton does not say of a piece that was queued before it that the client has cancelled.
        """
        with self._changed:
            for (owner, name), state in self._answers.items():
                if owner == session and answer in ("", name):
                    state.dead = True
            self._changed.notify()

    def _run(self) -> None:
        # OpenMP keeps the number of threads for each thread that computes.
        torch.set_num_threads(self._threads)
        while tasks := self._next():
            self._work(tasks)
            self._report(len(self._answers))
        for state in self._answers.values():
            for job in state.jobs:
                job.reply.fail("the speech decoder is being unloaded")

    def _next(self) -> list[_Task]:
        """Wait for the next pieces to decode together; none when it is time to end."""
        with self._changed:
            while not self._stopping:
                for key, state in self._answers.items():
                    if state.is_free():
                        return [self._take(key, state)]
                now = self._clock()
                # A dead one that waits for nothing holds back nobody.
                alive = [item for item in self._answers.items() if not item[1].dead]
                choice = self._schedule.choose([state.candidate() for _, state in alive], now)
                if choice.take:
                    return [self._take(*alive[index]) for index in choice.take]
                self._expire(now)
                wake = math.inf if choice.wake is None else choice.wake
                self._changed.wait(min(_EXPIRY_SECONDS, wake - now))
        return []

    def _take(self, key: Key, state: _Answer) -> _Task:
        state.gone = any(job.reply.cancelled() for job in state.jobs)
        job = state.jobs.popleft()
        if job.piece.last:
            # Before its audio is out: what comes in reply to that is another answer.
            del self._answers[key]
        elif len(job.piece.speech_tokens):
            self._answers.move_to_end(key)
        return _Task(key, state, job)

    def _expire(self, now: float) -> None:
        oldest = now - self._ttl
        expired = [
            key for key, state in self._answers.items() if state.used < oldest and not state.jobs
        ]
        for key in expired:
            del self._answers[key]
        if expired:
            self._report(len(self._answers))
        for name in [name for name, one in self._sessions.items() if one.used < oldest]:
            del self._sessions[name]

    def _work(self, tasks: Sequence[_Task]) -> None:
        begun = self._clock()
        wanted = [task for task in tasks if _guarded(self._is_wanted, task)]
        # The first piece of an answer has nothing to lead it: it says little of what others cost.
        typical = all(task.answer.decoded for task in wanted)
        sounds = self._decode(wanted)
        spoken = [
            _guarded(self._send, task, sound, begun)
            for task, sound in zip(wanted, sounds, strict=True)
        ]
        if typical and any(spoken):
            self._schedule.measured(len(spoken), self._clock() - begun)

    def _is_wanted(self, task: _Task) -> bool:
        """Whether a piece is to be decoded; if not, ends its reply."""
        if task.answer.gone and not task.answer.dead:
            self._abandon(task.key, task.answer)
        if task.answer.dead:
            task.job.reply.finish()
        return not task.answer.dead

    def _decode(self, tasks: Sequence[_Task]) -> list[torch.Tensor | Exception]:
        """The audio of each piece, float32 [s], or what is wrong with it."""
        pieces = [
            (
                task.answer.stream,
                torch.from_numpy(task.job.piece.speech_tokens),
                task.job.piece.last,
            )
            for task in tasks
        ]
        if len(pieces) > 1:
            try:
                return [*self._decoder.advance(pieces)]
            except ValueError:
                # One of them is wrong, and nothing has been decoded: each alone shows which.
                pass
            except Exception as error:
                logger.exception("Pieces of answers could not be decoded")
                return [error] * len(pieces)
        sounds: list[torch.Tensor | Exception] = []
        for stream, tokens, last in pieces:
            try:
                sounds.append(stream.push(tokens, last))
            except Exception as error:
                if not isinstance(error, ValueError):
                    logger.exception("A piece of an answer could not be decoded")
                sounds.append(error)
        return sounds

    def _send(self, task: _Task, sound: torch.Tensor | Exception, begun: float) -> bool:
        """Reply to a piece; whether it was speech."""
        state, job = task.answer, task.job
        if isinstance(sound, Exception):
            # What is wrong with one answer must not end the others.
            job.reply.fail(str(sound))
            self._abandon(task.key, state)
            return False
        now = self._clock()
        tokens = len(job.piece.speech_tokens)
        if tokens and not state.timing:
            state.timing = {"decoder_queue": begun - job.arrived, "first_audio": now - job.arrived}
        timing = job.piece.timing | state.timing
        carries = self._schedule.carries()
        if job.piece.last and carries is not None:
            timing["carries"] = carries
        job.reply.audio(replace(job.piece, timing=timing), _to_int16(sound))
        state.decoded += tokens
        if len(sound):
            state.runs_out = extended(state.runs_out, now, len(sound) / SAMPLE_RATE)
        if tokens and not job.piece.last:
            self._link.credit(*task.key, state.decoded)
        return bool(tokens)

    def _abandon(self, key: Key, state: _Answer) -> None:
        state.dead = True
        self._link.stop(*key)


def _to_int16(audio: torch.Tensor) -> npt.NDArray[np.int16]:
    samples = (audio.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)
    return samples.numpy()


def _guarded(action: Callable[..., bool], *arguments: object) -> bool:
    """What one answer asked for; that it cannot be sent must not end the others."""
    try:
        return action(*arguments)
    except Exception:
        # Triton would not take a response, or the language model no message.
        logger.exception("A piece of an answer could not be sent")
        return False
