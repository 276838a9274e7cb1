"""Streaming sample-rate conversion: 8, 16, 22.05 kHz and any other rates with a rational ratio.

A polyphase FIR whose state is the last few input samples: output leaves as soon as the samples
under the filter have arrived, 23 samples of the slower rate (2.9 ms at 8 kHz) behind the input, and
``flush`` returns that tail. The filter's coefficients are integers, so every product and sum is
exact in float64 and the output is the same to the last bit however the input was cut.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, kaiser_beta

_HALF_LENGTH = 23
"""Samples of the slower rate on each side of the filter's centre: what is held back."""

_CUTOFF = 0.9125
"""The -6 dB point over the slower rate's Nyquist frequency (3.65 of 4 kHz): the stop band then
begins at Nyquist itself."""

_STOP_BAND_DB = 64.0
_COEFFICIENT_SCALE = 1 << 24
# 15 bits of sample, 24 of coefficient, 7 for the sum over a filter: 46 of float64's 53 exact bits.

_BLOCK = 320
"""Output samples filtered at once: more would gain nothing and miss the cache."""


@lru_cache(maxsize=16)
def _polyphase_filter(up: int, down: int) -> npt.NDArray[np.float64]:
    """Integer coefficients ``[up, taps]``, one row a phase, scaled by ``_COEFFICIENT_SCALE``."""
    half = _HALF_LENGTH * max(up, down)
    prototype = firwin(
        2 * half + 1,
        _CUTOFF / max(up, down),
        window=("kaiser", kaiser_beta(_STOP_BAND_DB)),
    )
    taps = 2 * half // up + 1
    padded = np.zeros(taps * up)
    padded[: 2 * half + 1] = np.rint(prototype * up * _COEFFICIENT_SCALE)
    phases = np.ascontiguousarray(padded.reshape(taps, up).T)
    phases.setflags(write=False)
    return phases


class Resampler:
    """One direction of one stream: int16 mono at ``source_rate`` in, at ``target_rate`` out.

    Output sample ``n`` is the input's band-limited value at time ``n / target_rate``: nothing is
    shifted in time, and ``n`` input samples have given ``ceil(n * target_rate / source_rate)``
    output samples once flushed.

    Args:
        source_rate: input rate in Hz.
        target_rate: output rate in Hz.

    Raises:
        ValueError: if a rate is not a positive integer.
    """

    def __init__(self, source_rate: int, target_rate: int):
        for name, rate in (("source_rate", source_rate), ("target_rate", target_rate)):
            if not isinstance(rate, int) or rate <= 0:
                raise ValueError(f"{name}: expected a positive integer in Hz, got {rate!r}")
        divisor = gcd(source_rate, target_rate)
        self._up = target_rate // divisor
        self._down = source_rate // divisor
        self._half = _HALF_LENGTH * max(self._up, self._down)
        self._phases = _polyphase_filter(self._up, self._down)
        self.source_rate = source_rate
        self.target_rate = target_rate
        self.reset()

    @property
    def held_back(self) -> float:
        """Seconds by which the output lags the input until ``flush``: the filter's group delay."""
        if self._up == self._down:
            return 0.0
        return _HALF_LENGTH / min(self.source_rate, self.target_rate)

    def reset(self) -> None:
        """Forget the stream: the next ``push`` starts a new one."""
        # The window holds input samples from index `_start` on; before the stream lies silence.
        self._received = 0
        self._emitted = 0
        self._start = self._first_input(0)
        self._window = np.zeros(-self._start, dtype=np.float64)

    def push(self, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Take ``samples`` (int16 ``[n]``, any ``n``) and return every output sample they complete.

        Raises:
            ValueError: if ``samples`` is not a one-dimensional int16 array.
        """
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise ValueError(
                f"samples: expected int16 [n], got {samples.dtype} {list(samples.shape)}"
            )
        if self._up == self._down:
            return samples.copy()
        self._received += len(samples)
        self._window = np.concatenate((self._window, samples))
        # An output is complete when the last input under its filter is there.
        complete = (self._received * self._up - 1 - self._half) // self._down + 1
        return self._emit(max(complete, self._emitted))

    def flush(self) -> npt.NDArray[np.int16]:
        """End the stream: return the outputs still held back (int16 ``[m]``) and reset."""
        if self._up == self._down:
            return np.zeros(0, dtype=np.int16)
        total = -(-self._received * self._up // self._down)
        self._window = np.concatenate((self._window, np.zeros(self._phases.shape[1])))
        tail = self._emit(total)
        self.reset()
        return tail

    def _first_input(self, output: int) -> int:
        """Index of the first input sample under the filter of an output sample."""
        return -((self._half - output * self._down) // self._up)

    def _emit(self, until: int) -> npt.NDArray[np.int16]:
        blocks = [
            self._filtered(begin, min(begin + _BLOCK, until))
            for begin in range(self._emitted, until, _BLOCK)
        ]
        if not blocks:
            return np.zeros(0, dtype=np.int16)
        self._emitted = until
        drop = self._first_input(until) - self._start
        self._window = self._window[drop:]
        self._start += drop
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _filtered(self, begin: int, end: int) -> npt.NDArray[np.int16]:
        """Output samples ``begin`` to ``end``, whose input is in the window."""
        position = np.arange(begin, end) * self._down - self._half
        first = -(-position // self._up)
        phase = first * self._up - position
        # Every run of `taps` samples as a row, without copying. The zero coefficient that ends some
        # phases reaches one sample past the last one that matters.
        taps = self._phases.shape[1]
        window = np.append(self._window[first[0] - self._start : first[-1] - self._start + taps], 0)
        rows: npt.NDArray[np.float64] = np.ndarray(
            (len(window) - taps + 1, taps), np.float64, window, 0, (8, 8)
        )
        exact = np.einsum("ij,ij->i", rows[first - first[0]], self._phases[phase])
        scaled = np.rint(exact * (1.0 / _COEFFICIENT_SCALE))
        clipped: npt.NDArray[np.int16] = np.clip(scaled, -32768.0, 32767.0).astype(np.int16)
        return clipped
