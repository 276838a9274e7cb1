"""A conversation that outlives the engine it began on.

It keeps what was said. When the engine fails while an answer is due, the caller hears an apology
that needs no engine, the conversation is told to another engine or to the same one once it is back,
and the turn is answered anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from agent.conversation import AGENT_RATE, SpeechSession
from agent.events import JSON, CallObserver
from agent.failure import (
    Clock,
    Engine,
    EngineLost,
    FailureWords,
    Spoken,
    SystemClock,
)
from agent.failure_settings import FailureSettings
from agent.past import Past, PastTurn, pcm
from agent.replica import EngineUnavailable
from agent.speech.request import TurnRequest
from agent.voice_session import AnswerChunk

_MOST_ATTEMPTS = 3
"""Engines that one answer is asked of, one after the other."""
_TRY_AGAIN_SECONDS = 0.25


@dataclass
class _Asked:
    """An answer that was asked for.

    Attributes:
        turn: The turn, and what there is of the answer.
        pieces: The turn's audio, float32 arrays.
        due: It will be heard: the turn is over.
        aside: It is not for the history.
        quiet_from: When the caller will have heard all of it so far, at the earliest.
        seconds: Of its sound so far, apologies and attempts that failed included.
        before: Of them those before the attempt that counts.
        chunks: The attempt that runs; None while there is no engine.
        over: Nobody wants it any more.
        changed: Any of these has changed.
    """

    turn: PastTurn
    pieces: list[NDArray[np.float32]]
    due: bool
    aside: bool
    quiet_from: float
    seconds: float = 0.0
    before: float = 0.0
    chunks: AsyncIterator[AnswerChunk] | None = None
    over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        self.over = True
        self.changed.set()


class LastingSession:
    """An :class:`agent.conversation.SpeechSession` over sessions of engines that may fail.

    Attributes:
        lost: No engine came back in time: the call is to end.
    """

    def __init__(
        self,
        engine: Engine,
        words: Callable[[], FailureWords],
        settings: FailureSettings,
        clock: Clock | None = None,
    ):
        """Open a session.

        Args:
            engine: Where sessions come from.
            words: What the caller is told.
            settings: When the engine counts as failed, and how long that may last.
            clock: Paces the watch over the engine.
        """
        self.lost = False
        self._engine = engine
        self._words = words
        self._settings = settings
        self._clock = clock or SystemClock()
        # None while the engine has failed and no other has taken over.
        self._inner: SpeechSession | None = engine.session()
        self._recovery: asyncio.Task[None] | None = None
        self._past = Past(settings.history_secs)
        # What the caller has said since the last turn.
        self._pieces: list[NDArray[np.float32]] = []
        # Whether the engine has a turn of this conversation.
        self._known = False
        self._asked: _Asked | None = None
        self._early: _Asked | None = None
        # Whose heard seconds the next request tells.
        self._last: _Asked | None = None
        self._observer: CallObserver | None = None
        self._untold: list[tuple[str, dict[str, JSON]]] = []

    def observe(self, observer: CallObserver) -> None:
        """Tell somebody of failures from now on, and of those so far."""
        self._observer = observer
        for name, fields in self._untold:
            observer.event(name, **fields)
        self._untold.clear()

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        """Take the caller's next audio, 16 kHz in [-1, 1], without waiting."""
        self._pieces.append(audio)
        if self._inner is not None:
            self._inner.push(audio, None if expected is None else self._translated(expected))

    def discard(self) -> None:
        """Forget the audio pushed since the last turn: it was no turn."""
        self._pieces.clear()
        if self._inner is not None:
            self._inner.discard()

    def answer(self, request: TurnRequest | None = None) -> AsyncIterator[AnswerChunk]:
        """End the turn and answer it, on whichever engine.

        Raises:
            ValueError: No audio was pushed and the request says nothing.
            EngineUnavailable: One engine after the other has failed.
            EngineLost: None came back in time; the last words have been given.
        """
        request = self._translated(request or TurnRequest())
        pieces = [] if request.typed else list(self._pieces)
        if not pieces and not request.typed:
            raise ValueError("nothing to answer: no audio was pushed and the request says nothing")
        asked = _Asked(
            turn=PastTurn(None if request.typed else pcm(pieces), request),
            pieces=pieces,
            due=not request.early,
            aside=request.early and request.typed,
            quiet_from=self._clock.time(),
        )
        if self._early is not None:
            self._early.end()
        self._early = asked if request.early else None
        self._asked = asked
        if asked.due:
            if not request.typed:
                self._pieces = []
            self._keep(asked)
        if self._inner is not None:
            asked.chunks = self._inner.answer(request)
        return self._answer(asked)

    def confirm(self) -> None:
        """The turn was over when it was answered early: the answer counts."""
        early, self._early = self._early, None
        self._pieces = []
        if early is None or early.aside or early.over:
            if self._inner is not None:
                self._inner.confirm()
            return
        early.due = True
        if self._inner is not None and early.chunks is not None:
            self._known = self._known or early.seconds > 0
            self._inner.confirm()
        elif self._inner is not None:
            # An engine has taken over meanwhile: the turn's audio is there, unanswered.
            early.chunks = self._inner.answer(self._again(early))
        self._keep(early)
        early.changed.set()

    async def retract(self) -> None:
        """The turn that was answered early goes on: forget that answer."""
        early, self._early = self._early, None
        if early is not None:
            early.end()
        if self._inner is not None:
            await self._inner.retract()

    async def transcribe(self) -> str:
        """The caller's words in the last turn; empty where the model cannot tell."""
        return "" if self._inner is None else await self._inner.transcribe()

    async def stop(self) -> None:
        """Stop the running answer."""
        if self._asked is not None:
            self._asked.end()
        if self._inner is not None:
            await self._inner.stop()

    async def close(self) -> None:
        """End the conversation and free what it holds; idempotent."""
        if self._asked is not None:
            self._asked.end()
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.close()

    def _translated(self, request: TurnRequest) -> TurnRequest:
        """A request as the engine has to have it, whose last answer may be shorter than heard."""
        heard = request.heard_seconds
        if heard is not None and self._last is not None:
            heard = max(0.0, heard - self._last.before)
        return replace(request, heard_seconds=heard, goes_on=self._known)

    def _keep(self, asked: _Asked) -> None:
        self._past.append(asked.turn)
        self._last = asked

    def _again(self, asked: _Asked) -> TurnRequest:
        """What an answer that is due is asked of another engine with."""
        return replace(asked.turn.asked, early=False, goes_on=self._known)

    # --- an answer

    async def _answer(self, asked: _Asked) -> AsyncIterator[AnswerChunk]:
        numbers = itertools.count()
        failure: EngineUnavailable | None = None
        for _ in range(_MOST_ATTEMPTS):
            if asked.chunks is None and not asked.aside:
                await self._until(asked, lambda: asked.due)
                if asked.chunks is None and not (asked.over or self.lost):
                    # It has failed, or is still not back.
                    yield self._own(asked, self._words().apology, next(numbers), last=False)
                    await self._until(asked, lambda: asked.chunks is not None or self.lost)
                if self.lost and not asked.over:
                    yield self._own(asked, self._words().farewell, next(numbers), last=True)
                    raise EngineLost(f"no engine within {self._settings.recovery_timeout:g} s")
            if asked.over:
                return
            if asked.chunks is None:
                break
            asked.before = asked.seconds
            asked.turn.forget_answer()
            asked.quiet_from = max(asked.quiet_from, self._clock.time())
            attempt = self._attempt(asked, asked.chunks)
            try:
                async with contextlib.aclosing(attempt):
                    async for chunk in attempt:
                        self._heard_of(asked, chunk)
                        yield replace(chunk, sequence=next(numbers))
                return
            except EngineUnavailable as error:
                if str(error) == str(failure):
                    # Not the engine, but what is asked of it.
                    raise
                failure = error
            asked.chunks = None
            self._recover(failure)
        raise failure or EngineUnavailable("the engine has failed")

    async def _until(self, asked: _Asked, condition: Callable[[], bool]) -> None:
        """Wait for something, or for the answer to be wanted no more."""
        while not (asked.over or condition()):
            asked.changed.clear()
            await asked.changed.wait()

    def _own(self, asked: _Asked, words: Spoken, sequence: int, last: bool) -> AnswerChunk:
        """Words of our own, as a piece of an answer."""
        self._sounds(asked, len(words.audio) / AGENT_RATE)
        return AnswerChunk(sequence, words.text, words.audio, last, {})

    def _heard_of(self, asked: _Asked, chunk: AnswerChunk) -> None:
        """The engine has made a piece of an answer."""
        asked.turn.add(chunk)
        self._known = self._known or asked.due
        self._sounds(asked, chunk.audio.size / AGENT_RATE)

    def _sounds(self, asked: _Asked, seconds: float) -> None:
        asked.seconds += seconds
        asked.quiet_from = max(asked.quiet_from, self._clock.time()) + seconds

    async def _attempt(
        self, asked: _Asked, chunks: AsyncIterator[AnswerChunk]
    ) -> AsyncGenerator[AnswerChunk, None]:
        """An engine's answer, watched; the watch may find that there will be no more of it."""
        received: asyncio.Queue[AnswerChunk | Exception | None] = asyncio.Queue()
        tasks = [asyncio.create_task(_pass(chunks, received))]
        if self._inner is not None:
            tasks.append(asyncio.create_task(self._watch(asked, self._inner, received)))
        try:
            while (item := await received.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self,
        asked: _Asked,
        inner: SpeechSession,
        received: asyncio.Queue[AnswerChunk | Exception | None],
    ) -> None:
        """Whenever the caller hears nothing though an answer is due, ask whether there is life."""
        patience = self._settings.patience
        while True:
            early = asked.quiet_from + patience - self._clock.time()
            if early > 0:
                await self._clock.sleep(early)
                continue
            problem = await self._engine.problem(inner, self._known)
            if problem is not None:
                received.put_nowait(EngineUnavailable(problem))
                return
            await self._clock.sleep(patience)

    # --- a failure

    def _recover(self, failure: EngineUnavailable) -> None:
        """The engine has failed: look for another, unless that is being done."""
        if self._recovery is not None and not self._recovery.done():
            return
        inner, self._inner = self._inner, None
        if inner is not None:
            self._engine.abandon(inner)
        self._tell("engine_failed", message=str(failure))
        logger.bind(error=str(failure)).warning("The engine failed in the middle of a call")
        self._recovery = asyncio.create_task(self._take_over(self._clock.time()))

    async def _take_over(self, began: float) -> None:
        late = asyncio.ensure_future(self._clock.sleep(self._settings.recovery_timeout))
        rebuilding = asyncio.ensure_future(self._rebuilt())
        try:
            await asyncio.wait({late, rebuilding}, return_when=asyncio.FIRST_COMPLETED)
            if rebuilding.done():
                where = await rebuilding
                self._tell("engine_recovered", where=where, seconds=self._clock.time() - began)
            else:
                self.lost = True
        except Exception:
            logger.exception("A conversation could not be taken over")
            self.lost = True
        finally:
            for task in (late, rebuilding):
                task.cancel()
            await asyncio.gather(late, rebuilding, return_exceptions=True)
            if self._asked is not None:
                self._asked.changed.set()

    async def _rebuilt(self) -> str:
        """Go on with the first engine that takes over; where that is."""
        while True:
            turns = self._answered()
            try:
                inner, where = await self._engine.rebuild(turns)
            except EngineUnavailable:
                await self._clock.sleep(_TRY_AGAIN_SECONDS)
                continue
            if len(turns) == len(self._answered()):
                self._go_on_with(inner)
                return where
            # The caller has interrupted, and wants an answer no more.
            self._engine.abandon(inner)

    def _answered(self) -> list[PastTurn]:
        """What another engine is told: all but the turn that it is asked for."""
        turns = list(self._past.turns)
        return turns if self._unanswered() is None else turns[:-1]

    def _unanswered(self) -> _Asked | None:
        """The answer that waits for an engine."""
        asked = self._asked
        waits = asked is not None and asked.due and asked.chunks is None and not asked.over
        return asked if waits else None

    def _go_on_with(self, inner: SpeechSession) -> None:
        """An engine has taken over: it gets the turn that waits, and what was said since."""
        self._inner = inner
        asked = self._unanswered()
        self._known = bool(self._answered())
        if asked is not None:
            for piece in asked.pieces:
                inner.push(piece)
            asked.chunks = inner.answer(self._again(asked))
        for piece in self._pieces:
            inner.push(piece)

    def _tell(self, name: str, **fields: JSON) -> None:
        if self._observer is None:
            self._untold.append((name, fields))
        else:
            self._observer.event(name, **fields)


async def _pass(
    chunks: AsyncIterator[AnswerChunk], received: asyncio.Queue[AnswerChunk | Exception | None]
) -> None:
    """Take an engine's answer; its end is None."""
    try:
        async for chunk in chunks:
            received.put_nowait(chunk)
        received.put_nowait(None)
    except Exception as error:
        received.put_nowait(error)
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
