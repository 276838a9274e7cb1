"""How loud a phone line is when nobody speaks."""

import math

import numpy as np
from numpy.typing import NDArray

_RISE_DB_PER_SECOND = 3.0
"""The floor falls at once and rises slowly: speech has gaps, and each of them shows the noise."""
_QUIETEST_DB = -70.0
"""Of full scale; below it nothing is noise."""


class NoiseFloor:
    """Follows the noise of one line."""

    def __init__(self) -> None:
        """Know nothing yet: the first sound counts as noise."""
        self._floor: float | None = None

    def margin(self, samples: NDArray[np.int16], seconds: float) -> float:
        """Take the line's next audio.

        Args:
            samples: int16 [n], not empty.
            seconds: Its duration.

        Returns:
            By how many dB it stands out from the noise; 0 or more.
        """
        wave = samples.astype(np.float32)
        power = float(wave @ wave) / (len(wave) * 32768.0**2)
        level = max(_QUIETEST_DB, 10.0 * math.log10(power + 1e-12))
        risen = level if self._floor is None else self._floor + _RISE_DB_PER_SECOND * seconds
        self._floor = min(level, risen)
        return level - self._floor
