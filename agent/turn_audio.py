"""Which of the caller's audio belongs to a turn.

The model hears what the turn detector judged, neither clipped nor padded: a moment from before the
speech was noticed belongs to the turn, a pause inside it does too, but the silence that ended it
does not, and neither does anything between turns.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


class _State(Enum):
    IDLE = auto()  # no turn
    SPEAKING = auto()  # in a turn, the caller speaks
    PAUSED = auto()  # in a turn, the caller is silent; it may go on


@dataclass(frozen=True)
class _Piece:
    audio: Audio
    at: float


class TurnAudio:
    """Sorts a call's audio into turns, told by a voice activity detector.

    The detector's word may come late: on a busy machine audio that it judged after it found speech
    has overtaken its report. So everything is placed by time: when the audio came, and when the
    detector decided. Times are seconds of one clock.

    Every method that returns audio returns what now belongs to the turn, in order; no sample is
    returned twice.
    """

    def __init__(self, pre_roll: int, patience: int):
        """Start between turns.

        Args:
            pre_roll: Samples from before speech was noticed that belong to the turn.
            patience: Samples that may have overtaken the report of speech.
        """
        self._pre_roll = pre_roll
        self._patience = patience
        self._state = _State.IDLE
        self._held: deque[_Piece] = deque()
        self._held_samples = 0
        self._speaking: list[tuple[float, int]] = []
        self._spoken = 0

    @property
    def spoken(self) -> int:
        """Samples in this turn that came while the caller counted as speaking."""
        return self._spoken + sum(count for _, count in self._speaking)

    def take(self, audio: Audio, at: float) -> list[Audio]:
        """Take the next audio of the call.

        Args:
            audio: float32 [n], the caller's audio, directly after what came before.
            at: When it came.

        Returns:
            What now belongs to the turn.
        """
        if self._state is _State.SPEAKING:
            self._speaking.append((at, len(audio)))
            return [audio]
        self._held.append(_Piece(audio, at))
        self._held_samples += len(audio)
        if self._state is _State.IDLE:
            limit = self._pre_roll + self._patience
            self._trim(self._held, self._held_samples - limit)
            self._held_samples = min(self._held_samples, limit)
        return []

    def speech_started(self, at: float) -> list[Audio]:
        """The caller began to speak, or went on after a pause.

        Args:
            at: When the detector decided so.

        Returns:
            What now belongs to the turn: the pre-roll or the pause, and what came since.
        """
        since = [piece for piece in self._held if piece.at > at]
        before = deque(piece for piece in self._held if piece.at <= at)
        if self._state is _State.IDLE:
            self._trim(before, sum(len(piece.audio) for piece in before) - self._pre_roll)
        self._state = _State.SPEAKING
        self._held.clear()
        self._held_samples = 0
        self._speaking = [(piece.at, len(piece.audio)) for piece in since]
        return [piece.audio for piece in (*before, *since)]

    def speech_stopped(self, at: float) -> None:
        """The caller fell silent; the turn may still go on.

        Args:
            at: When the detector decided so.
        """
        if self._state is _State.SPEAKING:
            self._state = _State.PAUSED
            self._spoken += sum(count for came, count in self._speaking if came <= at)
            self._speaking.clear()

    def end_turn(self) -> None:
        """The turn is over; the silence at its end becomes the next one's pre-roll."""
        self._state = _State.IDLE
        self._spoken = 0
        self._speaking.clear()

    @staticmethod
    def _trim(pieces: deque[_Piece], excess: int) -> None:
        """Drop the oldest samples, so many of them."""
        while excess > 0:
            first = pieces.popleft()
            if len(first.audio) > excess:
                pieces.appendleft(_Piece(first.audio[excess:], first.at))
            excess -= len(first.audio)
