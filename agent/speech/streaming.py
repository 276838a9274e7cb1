"""Convolutions fed piece by piece: each gives exactly what it would give on the whole signal.

A layer with symmetric padding looks ahead, so its output lags its input by a fixed number of
samples until the last piece arrives. Branches with different lags meet in :class:`Join`,
which holds back those that are ahead. All signals are float tensors [batch, time, channels]:
pieces are joined in one copy, and torch's convolution of images that have their channels innermost
is the fastest that a CPU has for them. What is kept for the next piece is always a copy: a view
would keep the whole piece in memory, for every layer of every stream.
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
        self.dilation = conv.dilation[0]
        self.span = self.dilation * (conv.kernel_size[0] - 1) + 1
        self.buffer: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Feed [b, t, c]; returns every output sample that is settled now."""
        if self.buffer is None:
            x = F.pad(x, (0, 0, self.padding, 0))
        else:
            x = torch.cat([self.buffer, x], dim=1)
        if last:
            x = F.pad(x, (0, 0, 0, self.padding))
        count = (x.shape[1] - self.span) // self.stride + 1
        if count <= 0:
            self.buffer = x
            return x.new_zeros(x.shape[0], 0, self.conv.out_channels)
        self.buffer = x[:, count * self.stride :].clone()
        # As an image of one row.
        image = F.conv2d(
            x.transpose(1, 2).unsqueeze(2),
            self.conv.weight.unsqueeze(2),
            self.conv.bias,
            stride=(1, self.stride),
            dilation=(1, self.dilation),
        )
        return image.squeeze(2).transpose(1, 2)


class TransposedConvStream:
    """One ``nn.ConvTranspose1d`` over a stream, by overlap-add."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        self.conv = conv
        self.stride = conv.stride[0]
        self.trim = int(conv.padding[0])
        self.tail: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Feed [b, t, c]; returns the samples to which no later input adds."""
        batch, count, _ = x.shape
        kernel, out = self.conv.kernel_size[0], self.conv.out_channels
        if count == 0 and (self.tail is None or not last):
            return x.new_zeros(batch, 0, out)
        # Every input sample's taps, then rows of one stride each, which the taps overlap.
        taps = (x @ self.conv.weight.transpose(1, 2).flatten(1)).view(batch, count, kernel, out)
        rows = count + -(-kernel // self.stride) - 1
        y = x.new_zeros(batch, rows, self.stride, out)
        for row, tap in enumerate(range(0, kernel, self.stride)):
            part = taps[:, :, tap : tap + self.stride]
            y[:, row : row + count, : part.shape[2]] += part
        overlap = kernel - self.stride
        y = y.flatten(1, 2)[:, : count * self.stride + overlap]
        begin = 0
        if self.tail is None:
            begin = self.trim
        else:
            y[:, :overlap] += self.tail
        end = y.shape[1] - (self.trim if last else overlap)
        self.tail = y[:, y.shape[1] - overlap :].clone()
        y = y[:, begin:end]
        return y if self.conv.bias is None else y + self.conv.bias


class Join:
    """Adds branches that lag differently: what one has ahead of the others waits."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []

    def push(self, own: Tensor, *others: Tensor) -> Tensor:
        """Feed the newest piece of every branch; returns the sum as far as all have come.

        The first is the join's own: it is overwritten.
        """
        branches = [own, *others]
        waiting = self.waiting or [branch[:, :0] for branch in branches]
        ready = min(old.shape[1] + new.shape[1] for old, new in zip(waiting, branches, strict=True))
        if waiting[0].shape[1]:
            own = torch.cat([waiting[0], own], dim=1)
            waiting, branches = [own[:, :0], *waiting[1:]], [own, *others]
        total = own[:, :ready]
        for old, new in zip(waiting[1:], others, strict=True):
            taken = min(old.shape[1], ready)
            total[:, :taken] += old[:, :taken]
            total[:, taken:] += new[:, : ready - taken]
        self.waiting = [
            torch.cat([old[:, ready:], new[:, max(0, ready - old.shape[1]) :]], dim=1)
            for old, new in zip(waiting, branches, strict=True)
        ]
        return total
