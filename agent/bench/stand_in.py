"""An engine that costs nothing: what a gateway is measured with when its own price is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from agent.conversation import AGENT_RATE
from agent.speech.request import TurnRequest
from agent.voice_session import AnswerChunk

ANSWER_SECONDS = 4.0
CHUNK_SECONDS = 0.8
"""A block of ten speech tokens, as the decoder gives them."""
TEXT = "We are open from eight in the morning to six in the evening. "


async def hang() -> str:
    """Do something that does not come to an end."""
    await asyncio.Event().wait()
    return ""


def answer_audio(seconds: float = ANSWER_SECONDS) -> NDArray[np.int16]:
    """What is said: a tone that swells like syllables, int16 [n] at 22.05 kHz."""
    time = np.arange(round(seconds * AGENT_RATE)) / AGENT_RATE
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * time)
    wave = np.sin(2 * np.pi * 180 * time) + 0.5 * np.sin(2 * np.pi * 720 * time)
    audio: NDArray[np.int16] = np.rint(5000 * syllables * wave).astype(np.int16)
    return audio


class StandInSession:
    """Answers every turn with the same words at once: an :class:`agent.conversation.SpeechSession`.

    Args:
        audio: int16 [n] at 22.05 kHz, shared between sessions.
        calls: What every answer ends with, as in :class:`AnswerChunk`.
    """

    def __init__(self, audio: NDArray[np.int16], calls: str = ""):
        self._audio = audio
        self._calls = calls

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        """Take the caller's audio, and do nothing with it."""

    def discard(self) -> None:
        """Nothing is kept that could be forgotten."""

    async def answer(self, request: TurnRequest | None = None) -> AsyncIterator[AnswerChunk]:
        """The answer, block by block."""
        step = round(CHUNK_SECONDS * AGENT_RATE)
        begins = range(0, len(self._audio), step)
        for sequence, begin in enumerate(begins):
            piece = self._audio[begin : begin + step]
            text = TEXT if sequence == 0 else ""
            last = sequence == len(begins) - 1
            yield AnswerChunk(sequence, text, piece, last, {}, self._calls if last else "")

    def confirm(self) -> None:
        """The answer is the same whenever the turn was over."""

    async def retract(self) -> None:
        """Nothing was begun."""

    async def transcribe(self) -> str:
        """It understands nothing."""
        return ""

    async def stop(self) -> None:
        """Answers are made at once; there is none to stop."""

    async def close(self) -> None:
        """Nothing is held."""
