"""The speech tokenizer's network: a Whisper encoder cut after its quantiser, block-causal.

What attends to what: a 50 Hz frame sees its own block of `EncoderConfig.block` frames, ahead and
behind, and every frame of all earlier blocks; the convolutions only look back. So a block's tokens
are final once its last frame is there, and keys and values of finished blocks can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from agent.speech.checkpoint import CheckpointError
from agent.speech.checkpoint import field as config_field

# Mel frames that one 50 Hz frame looks back, through conv1 (2) and conv2 (2).
CONV_CONTEXT = 4
CONV_STRIDE = 2
_CODES_TOGETHER = 2048

# Switches whose published value is the only one implemented.
_FIXED: tuple[tuple[str, object], ...] = (
    ("activation_function", "gelu"),
    ("encoder_causal_attention", False),
    ("encoder_causal_convolution", True),
    ("pooling_type", "avg"),
    ("quantize_causal_encoder", False),
    ("quantize_encoder_only", True),
    ("scale_embedding", False),
)


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder, from the published config.json.

    Attributes:
        n_mels: Mel filters in.
        width: Model width (d_model).
        layers: Transformer layers before the quantiser (quantize_position).
        heads: Attention heads.
        ffn: Width of the feed-forward layers.
        positions: Longest segment in 50 Hz frames (max_source_positions).
        pool: 50 Hz frames averaged into one token (pooling_kernel_size).
        codes: Codebook size (quantize_vocab_size).
        block: Attention block in 50 Hz frames (quantize_causal_block_size), a multiple of pool.
    """

    n_mels: int
    width: int
    layers: int
    heads: int
    ffn: int
    positions: int
    pool: int
    codes: int
    block: int

    @classmethod
    def from_published(cls, config: Mapping[str, Any], path: str | Path) -> EncoderConfig:
        """Read and check the fields of config.json.

        Raises:
            CheckpointError: a field is missing, of another type, or has a value that this encoder
                does not implement; names file, field and what was expected.
        """

        def positive(name: str) -> int:
            value = config_field(config, name, int, path)
            if value < 1:
                raise CheckpointError(f"{path}: field {name!r} is {value}, expected at least 1")
            return int(value)

        for name, expected in _FIXED:
            value = config_field(config, name, type(expected), path)
            if value != expected:
                raise CheckpointError(
                    f"{path}: field {name!r} is {value!r}, expected {expected!r}: "
                    "no other is implemented"
                )
        result = cls(
            n_mels=positive("num_mel_bins"),
            width=positive("d_model"),
            layers=positive("quantize_position"),
            heads=positive("encoder_attention_heads"),
            ffn=positive("encoder_ffn_dim"),
            positions=positive("max_source_positions"),
            pool=positive("pooling_kernel_size"),
            codes=positive("quantize_vocab_size"),
            block=positive("quantize_causal_block_size"),
        )
        if result.width % result.heads:
            raise CheckpointError(
                f"{path}: field 'd_model' is {result.width}, expected a multiple of "
                f"'encoder_attention_heads' ({result.heads})"
            )
        if result.block % result.pool:
            raise CheckpointError(
                f"{path}: field 'quantize_causal_block_size' is {result.block}, expected a "
                f"multiple of 'pooling_kernel_size' ({result.pool})"
            )
        if positive("pooling_position") != result.layers:
            raise CheckpointError(
                f"{path}: field 'pooling_position' is {config['pooling_position']}, expected "
                f"'quantize_position' ({result.layers}): pooling comes right before the quantiser"
            )
        return result


