"""One decoding step of a small language model in compiled loops.

When every sequence has one new token, a small model's step is a few hundred microseconds of
arithmetic, and as much again goes into starting a hundred tensor operations. Here a layer is three
calls. Rows are few, so weights are read once and every row is multiplied while they are at hand.

Numba compiles each function when it is first called and keeps the result on disk where it may.
All arrays are contiguous float32 unless said otherwise; m is the number of rows, one a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    # Sums may be taken in any order; only then are they vectorised.
    try:
        compiled: Function = numba.njit(function, fastmath=True, nogil=True, cache=True)
    except RuntimeError:
        # Nowhere to keep it: a read-only installation without a home directory.
        compiled = numba.njit(function, fastmath=True, nogil=True)
    return compiled


@_compiled
def _products(weight: Floats, x: Floats, out: Floats) -> None:
    """Out [m, o] = x [m, i] times weight [o, i], transposed."""
    for row in range(weight.shape[0]):
        for m in range(x.shape[0]):
            total = np.float32(0.0)
            for i in range(weight.shape[1]):
                total += weight[row, i] * x[m, i]
            out[m, row] = total


@_compiled
def _normed(x: Floats, scale: Floats, epsilon: float) -> Floats:
    """RMSNorm of [m, h]."""
    out = np.empty_like(x)
    for m in range(x.shape[0]):
        total = np.float32(0.0)
        for i in range(x.shape[1]):
            total += x[m, i] * x[m, i]
        factor = np.float32(1.0 / np.sqrt(total / x.shape[1] + epsilon))
        for i in range(x.shape[1]):
            out[m, i] = x[m, i] * factor * scale[i]
    return out


@_compiled
def query_key_value(
    x: Floats,
    scale: Floats,
    epsilon: float,
    weight: Floats,
    bias: Floats,
    rope: Floats,
    positions: npt.NDArray[np.int64],
    turned: int,
    width: int,
) -> Floats:
    """Queries, keys and values of new tokens, in rotary position.

    Args:
        x: Residual stream [m, h].
        scale: Of the norm before [h].
        epsilon: Of that norm.
        weight: [o, h], rows of queries, keys and values.
        bias: [o].
        rope: Cosine and sine [2, positions, width / 4].
        positions: int64 [m], where each new token stands.
        turned: Heads that are turned: those of queries and keys.
        width: Of a head; its first half is turned in pairs.

    Returns:
        [m, o].
    """
    out = np.empty((x.shape[0], weight.shape[0]), np.float32)
    _products(weight, _normed(x, scale, epsilon), out)
    for m in range(x.shape[0]):
        for i in range(out.shape[1]):
            out[m, i] += bias[i]
        for head in range(turned):
            for pair in range(width // 4):
                cosine, sine = rope[0, positions[m], pair], rope[1, positions[m], pair]
                at = head * width + 2 * pair
                even, odd = out[m, at], out[m, at + 1]
                out[m, at] = even * cosine - odd * sine
                out[m, at + 1] = odd * cosine + even * sine
    return out


@_compiled
def attend(row: Floats, store: Floats, length: int, heads: int, out: Floats) -> None:
    """Grouped-query attention of one new token; its key and value are added to the store.

    Args:
        row: Queries, keys and values of the token, [(heads + 2 groups) * d].
        store: Keys and values of one layer, [2, groups, capacity, d].
        length: Tokens in the store before.
        heads: Query heads.
        out: [heads * d], written.
    """
    groups, width = store.shape[1], store.shape[3]
    share = heads // groups
    for group in range(groups):
        for i in range(width):
            store[0, group, length, i] = row[(heads + group) * width + i]
            store[1, group, length, i] = row[(heads + groups + group) * width + i]
    scale = np.float32(1.0 / np.sqrt(width))
    scores = np.empty(length + 1, np.float32)
    for head in range(heads):
        keys, values = store[0, head // share], store[1, head // share]
        query = row[head * width : (head + 1) * width]
        highest = np.float32(-np.inf)
        for position in range(length + 1):
            total = np.float32(0.0)
            for i in range(width):
                total += query[i] * keys[position, i]
            scores[position] = total * scale
            highest = max(highest, scores[position])
        mixed = out[head * width : (head + 1) * width]
        mixed[:] = 0.0
        total = np.float32(0.0)
        for position in range(length + 1):
            share_of = np.exp(scores[position] - highest)
            total += share_of
            for i in range(width):
                mixed[i] += share_of * values[position, i]
        for i in range(width):
            mixed[i] /= total


@_compiled
def rest_of_layer(
    x: Floats,
    context: Floats,
    dense: Floats,
    scale: Floats,
    epsilon: float,
    up: Floats,
    down: Floats,
) -> None:
    """What follows attention: its projection and the gated feed-forward, added to ``x``.

    Args:
        x: Residual stream [m, h], changed in place.
        context: Of attention [m, heads * d].
        dense: [h, heads * d].
        scale: Of the norm between [h].
        epsilon: Of that norm.
        up: [2 f, h], gate and value.
        down: [h, f].
    """
    projected = np.empty_like(x)
    _products(dense, context, projected)
    for m in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[m, i] += projected[m, i]
    half = up.shape[0] // 2
    wide = np.empty((x.shape[0], up.shape[0]), np.float32)
    _products(up, _normed(x, scale, epsilon), wide)
    gated = np.empty((x.shape[0], half), np.float32)
    for m in range(x.shape[0]):
        for i in range(half):
            gate = wide[m, i]
            gated[m, i] = gate / (np.float32(1.0) + np.exp(-gate)) * wide[m, half + i]
    _products(down, gated, projected)
    for m in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[m, i] += projected[m, i]


@_compiled
def logits(x: Floats, scale: Floats, epsilon: float, weight: Floats) -> Floats:
    """The output layer behind the last norm: [m, vocab]."""
    out = np.empty((x.shape[0], weight.shape[0]), np.float32)
    _products(weight, _normed(x, scale, epsilon), out)
    return out
