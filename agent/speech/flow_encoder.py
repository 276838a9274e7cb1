"""Token encoder of the flow: a Transformer that sees a token's own block and all earlier ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.checkpoint import CheckpointError, field


@dataclass(frozen=True)
class EncoderConfig:
    """What ``flow.encoder`` of the decoder's config.yaml says."""

    input_size: int
    output_size: int
    attention_heads: int
    linear_units: int
    num_blocks: int
    block_size: int
    dropout: float
    positional_dropout: float
    attention_dropout: float

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any], path: str | Path) -> EncoderConfig:
        """Read the section.

        Raises:
            CheckpointError: if a field is missing, of another type, or names another architecture.
        """
        fixed: dict[str, Any] = {
            "normalize_before": True,
            "input_layer": "linear",
            "pos_enc_layer_type": "rel_pos_espnet",
            "selfattention_layer_type": "block_rel_selfattn",
            "use_cnn_module": False,
            "macaron_style": False,
        }
        for name, expected in fixed.items():
            found = field(config, name, type(expected), path)
            if found != expected:
                raise CheckpointError(f"{path}: field {name!r} is {found!r}, expected {expected!r}")
        made = cls(
            input_size=field(config, "input_size", int, path),
            output_size=field(config, "output_size", int, path),
            attention_heads=field(config, "attention_heads", int, path),
            linear_units=field(config, "linear_units", int, path),
            num_blocks=field(config, "num_blocks", int, path),
            block_size=field(config, "block_size", int, path),
            dropout=float(field(config, "dropout_rate", (int, float), path)),
            positional_dropout=float(field(config, "positional_dropout_rate", (int, float), path)),
            attention_dropout=float(field(config, "attention_dropout_rate", (int, float), path)),
        )
        if made.attention_heads < 1 or made.output_size % (2 * made.attention_heads):
            raise CheckpointError(
                f"{path}: field 'attention_heads' is {made.attention_heads}, "
                f"expected a divisor of output_size / 2 = {made.output_size / 2:g}"
            )
        if made.block_size < 1:
            raise CheckpointError(
                f"{path}: field 'block_size' is {made.block_size}, expected at least 1"
            )
        return made


def relative_positions(length: int, channels: int, device: torch.device) -> Tensor:
    """Sinusoids of the distances length - 1 ... -(length - 1).

    Sine and cosine alternate (arXiv 1901.02860, appendix B).

    Returns:
        float32 [2 * length - 1, channels].
    """
    distance = torch.arange(length - 1, -length, -1, dtype=torch.float32, device=device)
    even = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
    angle = distance[:, None] * torch.exp(even * (-math.log(10000.0) / channels))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def block_mask(length: int, block: int, device: torch.device) -> Tensor:
    """True where the row's position may look: its whole block and every block before it.

    Returns:
        bool [length, length].
    """
    number = torch.arange(length, device=device) // block
    return number[:, None] >= number[None, :]


class EncoderCache:
    """Keys and values of the tokens of a stream that later tokens may look at.

    Attributes:
        window: Tokens that are kept at most, a multiple of the encoder's block.
        layers: Key and value [b, heads, m, c / heads] for each layer; empty at the start.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.layers: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        """Tokens kept."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def store(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Keep the newest of these keys and values, old and new."""
        first = max(0, layers[0][0].shape[2] - self.window)
        self.layers = [(key[:, :, first:], value[:, :, first:]) for key, value in layers]


class RelativeAttention(nn.Module):
    """Attention whose scores add a term of the distance between query and key.

    The content and position biases u and v are those of arXiv 1901.02860, section 3.3.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(channels, channels)
        self.linear_k = nn.Linear(channels, channels)
        self.linear_v = nn.Linear(channels, channels)
        self.linear_out = nn.Linear(channels, channels)
        self.linear_pos = nn.Linear(channels, channels, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, channels // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, channels // heads))
        self.dropout = dropout
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def _split(self, x: Tensor) -> Tensor:
        """[b, t, c] -> [b, heads, t, c / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend.

        Args:
            x: [b, t, c].
            positions: Of ``relative_positions(m + t, c)`` the first m + 2 t - 1.
            mask: bool [t, m + t], True where a row may look.
            past: Keys and values [b, heads, m, c / heads] of what was before x.

        Returns:
            [b, t, c], and the keys and values [b, heads, m + t, c / heads] with those of x.
        """
        query, key, value = (
            self._split(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        place = self._split(self.linear_pos(positions)[None])
        by_distance = (query + self.pos_bias_v[:, None]) @ place.transpose(-2, -1)
        # Column of the distance row - column in the descending list of distances.
        rows, columns = torch.arange(x.shape[1]), torch.arange(key.shape[2])
        column = (x.shape[1] - 1 - rows[:, None] + columns[None, :]).to(x.device)
        bias = by_distance.gather(-1, column.expand(*by_distance.shape[:2], -1, -1))
        bias = (bias / math.sqrt(query.shape[-1])).masked_fill(~mask, -math.inf)
        mixed = F.scaled_dot_product_attention(
            query + self.pos_bias_u[:, None],
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.linear_out(mixed.transpose(1, 2).flatten(2)), (key, value)


class FeedForward(nn.Module):
    """Two linear layers with a swish between them."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(channels, hidden)
        self.w_2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, c] -> [b, t, c]."""
        out: Tensor = self.w_2(self.dropout(F.silu(self.w_1(x))))
        return out


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added to its input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.output_size
        self.self_attn = RelativeAttention(
            channels, config.attention_heads, config.attention_dropout
        )
        self.feed_forward = FeedForward(channels, config.linear_units, config.dropout)
        self.norm_ff = nn.LayerNorm(channels)
        self.norm_mha = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """[b, t, c] -> [b, t, c], and keys and values as ``RelativeAttention`` returns them."""
        mixed, present = self.self_attn(self.norm_mha(x), positions, mask, past)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.norm_ff(x))), present


class _Embed(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.out = nn.Sequential(
            nn.Linear(config.input_size, config.output_size),
            nn.LayerNorm(config.output_size),
            nn.Dropout(config.dropout),
        )


class BlockEncoder(nn.Module):
    """Encoder whose output for a complete block no later token changes."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = _Embed(config)
        self.encoders = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(config.output_size)
        self.positional_dropout = nn.Dropout(config.positional_dropout)

    def forward(self, x: Tensor, cache: EncoderCache | None = None) -> Tensor:
        """Encode.

        Args:
            x: Embedded tokens [b, n, input_size].
            cache: Of the tokens before x; takes in x too. None: x is the whole.

        Returns:
            [b, n, output_size].
        """
        count, channels = x.shape[1], self.config.output_size
        earlier = len(cache) if cache is not None else 0
        x = self.positional_dropout(self.embed.out(x) * math.sqrt(channels))
        places = relative_positions(earlier + count, channels, x.device)
        places = self.positional_dropout(places[: earlier + 2 * count - 1])
        mask = block_mask(earlier + count, self.config.block_size, x.device)[earlier:]
        present: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self.encoders):
            past = cache.layers[index] if cache is not None and earlier else None
            x, kept = layer(x, places, mask, past)
            present.append(kept)
        if cache is not None:
            cache.store(present)
        out: Tensor = self.after_norm(x)
        return out
