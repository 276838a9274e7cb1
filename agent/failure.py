"""What the parts that see a call through a failure of the engine have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.conversation import SpeechSession

if TYPE_CHECKING:
    from agent.past import PastTurn


class EngineLost(RuntimeError):
    """The engine failed in the middle of a call, and none took it over in time."""


class Clock(Protocol):
    """Tells the time and waits for it to pass."""

    def time(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once so many seconds have passed."""
        ...


class SystemClock:
    """The machine's."""

    def time(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Spoken:
    """Words and their sound, which need no engine.

    Attributes:
        text: The words; empty where the sound is none.
        audio: int16 [n], 22.05 kHz mono.
    """

    text: str
    audio: NDArray[np.int16]


@dataclass(frozen=True)
class FailureWords:
    """What callers are told.

    Attributes:
        apology: The engine has failed, and the answer begins anew in a moment.
        farewell: No engine has come back; the call ends.
    """

    apology: Spoken
    farewell: Spoken


class Engine(Protocol):
    """Where sessions come from, and come back from."""

    def session(self) -> SpeechSession:
        """A new conversation."""

    async def problem(self, session: SpeechSession, known: bool) -> str | None:
        """Why the engine cannot go on with a session; None where it shows signs of life.

        Args:
            session: The session.
            known: It has answered on it: an engine without its history is another one.
        """

    async def rebuild(self, turns: Sequence[PastTurn]) -> tuple[SpeechSession, str]:
        """A session that knows what was said before, and where it is now.

        Raises:
            EngineUnavailable: No engine could take it over yet.
        """

    def abandon(self, session: SpeechSession) -> None:
        """A session's engine has failed: free what is left of it, without waiting."""
