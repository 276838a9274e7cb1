"""Which of the caller's audio belongs to a turn.

The model hears what the turn detector judged, neither clipped nor padded: a moment from before the
speech was noticed belongs to the turn, a pause inside it does too, but the silence that ended it
does not, and neither does anything between turns.
"""

from collections import deque
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


class _State(Enum):
    IDLE = auto()  # no turn
    SPEAKING = auto()  # in a turn, the caller speaks
    PAUSED = auto()  # in a turn, the caller is silent; it may go on


class TurnAudio:
    """Sorts a call's audio into turns, told by a voice activity detector.

    Every method that returns audio returns what now belongs to the turn, in order; no sample is
    returned twice.
    """

    def __init__(self, pre_roll: int):
        """Start between turns.

        Args:
            pre_roll: Samples from before speech was noticed that belong to the turn.
        """
        self._pre_roll = pre_roll
        self._state = _State.IDLE
        self._held: deque[Audio] = deque()
        self._spoken = 0

    @property
    def spoken(self) -> int:
        """Samples that arrived in this turn while the caller counted as speaking."""
        return self._spoken

    def take(self, audio: Audio) -> list[Audio]:
        """Take the next audio of the call.

        Args:
            audio: float32 [n], the caller's audio, directly after what came before.

        Returns:
            What now belongs to the turn.
        """
        if self._state is _State.SPEAKING:
            self._spoken += len(audio)
            return [audio]
        self._held.append(audio)
        if self._state is _State.IDLE:
            self._trim()
        return []

    def speech_started(self) -> list[Audio]:
        """The caller began to speak, or went on after a pause.

        Returns:
            What now belongs to the turn: the pre-roll, or the pause.
        """
        self._state = _State.SPEAKING
        released = list(self._held)
        self._held.clear()
        return released

    def speech_stopped(self) -> None:
        """The caller fell silent; the turn may still go on."""
        if self._state is _State.SPEAKING:
            self._state = _State.PAUSED

    def end_turn(self) -> None:
        """The turn is over; the silence at its end becomes the next one's pre-roll."""
        self._state = _State.IDLE
        self._spoken = 0
        self._trim()

    def _trim(self) -> None:
        excess = sum(len(audio) for audio in self._held) - self._pre_roll
        while excess > 0:
            first = self._held.popleft()
            if len(first) > excess:
                self._held.appendleft(first[excess:])
            excess -= len(first)
