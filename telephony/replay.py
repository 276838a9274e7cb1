"""What the phone was sent lately, so that it can be emptied for a moment and go on afterwards."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from telephony.playout import Unplayed

_REMEMBERED = 500
"""Messages: as many as the accounts of what was heard remember."""


@dataclass(frozen=True)
class Sound:
    """A message of sound.

    Attributes:
        payload: mu-law, whole frames.
        answer: The answer that it belongs to; None: other sound.
    """

    payload: bytes
    answer: str | None


class Replay:
    """Whether the phone is held, and what it is sent first when it goes on.

    Attributes:
        going: Set while the phone is not held.
    """

    def __init__(self) -> None:
        """Nothing was sent, nothing is held."""
        self.going = asyncio.Event()
        self.going.set()
        self._sent: deque[Sound] = deque(maxlen=_REMEMBERED)
        self._again: tuple[Sound, ...] = ()
        self._marks: tuple[str, ...] = ()

    @property
    def holding(self) -> bool:
        """Whether the phone is held."""
        return not self.going.is_set()

    def sent(self, sound: Sound) -> None:
        """A message left for the phone."""
        self._sent.append(sound)

    def hold(self, unplayed: Unplayed) -> None:
        """Send nothing more.

        Args:
            unplayed: What has to be sent first later.
        """
        self.going.clear()
        again: deque[Sound] = deque()
        for answer, samples in reversed(unplayed.runs):
            while samples:
                last = self._sent.pop()
                rest, payload = last.payload[:-samples], last.payload[-samples:]
                if rest:
                    self._sent.append(Sound(rest, last.answer))
                again.appendleft(Sound(payload, answer))
                samples -= len(payload)
        self._again, self._marks = tuple(again), unplayed.marks

    def take(self) -> tuple[tuple[str, ...], tuple[Sound, ...]]:
        """What to send before anything else: marks, and then sound."""
        marks, again, self._marks, self._again = self._marks, self._again, (), ()
        return marks, again

    def drop(self) -> None:
        """Nothing of it is wanted any more."""
        self.take()
        self._sent.clear()
        self.going.set()
