"""Sound at other rates and through a telephone, as float32 [n] in [-1, 1].

The phone's own bytes are in :mod:`telephony.mulaw`; here a line is only what speech sounds like
after it.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

Audio: TypeAlias = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000
"""What the tokenizer takes, in Hz."""
PHONE_RATE = 8_000
_MU = 255.0


def mu_law(audio: Audio) -> Audio:
    """Round samples to the 8-bit mu-law levels (ITU-T G.711's curve, continuous form)."""
    clipped = np.clip(audio, -1.0, 1.0)
    compressed = np.sign(clipped) * np.log1p(_MU * np.abs(clipped)) / np.log1p(_MU)
    levels = np.round(compressed * 127.0) / 127.0
    expanded = np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(_MU)) / _MU
    return np.asarray(expanded, dtype=np.float32)


def resampled(audio: Audio, rate: int, to: int = SAMPLE_RATE) -> Audio:
    """Return sound of one whole sample rate in Hz at another."""
    divisor = math.gcd(rate, to)
    return np.asarray(resample_poly(audio, to // divisor, rate // divisor), np.float32)


def phone_band(audio: Audio, rate: int = SAMPLE_RATE) -> Audio:
    """Send sound of any whole rate through a clean 8 kHz mu-law line.

    Returns:
        float32 at 16 kHz, as long as the sound.
    """
    line = mu_law(resampled(audio, rate, to=PHONE_RATE))
    return resampled(line, PHONE_RATE)[: -(-len(audio) * SAMPLE_RATE // rate)]
