"""What a caller understands of the agent: from its records, by a recogniser, or nothing."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from telephony.simulator.agent_records import printable
from telephony.simulator.checks.outside import Outside
from telephony.simulator.record_tail import RecordTail


class Listener(Protocol):
    """Follows the agent for a caller that reacts to its words."""

    def hear(self, frame: NDArray[np.int16]) -> None:
        """Take the next frame that the phone plays, int16 at 8 kHz."""

    def forget(self) -> None:
        """Whatever comes from now on is a new answer."""

    def words(self) -> Future[str | None]:
        """The agent's words since the last ``forget``; None where nobody can tell."""


def _settled(text: str | None) -> Future[str | None]:
    future: Future[str | None] = Future()
    future.set_result(text)
    return future


class NoListener:
    """Understands nothing: the caller goes by whether the agent spoke."""

    def hear(self, frame: NDArray[np.int16]) -> None:
        """Take no notice."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def words(self) -> Future[str | None]:
        """Nobody can tell."""
        return _settled(None)


class RecordListener:
    """Reads the agent's text channel from its records."""

    def __init__(self, tail: RecordTail) -> None:
        """Follow one call's record, which others may read along."""
        self._tail = tail
        self._from = 0

    def hear(self, frame: NDArray[np.int16]) -> None:
        """The records say it all."""

    def forget(self) -> None:
        """Skip what has been written so far."""
        self._tail.read()
        self._from = len(self._tail.events)

    def words(self) -> Future[str | None]:
        """The agent's text since then; empty if it wrote none."""
        self._tail.read()
        pieces = [
            printable(str(event.fields.get("text", "")))
            for event in self._tail.events[self._from :]
            if event.name == "agent_text"
        ]
        return _settled(" ".join("".join(pieces).split()))


class RecogniserListener:
    """Has the agent's sound written down by a recogniser that is not the agent's.

    It takes its time in another thread: the caller is silent meanwhile, as somebody who thinks.
    """

    def __init__(self, outside: Outside) -> None:
        """Listen through the recogniser that reads audio for checks, too."""
        self._outside = outside
        self._executor = ThreadPoolExecutor(1)
        self._frames: list[NDArray[np.int16]] = []

    def hear(self, frame: NDArray[np.int16]) -> None:
        """Keep the frame."""
        self._frames.append(frame)

    def forget(self) -> None:
        """Throw the frames away."""
        self._frames = []

    def words(self) -> Future[str | None]:
        """What the recogniser makes of the frames."""
        sound = np.concatenate(self._frames) if self._frames else np.zeros(0, np.int16)
        return self._executor.submit(self._write_down, sound)

    def _write_down(self, sound: NDArray[np.int16]) -> str | None:
        read = self._outside.read(sound) if len(sound) else ""
        return read if isinstance(read, str) else None
