"""How something was said: pace, pitch and energy of speech, from its samples alone.

Pitch is the lag of the highest peak of each frame's autocorrelation, divided by that of its window
(Boersma, 1993, "Accurate short-term analysis of the fundamental frequency"), with its bias towards
short lags but without its search for the best path: a median over an answer needs no path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft

from agent.sound import Audio

_HOP = 0.01
_FRAME = 0.04
_LOWEST, _HIGHEST = 60.0, 400.0
# A frame is voiced where it repeats itself at least this well.
_VOICED = 0.5
_OCTAVE_COST = 0.02
# A frame is speech unless it is this much quieter than the loud ones.
_QUIETER_DB = 35.0
_LOUD_PERCENTILE = 95


@dataclass(frozen=True)
class Prosody:
    """An utterance's manner.

    Attributes:
        rate: Words (or Mandarin characters) a second of speech, pauses not counted.
        pitch: Median fundamental of its voiced frames, in Hz; None where none is voiced.
        energy: Level of its speech in dB relative to full scale.
    """

    rate: float
    pitch: float | None
    energy: float


def prosody(audio: Audio, rate: int, words: int) -> Prosody | None:
    """Measure an utterance.

    Args:
        audio: float32 [n] in [-1, 1].
        rate: Its sample rate in Hz.
        words: How many are said in it.

    Returns:
        None if there is no sound in it.
    """
    frames = _frames(np.asarray(audio, np.float64), rate)
    power = (frames**2).mean(axis=1) if len(frames) else np.zeros(0)
    if not power.any():
        return None
    level = 10.0 * np.log10(np.maximum(power, 1e-12))
    speech = level > np.percentile(level, _LOUD_PERCENTILE) - _QUIETER_DB
    return Prosody(
        rate=words / (float(speech.sum()) * _HOP),
        pitch=_median_pitch(frames[speech], rate),
        energy=float(10.0 * np.log10(power[speech].mean())),
    )


def _frames(audio: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float64]:
    """Overlapping frames [m, length]; the last samples that fill none are left out."""
    length, hop = round(_FRAME * rate), round(_HOP * rate)
    if len(audio) < length:
        return np.zeros((0, length))
    return np.lib.stride_tricks.sliding_window_view(audio, length)[::hop]


def _median_pitch(frames: npt.NDArray[np.float64], rate: int) -> float | None:
    window = np.hanning(frames.shape[1])
    own = _autocorrelation(window)
    repeats = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    repeats /= np.maximum(own, 1e-3)
    lags = np.arange(int(rate / _HIGHEST), int(rate / _LOWEST) + 1)
    inside = repeats[:, lags]
    best = (inside - _OCTAVE_COST * np.log2(lags)).argmax(axis=1)
    rows = np.arange(len(frames))
    voiced = inside[rows, best] > _VOICED
    if not voiced.any():
        return None
    lag = lags[best[voiced]]
    # The peak of the parabola through three points lies between the lags.
    before, at, after = (repeats[rows[voiced], lag + shift] for shift in (-1, 0, 1))
    curve = np.minimum(before - 2.0 * at + after, -1e-9)
    offset = np.clip(0.5 * (before - after) / curve, -0.5, 0.5)
    return float(np.median(rate / (lag + offset)))


def _autocorrelation(signals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each row, relative to lag 0, for as many lags as a row has samples."""
    length = signals.shape[-1]
    size = next_fast_len(2 * length, real=True)
    repeats = irfft(np.abs(rfft(signals, size)) ** 2, size)[..., :length]
    return np.asarray(repeats / np.maximum(repeats[..., :1], 1e-12), np.float64)
