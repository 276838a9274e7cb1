"""Velocity estimator of the flow: a one-dimensional U-Net of residual convolutions and attention.

The design is Matcha-TTS's (arXiv 2309.03199). Signals are [batch, frames, channels].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.checkpoint import CheckpointError, field
from agent.speech.time_major import convolve, double, group_norm, mish


@dataclass(frozen=True)
class EstimatorConfig:
    """What ``flow.decoder.estimator`` of the decoder's config.yaml says."""

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    head_dim: int
    heads: int
    n_blocks: int
    mid_blocks: int
    dropout: float

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any], path: str | Path) -> EstimatorConfig:
        """Read the section.

        Raises:
            CheckpointError: if a field is missing or wrong; names ``path`` and field.
        """
        channels = field(config, "channels", list, path)
        if not channels or not all(isinstance(c, int) and c > 0 and c % 8 == 0 for c in channels):
            raise CheckpointError(
                f"{path}: field 'channels' is {channels!r}, expected multiples of 8"
            )
        activation = field(config, "act_fn", str, path)
        if activation != "gelu":
            raise CheckpointError(f"{path}: field 'act_fn' is {activation!r}, expected 'gelu'")
        return cls(
            in_channels=field(config, "in_channels", int, path),
            out_channels=field(config, "out_channels", int, path),
            channels=tuple(channels),
            head_dim=field(config, "attention_head_dim", int, path),
            heads=field(config, "num_heads", int, path),
            n_blocks=field(config, "n_blocks", int, path),
            mid_blocks=field(config, "num_mid_blocks", int, path),
            dropout=float(field(config, "dropout", (int, float), path)),
        )


