"""What is measured of one call of a load run, tick by tick, in few instructions.

A rehearsal keeps everything and judges afterwards; hundreds of calls at once keep only what the
report needs. Positions count samples at 8 kHz since the start of the media stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from telephony import mulaw
from telephony.simulator.audible import SAMPLE_RATE, THRESHOLD_DBFS, WINDOW
from telephony.simulator.caller import Spoken
from telephony.simulator.playback import FRAME_BYTES, Played
from telephony.simulator.trace import LONGEST_GAP_MS

_ENERGY = mulaw.decode(bytes(range(256))).astype(np.float32) ** 2
_WINDOWS = np.repeat(np.eye(FRAME_BYTES // WINDOW, dtype=np.float32), WINDOW, axis=0)
"""Adds up the samples of each window of a frame."""
_AUDIBLE = WINDOW * (32768.0 * 10 ** (THRESHOLD_DBFS / 20)) ** 2
_SILENCE = b"\xff" * FRAME_BYTES
_MS = 1000 / SAMPLE_RATE


@dataclass(frozen=True)
class Measured:
    """Something that was measured in a call.

    Attributes:
        position: Sample of the call at which it was known.
        ms: How long it took or lasted.
        turn: Index of the line that was answered; -1 for a gap.
    """

    position: int
    ms: float
    turn: int = -1


@dataclass
class CallMeter:
    """Listens to what the phone plays.

    Attributes:
        answers: Voice-to-voice time of each answer.
        gaps: Where the phone ran dry inside an answer.
        unanswered: Lines before whose answer the next line came, or the end.
        heard: Samples that came from the agent.
        position: Samples of the call so far.
    """

    answers: list[Measured] = field(default_factory=list)
    gaps: list[Measured] = field(default_factory=list)
    unanswered: int = 0
    heard: int = 0
    position: int = 0
    _line: Spoken | None = None
    _dry_since: int | None = None
    _flowed: bool = False

    def spoke(self, line: Spoken) -> None:
        """The caller begins a line; what it says over the agent's voice is not timed."""
        self.over()
        self.cleared()
        self._line = None if line.over_agent else line

    def over(self) -> None:
        """No more answers to the last line will come."""
        if self._line is not None:
            self.unanswered += 1
            self._line = None

    def cleared(self) -> None:
        """Whatever was being said is over: silence after this is wanted."""
        self._dry_since, self._flowed = None, False

    def played(self, played: Played) -> None:
        """What the phone plays in the next 20 ms."""
        samples = played.samples
        if samples:
            self.heard += samples
            if self._dry_since is not None:
                self._gap_ends(self._dry_since)
            line = self._line
            if (
                line is not None
                and self.position + FRAME_BYTES > line.end
                and played.audio != _SILENCE
            ):
                self._listen(played.audio, line)
            self._dry_since = self.position + samples if samples < FRAME_BYTES else None
        elif self._flowed:
            self._dry_since = self.position
        self._flowed = samples == FRAME_BYTES
        self.position += FRAME_BYTES

    def _gap_ends(self, since: int) -> None:
        ms = (self.position - since) * _MS
        if 0 < ms <= LONGEST_GAP_MS:
            self.gaps.append(Measured(self.position, ms))

    def _listen(self, audio: bytes, line: Spoken) -> None:
        energy = _ENERGY[np.frombuffer(audio, np.uint8)] @ _WINDOWS
        loud = np.flatnonzero(energy >= _AUDIBLE)
        starts = self.position + loud * WINDOW
        after = starts[starts >= line.end]
        if len(after):
            first = int(after[0])
            self.answers.append(Measured(first, (first - line.end) * _MS, line.turn))
            self._line = None
