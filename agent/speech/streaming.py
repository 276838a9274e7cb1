"""Convolutions fed piece by piece: each gives exactly what it would give on the whole signal.

A layer with symmetric padding looks ahead, so its output lags its input by a fixed number of
samples until the last piece arrives. Branches with different lags meet in :class:`Join`,
which holds back the one that is ahead. All signals are float tensors [batch, channels, time].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvStream:
    """One ``nn.Conv1d`` over a stream; zero padding stays at the two ends of the whole."""

    def __init__(self, conv: nn.Conv1d) -> None:
        self.conv = conv
        self.padding = int(conv.padding[0])
        self.stride = conv.stride[0]
        self.span = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
        self.buffer: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Feed [b, c, t]; returns every output sample that is settled now."""
        if self.buffer is None:
            x = F.pad(x, (self.padding, 0))
        else:
            x = torch.cat([self.buffer, x], dim=-1)
        if last:
            x = F.pad(x, (0, self.padding))
        count = (x.shape[-1] - self.span) // self.stride + 1
        if count <= 0:
            self.buffer = x
            return x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        self.buffer = x[..., count * self.stride :]
        return F.conv1d(
            x,
            self.conv.weight,
            self.conv.bias,
            stride=self.conv.stride,
            dilation=self.conv.dilation,
        )


class TransposedConvStream:
    """One ``nn.ConvTranspose1d`` over a stream, by overlap-add."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        self.conv = conv
        self.stride = conv.stride[0]
        self.trim = int(conv.padding[0])
        self.tail: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Feed [b, c, t]; returns the samples to which no later input adds."""
        overlap = self.conv.kernel_size[0] - self.stride
        if x.shape[-1] == 0 and (self.tail is None or not last):
            return x.new_zeros(x.shape[0], self.conv.out_channels, 0)
        y = x.new_zeros(x.shape[0], self.conv.out_channels, x.shape[-1] * self.stride + overlap)
        if x.shape[-1]:
            y = F.conv_transpose1d(x, self.conv.weight, None, stride=self.conv.stride)
        begin = 0
        if self.tail is None:
            begin = self.trim
        else:
            y[..., :overlap] += self.tail
        end = y.shape[-1] - (self.trim if last else overlap)
        self.tail = y[..., y.shape[-1] - overlap :]
        y = y[..., begin:end]
        return y if self.conv.bias is None else y + self.conv.bias[:, None]


class Join:
    """Adds branches that lag differently: what one has ahead of the others waits."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []

    def push(self, *branches: Tensor) -> Tensor:
        """Feed the newest piece of every branch; returns the sum as far as all have come."""
        if self.waiting:
            branches = tuple(
                torch.cat([old, new], dim=-1)
                for old, new in zip(self.waiting, branches, strict=True)
            )
        ready = min(branch.shape[-1] for branch in branches)
        self.waiting = [branch[..., ready:] for branch in branches]
        total = branches[0][..., :ready]
        for branch in branches[1:]:
            total = total + branch[..., :ready]
        return total
