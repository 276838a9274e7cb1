"""Streaming sample-rate conversion: 8, 16, 22.05 kHz and any other rates with a rational ratio.

A polyphase FIR whose state is the last few input samples: output leaves as soon as the samples
under the filter have arrived, 23 samples of the slower rate (2.9 ms at 8 kHz) behind the input, and
``flush`` returns that tail. The filter's coefficients are whole 2^-24ths, so every product and sum
is exact in float64 and the output is the same to the last bit however the input was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
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
"""Output samples filtered at once, about: more would gain nothing and miss the cache."""

_GROUP = 32
"""Output samples that one matrix makes of the input under all of them, about."""

_MOST_GROUPS = 8
"""In a pattern: with more, each is too rarely due for a multiplication to be worth its call."""


@dataclass(frozen=True)
class _Polyphase:
    """The filter of a ratio, laid out for whole periods of its pattern of phases.

    Attributes:
        filters: Coefficients, float64 [period, taps]: one row for each output sample of a period.
        first: Index of the first input sample under each of them, int64 [period], for the period
            that begins with output sample 0.
        advance: Input samples that a period takes.
        matrices: The same for each group of output samples of a pattern, float64 [inputs, group];
            empty where the pattern cannot be cut into groups.
        pattern: Input samples that those groups take together.
    """

    filters: npt.NDArray[np.float64]
    first: npt.NDArray[np.int64]
    advance: int
    matrices: tuple[npt.NDArray[np.float64], ...]
    pattern: int

    @property
    def group(self) -> int:
        """Output samples that are made at once; 1 where there are no groups."""
        return self.matrices[0].shape[1] if self.matrices else 1


@lru_cache(maxsize=16)
def _polyphase(up: int, down: int) -> _Polyphase:
    half = _HALF_LENGTH * max(up, down)
    prototype = firwin(
        2 * half + 1,
        _CUTOFF / max(up, down),
        window=("kaiser", kaiser_beta(_STOP_BAND_DB)),
    )
    taps = 2 * half // up + 1
    padded = np.zeros(taps * up)
    padded[: 2 * half + 1] = np.rint(prototype * up * _COEFFICIENT_SCALE) / _COEFFICIENT_SCALE
    phases = padded.reshape(taps, up).T
    repeats = max(1, _BLOCK // up)
    position = np.arange(repeats * up) * down - half
    first = -(-position // up)
    filters = np.ascontiguousarray(phases[first * up - position])
    filters.setflags(write=False)
    group = _group(up)
    outputs = max(up, group)
    matrices = tuple(
        _matrix(filters[begin : begin + group], first[begin : begin + group])
        for begin in range(0, outputs if group else 0, group or 1)
    )
    return _Polyphase(filters, first, repeats * down, matrices, outputs * down // up)


def _group(up: int) -> int:
    """Output samples of a group: whole patterns of ``up`` phases or a part of one; 0: neither."""
    if up <= _GROUP:
        return up * -(-_GROUP // up)
    sizes = range(_GROUP // 2, 2 * _GROUP)
    parts = [size for size in sizes if up % size == 0 and up // size <= _MOST_GROUPS]
    return min(parts, key=lambda size: abs(size - _GROUP), default=0)


def _matrix(
    filters: npt.NDArray[np.float64], first: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Filters as the columns of one matrix, over the input under all of them."""
    taps = filters.shape[1]
    matrix = np.zeros((first[-1] - first[0] + taps, len(filters)))
    for output, begin in enumerate(first - first[0]):
        matrix[begin : begin + taps, output] = filters[output]
    return matrix


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
        self._filter = _polyphase(self._up, self._down)
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
        self._window = np.concatenate((self._window, np.zeros(self._filter.filters.shape[1])))
        tail = self._emit(total)
        self.reset()
        return tail

    def _first_input(self, output: int) -> int:
        """Index of the first input sample under the filter of an output sample."""
        return -((self._half - output * self._down) // self._up)

    def _emit(self, until: int) -> npt.NDArray[np.int16]:
        if until == self._emitted:
            return np.zeros(0, np.int16)
        if self._filter.matrices:
            exact = self._filter_groups(until)
        else:
            exact = np.empty(until - self._emitted, np.float64)
            self._filter_periods(exact)
        self._emitted = until
        # A group is made anew from its beginning when more of it is due.
        drop = self._first_input(until - until % self._filter.group) - self._start
        self._window = self._window[drop:]
        self._start += drop
        np.rint(exact, exact)
        # Not np.clip, which takes as long as all the rest.
        np.maximum(exact, -32768.0, exact)
        np.minimum(exact, 32767.0, exact)
        return exact.astype(np.int16)

    def _filter_groups(self, until: int) -> npt.NDArray[np.float64]:
        """The next output samples, in groups whose input overlaps; the outer ones may be cut."""
        matrices, size = self._filter.matrices, self._filter.group
        begin = self._emitted // size
        groups = -(-until // size) - begin
        last, period = (begin + groups - 1) % len(matrices), (begin + groups - 1) // len(matrices)
        end = self._group_input(last, period) + len(matrices[last])
        window = self._window
        if end > len(window):
            window = np.concatenate((window, np.zeros(end - len(window))))
        made = np.empty((groups, size))
        for index in range(min(groups, len(matrices))):
            period, part = divmod(begin + index, len(matrices))
            out = made[index :: len(matrices)]
            matrix = matrices[part]
            rows: npt.NDArray[np.float64] = np.ndarray(
                (len(out), len(matrix)),
                np.float64,
                window,
                8 * self._group_input(part, period),
                (8 * self._filter.pattern, 8),
            )
            # Copied, because overlapping rows are multiplied without BLAS, in five times the time.
            np.matmul(rows.copy(), matrix, out)
        return made.reshape(-1)[self._emitted - begin * size : until - begin * size]

    def _group_input(self, part: int, period: int) -> int:
        """Where in the window the input of a group begins."""
        first = int(self._filter.first[part * self._filter.group])
        return first + period * self._filter.pattern - self._start

    def _filter_periods(self, out: npt.NDArray[np.float64]) -> None:
        """The next output samples, each under its own filter."""
        begin, end = self._emitted, self._emitted + len(out)
        while begin < end:
            periods, within = divmod(begin, len(self._filter.first))
            first = self._filter.first[within : within + end - begin]
            filters = self._filter.filters[within : within + end - begin]
            taps = filters.shape[1]
            lowest = int(first[0]) + periods * self._filter.advance - self._start
            # Every run of `taps` samples as a row, without copying. The zero coefficient that ends
            # some phases reaches one sample past the last one that matters.
            window = np.append(self._window[lowest : lowest + int(first[-1] - first[0]) + taps], 0)
            rows: npt.NDArray[np.float64] = np.ndarray(
                (len(window) - taps + 1, taps), np.float64, window, 0, (8, 8)
            )
            to = out[begin - self._emitted :][: len(first)]
            np.einsum("ij,ij->i", rows[first - first[0]], filters, out=to)
            begin += len(first)
