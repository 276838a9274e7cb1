"""A session whose greeting is made before the call is there, so that it starts at once.

The phone's webhook comes some tenths of a second before its audio: time enough to make the first
sounds. If the greeting is never asked for, the model forgets it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.conversation import SpeechSession
from agent.early_answer import EarlyAnswer
from agent.speech.request import TurnRequest

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk


class PreparedSession:
    """An :class:`agent.conversation.SpeechSession` that has begun its first answer.

    Make it in a running event loop.

    Attributes:
        session: The call's conversation with the model.
    """

    def __init__(
        self,
        session: SpeechSession,
        greeting: TurnRequest | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin the greeting.

        Args:
            session: The call's conversation with the model, in which nothing was said yet.
            greeting: What the first turn will ask for, exactly; None: the caller speaks first.
            clock: Monotonic seconds.
        """
        self.session = session
        self._clock = clock
        self._request = greeting
        self._greeting: EarlyAnswer | None = None
        self._taking: asyncio.Task[None] | None = None
        if greeting is not None:
            self._greeting = EarlyAnswer(session.answer(greeting), clock)
            self._taking = asyncio.create_task(self._greeting.take())

    @property
    def ahead(self) -> float | None:
        """Seconds since the greeting's first sound was there; None: it is not, or is not needed."""
        sounded = self._greeting.sounded if self._greeting is not None else None
        return None if sounded is None else self._clock() - sounded

    def answer(self, request: TurnRequest | None = None) -> AsyncIterator[AnswerChunk]:
        """The next answer; the greeting, if that is what is asked for first, from its beginning."""
        greeting, self._greeting = self._greeting, None
        if greeting is not None and not greeting.failed:
            if request == self._request:
                return aiter(greeting)
            # Nobody has heard it.
            request = replace(request or TurnRequest(), heard_seconds=0.0)
        return self.session.answer(request)

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        """Take the caller's next audio, 16 kHz in [-1, 1], without waiting."""
        self.session.push(audio, expected)

    def discard(self) -> None:
        """Forget the audio pushed since the last turn: it was no turn."""
        self.session.discard()

    def confirm(self) -> None:
        """The turn was over when it was answered early."""
        self.session.confirm()

    async def retract(self) -> None:
        """The turn that was answered early goes on: forget that answer."""
        await self.session.retract()

    async def transcribe(self) -> str:
        """The caller's words in the last turn; empty where the model cannot tell."""
        return await self.session.transcribe()

    async def stop(self) -> None:
        """Stop the running answer."""
        await self.session.stop()

    async def close(self) -> None:
        """End the conversation and free what it holds; idempotent."""
        await self.session.close()
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