class ConvBlock(nn.Module):
    """Convolution, group norm over all of time, Mish."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(channels, out, 3, padding=1), nn.GroupNorm(8, out))

    @property
    def conv(self) -> nn.Conv1d:
        """The convolution."""
        found = self.block[0]
        assert isinstance(found, nn.Conv1d)
        return found

    def forward(self, x: Tensor, lead: Tensor | None = None) -> Tensor:
        """[b, t, c] -> [b, t, out]; with ``lead`` [b, t, out] x has only the first channels."""
        weight, norm = self.conv.weight[:, : x.shape[-1]], self.block[1]
        assert isinstance(norm, nn.GroupNorm)
        x = convolve(x, weight, self.conv.bias if lead is None else None, base=lead)
        return mish(group_norm(x, norm))


Lead = tuple[Tensor, Tensor]
"""What the conditions add inside the first residual block: to its convolution, to its residual."""


class ResnetBlock(nn.Module):
    """Two convolution blocks with the time embedding between them, and a residual."""

    def __init__(self, channels: int, out: int, time_channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_channels, out))
        self.block1 = ConvBlock(channels, out)
        self.block2 = ConvBlock(out, out)
        self.res_conv = nn.Conv1d(channels, out, 1)

    def lead(self, conditions: Tensor) -> Lead:
        """The part of the first layers that input channels [b, t, k], the last k, decide."""
        conv, first = self.block1.conv, self.res_conv.in_channels - conditions.shape[-1]
        return (
            convolve(conditions, conv.weight[:, first:], conv.bias),
            F.linear(conditions, self.res_conv.weight[:, first:, 0], self.res_conv.bias),
        )

    def forward(self, x: Tensor, time: Tensor, lead: Lead | None = None) -> Tensor:
        """Apply.

        Args:
            x: [b, t, c], c the channels that ``lead`` leaves.
            time: ``mlp`` of the embedded time, [b, out] or [1, out].
            lead: From ``lead``, if x does not have all channels.

        Returns:
            [b, t, out].
        """
        to_conv, to_residual = lead or (None, None)
        hidden: Tensor = self.block2(self.block1(x, to_conv) + time[:, None])
        weight = self.res_conv.weight[:, : x.shape[-1], 0]
        if to_residual is None:
            return hidden + F.linear(x, weight, self.res_conv.bias)
        return hidden + F.linear(x, weight) + to_residual


class Attention(nn.Module):
    """Self-attention over all frames, without positions."""

    def __init__(self, channels: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, channels), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, c] -> [b, t, c]."""
        query, key, value = (
            linear(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class _GELU(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class _FeedForward(nn.Module):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _GELU(channels, 4 * channels),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each normalised before and added to its input."""

    def __init__(self, channels: int, config: EstimatorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, config.heads, config.head_dim, config.dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = _FeedForward(channels, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, c] -> [b, t, c]."""
        x = x + self.attn1(self.norm1(x))
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class _Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.conv.weight, self.conv.bias, stride=2)


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return double(x, self.conv)


class _Smooth(nn.Conv1d):
    """What ends the deepest and the shallowest level, where the rate stays."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias)


class _TimeEmbedding(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class _Stage(nn.ModuleList):
    """One level of the U-Net: a residual block, attention blocks, perhaps a change of rate."""

    def __init__(
        self, channels: int, out: int, config: EstimatorConfig, resample: nn.Module | None = None
    ) -> None:
        resnet = ResnetBlock(channels, out, config.channels[0] * 4)
        attention = nn.Sequential(*(TransformerBlock(out, config) for _ in range(config.n_blocks)))
        super().__init__([resnet, attention, *([] if resample is None else [resample])])

    @property
    def resnet(self) -> ResnetBlock:
        found = self[0]
        assert isinstance(found, ResnetBlock)
        return found

    def forward(self, x: Tensor, time: Tensor, lead: Lead | None = None) -> Tensor:
        """[b, t, c] -> [b, t, out], before the change of rate."""
        out: Tensor = self[1](self.resnet(x, time, lead))
        return out


class Estimator(nn.Module):
    """Velocity of the flow at one point in time. Parameters have the published names.

    What stays the same over the steps of a flow is computed once, by ``lead`` and ``embed``.
    """

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.time_mlp = _TimeEmbedding(config.in_channels, channels[0] * 4)
        self.down_blocks = nn.ModuleList()
        width = config.in_channels
        for index, out in enumerate(channels):
            deepest = index == len(channels) - 1
            down: nn.Module = _Smooth(out) if deepest else _Downsample(out)
            self.down_blocks.append(_Stage(width, out, config, down))
            width = out
        self.mid_blocks = nn.ModuleList(
            _Stage(width, width, config) for _ in range(config.mid_blocks)
        )
        self.up_blocks = nn.ModuleList()
        outs = (*reversed(channels[:-1]), channels[0])
        for index, (skip, out) in enumerate(zip(reversed(channels), outs, strict=True)):
            shallowest = index == len(channels) - 1
            up: nn.Module = _Smooth(out) if shallowest else _Upsample(out)
            self.up_blocks.append(_Stage(2 * skip, out, config, up))
        self.final_block = ConvBlock(channels[0], channels[0])
        self.final_proj = nn.Conv1d(channels[0], config.out_channels, 1)

    def _stages(self) -> list[_Stage]:
        stages = (*self.down_blocks, *self.mid_blocks, *self.up_blocks)
        return [stage for stage in stages if isinstance(stage, _Stage)]

    def embed(self, time: Tensor) -> list[Tensor]:
        """Positions in the flow [b], from 0 (noise) to 1 (mel), as every stage takes them.

        Returns:
            A tensor [b, out] for each stage.
        """
        half = self.config.in_channels // 2
        rate = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000.0) / (half - 1)))
        angle = 1000.0 * time[:, None] * rate
        embedded = self.time_mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return [stage.resnet.mlp(embedded) for stage in self._stages()]

    def lead(self, conditions: Tensor) -> Lead:
        """What the conditions [b, f, k], the last k of the input channels, do in every step."""
        return self._stages()[0].resnet.lead(conditions)

    def forward(self, x: Tensor, times: Sequence[Tensor], lead: Lead) -> Tensor:
        """Estimate.

        Args:
            x: State [b, f, out_channels].
            times: From ``embed``; of one position or of b.
            lead: From ``lead``, of b.

        Returns:
            Velocity [b, f, out_channels].
        """
        waiting = iter(times)
        skips: list[Tensor] = []
        condition: Lead | None = lead
        for stage in self.down_blocks:
            x = stage(x, next(waiting), condition)
            condition = None
            skips.append(x)
            x = stage[2](x)  # type: ignore[index]
        for stage in self.mid_blocks:
            x = stage(x, next(waiting))
        for stage in self.up_blocks:
            skip = skips.pop()
            # An odd number of frames comes back from halving and doubling one longer.
            x = stage(torch.cat([x[:, : skip.shape[1]], skip], dim=-1), next(waiting))
            x = stage[2](x)  # type: ignore[index]
        return F.linear(self.final_block(x), self.final_proj.weight[:, :, 0], self.final_proj.bias)
