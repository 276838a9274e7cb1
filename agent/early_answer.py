"""An answer that is made before the caller's turn is known to be over, and held back until it is.

The engine begins as soon as the caller pauses. When the turn detector has made up its mind, which
takes it some tenths of a second more, the first sound is there already; if the caller goes on, the
answer is thrown away and nobody ever hears of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.conversation import SpeechSession
from agent.events import CallObserver
from agent.speech.request import TurnRequest

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk

_END = object()


class EarlyAnswer:
    """Takes an answer's chunks as they come, for whoever iterates over them later.

    Attributes:
        began: When it was asked for, in seconds of the clock.
        sounded: When its first audio came; None before.
        failed: The engine gave up on it.
    """

    def __init__(self, chunks: "AsyncIterator[AnswerChunk]", clock: Callable[[], float]):
        """Prepare to take chunks.

        Args:
            chunks: The answer; iterated by :meth:`take`.
            clock: Monotonic seconds.
        """
        self.began = clock()
        self.sounded: float | None = None
        self.failed = False
        self._chunks = chunks
        self._clock = clock
        self._held: asyncio.Queue[object] = asyncio.Queue()

    async def take(self) -> None:
        """Take all chunks; runs until the answer is complete or was taken back."""
        try:
            async for chunk in self._chunks:
                if chunk.audio.size and self.sounded is None:
                    self.sounded = self._clock()
                self._held.put_nowait(chunk)
        except Exception as error:
            # Whoever iterates must hear of it, in its place.
            self.failed = True
            self._held.put_nowait(error)
        finally:
            self._held.put_nowait(_END)

    async def __aiter__(self) -> "AsyncIterator[AnswerChunk]":
        """The chunks, from the first; once only.

        Raises:
            Exception: What the engine raised, after the chunks that came before.
        """
        while (item := await self._held.get()) is not _END:
            if isinstance(item, Exception):
                raise item
            yield item  # type: ignore[misc]


class EarlyAnswers:
    """Begins a call's early answers and throws them away; there is one at a time."""

    def __init__(
        self,
        session: SpeechSession,
        observer: CallObserver,
        run: Callable[[Awaitable[None], str], None],
        clock: Callable[[], float],
    ):
        """Begin with none.

        Args:
            session: Where answers are asked for.
            observer: Told of those that are thrown away.
            run: Runs what it is given beside everything else, under a name.
            clock: Monotonic seconds.
        """
        self._session = session
        self._observer = observer
        self._run = run
        self._clock = clock
        self._answer: EarlyAnswer | None = None

    def begin(self, request: TurnRequest) -> None:
        """Answer the turn as far as it has got, unless that is being done already."""
        if self._answer is not None:
            return
        try:
            chunks = self._session.answer(replace(request, early=True))
        except ValueError:
            return  # nothing was said yet that belongs to a turn
        self._answer = EarlyAnswer(chunks, self._clock)
        self._run(self._answer.take(), "early")

    def take_back(self) -> None:
        """The caller goes on, or wants no answer: nobody hears of the one that was begun."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._observer.event("early_answer_dropped", seconds=self._clock() - answer.began)
            self._run(self._session.retract(), "retract")

    def hand_over(self) -> EarlyAnswer | None:
        """The turn is over: the answer to it, if one was begun and can be used."""
        if self._answer is not None and self._answer.failed:
            self.take_back()
        answer, self._answer = self._answer, None
        return answer
