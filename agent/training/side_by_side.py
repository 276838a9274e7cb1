"""Attention of many short sequences at once, as a language model's training wants it.

Packed one behind the other, each sequence would be several operations a layer, which costs a GPU
more than the work itself. Here they lie side by side, filled up to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class SideBySide:
    """Sequences that each see themselves, and perhaps another that they go on from.

    Packed positions [n] come in and go out, as :class:`agent.speech.language_model.Attention` says.

    Args:
        lengths: Of the sequences.
        starts: Sequences of a pass before; it keeps their keys and values, with gradients.
        of: For each sequence, which of the starts it goes on from.
        device: Of the pass.

    Attributes:
        positions: int64 [n], where each position stands in its sequence.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device,
        starts: SideBySide | None = None,
        of: Sequence[int] = (),
    ):
        self._lengths = torch.tensor(lengths)
        self._longest = int(self._lengths.max())
        places = torch.arange(self._longest)
        there = places < self._lengths[:, None]
        positions = places.expand(there.shape)[there]
        self._read: list[tuple[Tensor, Tensor]] = []
        self._starts, self._mask = starts, places <= places[:, None]
        if starts is not None:
            which = torch.tensor(of)
            before = starts._lengths[which]
            positions = positions + before.repeat_interleave(self._lengths)
            seen = torch.arange(starts._longest) < before[:, None]
            own = self._mask.expand(len(which), -1, -1)
            self._mask = torch.cat((seen[:, None].expand(-1, self._longest, -1), own), 2)
            self._of = which.to(device)
        self._mask = self._mask.to(device)
        self._flat = there.flatten().nonzero()[:, 0].to(device)
        self.positions = positions.to(device)

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Context [n, heads * d] of query [n, heads, d], keys and values [n, groups, d]."""
        _, heads, width = query.shape
        groups = keys.shape[1]
        share = heads // groups
        k, v = self.spread(keys).transpose(1, 2), self.spread(values).transpose(1, 2)
        if self._starts is None:
            self._read.append((k, v))
        else:
            k, v = (
                torch.cat((start[self._of], own), 2)
                for start, own in zip(self._starts._read[layer], (k, v), strict=True)
            )
        # The heads of a group become further query positions, as in a packed pass.
        count, longest = len(self._lengths), self._longest
        folded = self.spread(query).view(count, longest, groups, share, width)
        folded = folded.permute(0, 2, 3, 1, 4).reshape(count, groups, share * longest, width)
        mask = self._mask.repeat(*[1] * (self._mask.ndim - 2), share, 1)
        context = F.scaled_dot_product_attention(
            folded, k, v, attn_mask=mask if mask.ndim == 2 else mask[:, None]
        )
        context = context.view(count, groups, share, longest, width).permute(0, 3, 1, 2, 4)
        return context.reshape(-1, heads * width)[self._flat]

    def spread(self, packed: Tensor) -> Tensor:
        """Side by side [b, longest, ...] what is packed [n, ...]; zeros where nothing is."""
        count, shape = len(self._lengths), packed.shape[1:]
        rows = packed.new_zeros(count * self._longest, *shape).index_copy(0, self._flat, packed)
        return rows.view(count, self._longest, *shape)