class CausalConv1d(nn.Conv1d):
    """Convolution that sees only the past: kernel_size - 1 zeros in front, none behind."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, n] to [batch, out, ceil(n / stride)]."""
        return super().forward(functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Attention(nn.Module):
    """Multi-head attention with Whisper's names; keys have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None) -> Tensor:
        """Attend from x to x, preceded by what the cache holds.

        Args:
            x: [batch, n, width].
            mask: bool [batch or 1, 1, n, keys], true where a query may attend; None for all.
            cache: Earlier keys and values; takes up those of x.

        Returns:
            [batch, n, width].
        """
        # Under bfloat16 autocast on a CPU, attention itself is faster in float32.
        query, key, value = (
            self._split(p(x)).to(x.dtype) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            key, value = cache.append(key, value)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed_heads = mixed.transpose(1, 2).reshape(x.shape)
        out: Tensor = self.out_proj(mixed_heads)
        return out


@dataclass
class KeyValues:
    """Keys and values of one layer of one stream, allocated ahead.

    A shallow copy goes on by itself from the same frames: what it adds lies beyond the original's
    frames, and what it cuts it copies first.

    Attributes:
        length: Frames held.
        store: [2, heads, capacity, head width]; None before the first.
    """

    length: int = 0
    store: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of some frames, [1, heads, n, head width]; returns those of all so far."""
        _, heads, count, width = key.shape
        end = self.length + count
        if self.store is None or self.store.shape[2] < end:
            store = key.new_empty(2, heads, 2 * end, width)
            if self.store is not None:
                store[:, :, : self.length] = self.store[:, :, : self.length]
            self.store = store
        self.store[0, :, self.length : end] = key[0]
        self.store[1, :, self.length : end] = value[0]
        self.length = end
        return self.store[:1, :, :end], self.store[1:, :, :end]

    def truncate(self, frames: int) -> None:
        """Forget all but the first frames."""
        self.length = frames
        if self.store is not None:
            self.store = self.store.clone()


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer with Whisper's names."""

    def __init__(self, width: int, heads: int, ffn: int):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        """[batch, n, width] to the same; mask and cache as for `Attention`."""
        x, wide = self.halfway(x, mask, cache)
        out: Tensor = x + self.fc2(wide)
        return out

    def halfway(
        self, x: Tensor, mask: Tensor | None, cache: KeyValues | None
    ) -> tuple[Tensor, Tensor]:
        """The residual [batch, n, width] and what the last linear layer is to add [.., n, ffn]."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask, cache)
        return x, functional.gelu(self.fc1(self.final_layer_norm(x)))


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's fixed positions, float32 [length, width]: sines, then cosines."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _positions(length: int, width: int) -> nn.Embedding:
    return nn.Embedding(length, width, _weight=sinusoids(length, width), _freeze=True)


class WhisperVQEncoder(nn.Module):
    """Log-mel to the vectors that are quantised, and those to token ids.

    Parameters have the published names. ``embed_positions2`` belongs to layers after the quantiser,
    which the published encoder does not have; it is kept so that the files stay exchangeable.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = CausalConv1d(config.n_mels, width, 3)
        self.conv2 = CausalConv1d(width, width, 3, stride=CONV_STRIDE)
        self.embed_positions = _positions(config.positions, width)
        self.embed_positions2 = _positions(math.ceil(config.positions / config.pool), width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, config.ffn) for _ in range(config.layers)
        )
        self.codebook = nn.Embedding(config.codes, width)
        self.codebook.weight.requires_grad_(False)
        self._squares: tuple[tuple[int, int], Tensor] | None = None

    def convolve(self, mel: Tensor) -> Tensor:
        """Normalised log-mel [batch, n_mels, 2 n] to [batch, n, width] at 50 Hz."""
        x = functional.gelu(self.conv1(mel))
        return functional.gelu(self.conv2(x)).transpose(1, 2)

    def block_mask(self, valid: Tensor) -> Tensor:
        """Who may attend to whom.

        Args:
            valid: bool [batch, n], false for frames of padding, which nobody attends to.

        Returns:
            bool [batch, 1, n, n].
        """
        block = torch.arange(valid.shape[1], device=valid.device) // self.config.block
        return (block[None, :] <= block[:, None])[None, None] & valid[:, None, None]

    def pool(self, x: Tensor) -> Tensor:
        """Average frames to tokens, [batch, n, width] to [batch, n / pool, width]."""
        batch, length, width = x.shape
        return x.view(batch, length // self.config.pool, self.config.pool, width).mean(dim=2)

    def forward(self, mel: Tensor, valid: Tensor, position: int | Tensor = 0) -> Tensor:
        """Vectors before the quantiser, of whole segments: `frames`, pooled.

        Returns:
            float32 [batch, n / pool, width].
        """
        return self.pool(self.frames(mel, valid, position))

    def frames(self, mel: Tensor, valid: Tensor, position: int | Tensor = 0) -> Tensor:
        """Output of the last layer at 50 Hz, of whole segments.

        Args:
            mel: Normalised log-mel, float32 [batch, n_mels, 2 n], n a multiple of the pooling.
            valid: bool [batch, n], false for frames of padding.
            position: Position of the first frame, or int64 [batch] of each segment's.

        Returns:
            float32 [batch, n, width].
        """
        x: Tensor = self.convolve(mel)
        steps = torch.arange(x.shape[1], device=x.device)
        start = torch.as_tensor(position, device=x.device).reshape(-1, 1)
        x = x + self.embed_positions(start + steps)
        mask = self.block_mask(valid)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def enter(self, mel: Tensor, start: int) -> Tensor:
        """What the first layer is shown of the next frames of a stream; it looks only back.

        Args:
            mel: Normalised log-mel, float32 [1, n_mels, c + 2 n - 1]: that of n frames except the
                last, which they do not see, preceded by the c = `CONV_CONTEXT` frames before it, or
                by none if start is 0.
            start: Position of the first frame.

        Returns:
            float32 [1, n, width].
        """
        x = self.convolve(mel)
        # The convolutions' own zero padding has spoilt the frames of the context.
        context = CONV_CONTEXT // CONV_STRIDE if start else 0
        x = x[:, context:]
        return x + self.embed_positions.weight[start : start + x.shape[1]]

    def finish_block(self, x: Tensor, cache: list[KeyValues], valid: Tensor | None) -> Tensor:
        """Vectors before the quantiser, of the next block of a stream.

        Args:
            x: From `enter`, float32 [1, n, width].
            cache: Keys and values of the earlier blocks, one per layer; takes up this block's.
            valid: bool [n], false for frames of padding; None if there are none.

        Returns:
            float32 [1, n / pool, width].
        """
        mask = None
        if valid is not None:
            earlier = valid.new_ones(cache[0].length)
            mask = torch.cat([earlier, valid])[None, None, None]
        for layer, keys in zip(self.layers[:-1], cache, strict=False):
            x = layer(x, mask, keys)
        last: Any = self.layers[-1]
        x, wide = last.halfway(x, mask, cache[-1])
        # The mean of what a linear layer gives is what it gives of the mean.
        pooled: Tensor = self.pool(x) + last.fc2(self.pool(wide))
        return pooled

    def distances(self, hidden: Tensor) -> Tensor:
        """Squared distances to all codes, [..., width] to [..., codes]."""
        codes = self.codebook.weight
        squares = hidden.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return squares - 2.0 * hidden @ codes.T

    def quantise(self, hidden: Tensor) -> Tensor:
        """Ids of the nearest codes, [..., width] to int64 [...]."""
        codes = self.codebook.weight
        # The vector's own square is the same for all codes; theirs are kept while they stand.
        known = (codes.data_ptr(), codes._version)
        if self._squares is None or self._squares[0] != known:
            self._squares = known, codes.square().sum(-1)
        rows = hidden.reshape(-1, hidden.shape[-1])
        # Few rows and many codes: in parts that stay in the processor's cache.
        together = _CODES_TOGETHER if len(codes) % _CODES_TOGETHER == 0 else len(codes)
        squares = torch.split(self._squares[1], together)
        parts = [
            torch.addmm(square, rows, some.T, alpha=-2.0)
            for square, some in zip(squares, torch.split(codes, together), strict=True)
        ]
        # The least of each part is found fast, its place only where it is the least of all.
        part = torch.stack([distance.amin(-1) for distance in parts]).argmin(0)
        nearest = torch.cat(parts, dim=1).view(len(rows), len(parts), together)
        inside = nearest[torch.arange(len(rows), device=part.device), part].argmin(-1)
        return (part * together + inside).view(hidden.shape[:-1])
