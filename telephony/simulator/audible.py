"""When somebody on the line can be heard: one definition for callers, agents and reports."""

import numpy as np
from numpy.typing import NDArray

from telephony import mulaw

SAMPLE_RATE = 8000
WINDOW = 40
"""Samples in which loudness is measured: 5 ms."""
THRESHOLD_DBFS = -45.0
"""A window of at least this root mean square, relative to a full-scale square, is audible."""

_THRESHOLD_ENERGY = WINDOW * (32768.0 * 10 ** (THRESHOLD_DBFS / 20)) ** 2
_FRAME = np.repeat(np.eye(4, dtype=np.float32), WINDOW, axis=0)
"""Adds up the samples of each window of 20 ms."""
_QUIET, _UNSURE, _LOUD = b".?!"
"""Of one sample: its window is inaudible if all are quiet, and audible if one is loud."""


def _judged() -> bytes:
    energy = mulaw.decode(bytes(range(256))).astype(np.float64) ** 2
    # Sums are taken in float32: what is near a bound is left unsure.
    quiet = energy * WINDOW < 0.99 * _THRESHOLD_ENERGY
    loud = energy > 1.01 * _THRESHOLD_ENERGY
    return bytes(np.select([quiet, loud], [_QUIET, _LOUD], _UNSURE).astype(np.uint8))


_JUDGED = _judged()
"""What each byte of mu-law means for its window."""


def audible_windows(audio: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which windows of 5 ms are audible.

    Args:
        audio: int16 [n] at 8 kHz; what is left over after the last whole window counts as a window.

    Returns:
        bool [ceil(n / 40)].
    """
    short = -len(audio) % WINDOW
    if short:
        audio = np.concatenate([audio, np.zeros(short, np.int16)])
    windows = audio.reshape(-1, WINDOW).astype(np.float32)
    energy: NDArray[np.float32] = np.einsum("ij,ij->i", windows, windows)
    return energy >= _THRESHOLD_ENERGY


def audible_spans(audio: NDArray[np.int16], join_ms: float = 300.0) -> list[tuple[int, int]]:
    """Stretches in which something can be heard.

    Args:
        audio: int16 [n] at 8 kHz.
        join_ms: Pauses shorter than this do not end a stretch.

    Returns:
        Pairs (first sample, sample after the last), in order, on the grid of windows.
    """
    loud = np.flatnonzero(audible_windows(audio))
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) * WINDOW * 1000 / SAMPLE_RATE > join_ms)
    starts = loud[np.concatenate([[0], breaks + 1])]
    ends = loud[np.concatenate([breaks, [len(loud) - 1]])]
    return [
        (int(start) * WINDOW, min((int(end) + 1) * WINDOW, len(audio)))
        for start, end in zip(starts, ends, strict=True)
    ]


class Ear:
    """Follows one side of a call frame by frame and remembers when it was audible.

    Attributes:
        position: Samples heard so far.
        last_audible: The sample after the last audible window, or None.
        onset: First sample of the first audible window since ``forget``, or None.
    """

    def __init__(self) -> None:
        self.position = 0
        self.last_audible: int | None = None
        self.onset: int | None = None

    def hear(self, frame: NDArray[np.int16]) -> None:
        """Take the next frame, a whole number of windows long."""
        if len(frame) == len(_FRAME):
            # What callers hear, many times a second: two calls instead of five.
            energy = np.square(frame, dtype=np.float32) @ _FRAME
            loud = (energy >= _THRESHOLD_ENERGY).nonzero()[0]
        else:
            loud = np.flatnonzero(audible_windows(frame))
        if len(loud):
            if self.onset is None:
                self.onset = self.position + int(loud[0]) * WINDOW
            self.last_audible = self.position + (int(loud[-1]) + 1) * WINDOW
        self.position += len(frame)

    def hear_coded(self, frame: bytes) -> None:
        """Take the next frame as it is on the wire: as ``hear`` of what it decodes to.

        Hundreds of callers hear at once in a load run: most frames are told by a look at the bytes.

        Args:
            frame: mu-law, a whole number of windows long.
        """
        judged = frame.translate(_JUDGED)
        first, last = judged.find(_LOUD), judged.rfind(_LOUD)
        unsure = judged.find(_UNSURE)
        if unsure >= 0 and (
            first < 0
            or judged.rfind(_UNSURE) // WINDOW > last // WINDOW
            or (self.onset is None and unsure // WINDOW < first // WINDOW)
        ):
            # Something that is not certainly audible could be the first or the last to be heard.
            self.hear(mulaw.decode(frame))
            return
        if last >= 0:
            if self.onset is None:
                self.onset = self.position + first // WINDOW * WINDOW
            self.last_audible = self.position + (last // WINDOW + 1) * WINDOW
        self.position += len(frame)

    def forget(self) -> None:
        """Wait for a new onset."""
        self.onset = None

    @property
    def silent_for(self) -> int:
        """Samples since something was last audible; since the start if nothing ever was."""
        return self.position - (self.last_audible or 0)
