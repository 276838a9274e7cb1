"""Sentences that the engine has said once, kept for when it cannot say anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from agent.conversation import AGENT_RATE, SpeechSession
from agent.failure import Spoken
from agent.replica import EngineUnavailable
from agent.speech.request import TurnRequest

_BEEP_HERTZ = 440.0
_BEEP_SECONDS = 0.15


class KeptSentences:
    """Words with their sound, in the agent's voice."""

    def __init__(self, open_session: Callable[[], SpeechSession]):
        """Keep none yet.

        Args:
            open_session: A conversation with the engine.
        """
        self._open_session = open_session
        self._kept: dict[str, Spoken] = {}
        self._saying = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None

    def get(self, text: str) -> Spoken:
        """A sentence; two tones, while the engine has not said it."""
        return self._kept.get(text) or Spoken("", _beeps())

    def want(self, texts: Iterable[str]) -> None:
        """Have sentences said beside everything else, if they have not been."""
        missing = [text for text in texts if text not in self._kept]
        if missing and (self._later is None or self._later.done()):
            self._later = asyncio.create_task(self.say(missing))

    async def say(self, texts: Iterable[str]) -> None:
        """Have sentences said, up to the first that the engine cannot say now."""
        async with self._saying:
            for text in texts:
                if text not in self._kept and not await self._say(text):
                    return

    async def close(self) -> None:
        """Give up what is being said."""
        if self._later is not None:
            self._later.cancel()
            await asyncio.gather(self._later, return_exceptions=True)

    async def _say(self, text: str) -> bool:
        session = self._open_session()
        try:
            pieces = [chunk.audio async for chunk in session.answer(TurnRequest(say=text))]
        except EngineUnavailable as error:
            logger.bind(error=str(error)).warning("A sentence could not be kept")
            return False
        else:
            self._kept[text] = Spoken(text, np.concatenate(pieces))
            return True
        finally:
            await session.close()


def _beeps() -> NDArray[np.int16]:
    """A sign that the line is alive, int16 [n] at 22.05 kHz."""
    time = np.arange(round(_BEEP_SECONDS * AGENT_RATE)) / AGENT_RATE
    fade = np.sin(np.pi * time / _BEEP_SECONDS)
    beep = np.rint(4000 * fade * np.sin(2 * np.pi * _BEEP_HERTZ * time)).astype(np.int16)
    return np.concatenate([beep, np.zeros_like(beep), beep])
