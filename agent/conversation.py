"""What the Pipecat service needs of a conversation with the model, wherever the model runs."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.speech.request import TurnRequest

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk

CALLER_RATE = 16_000
"""Hz of what the caller says."""
AGENT_RATE = 22_050
"""Hz of what the agent says."""


class SpeechSession(Protocol):
    """One call's conversation with the model; :class:`agent.voice_session.VoiceSession` is one."""

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        """Take the caller's next audio, 16 kHz in [-1, 1], without waiting.

        ``expected`` says with what the turn will be answered, as far as it is known.
        """

    def discard(self) -> None:
        """Forget the audio pushed since the last turn: it was no turn."""

    def answer(self, request: TurnRequest | None = None) -> "AsyncIterator[AnswerChunk]":
        """End the turn, or with ``request.early`` perhaps, and yield the answer as it is made."""

    def confirm(self) -> None:
        """The turn was over when it was answered early."""

    async def retract(self) -> None:
        """The turn that was answered early goes on: forget that answer."""

    async def transcribe(self) -> str:
        """The caller's words in the last turn; empty where the model cannot tell."""

    async def stop(self) -> None:
        """Stop the running answer."""

    async def close(self) -> None:
        """End the conversation and free what it holds; idempotent."""
