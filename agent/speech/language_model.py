"""The GLM language model: grouped-query attention over an explicit cache, half rotary, SwiGLU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    load_into,
    read_safetensors,
)
from agent.speech.inference import InferencePass
from agent.speech.kv_cache import KVCache
from agent.speech.language_model_config import DTYPES, LanguageModelConfig
from agent.speech.sampling import sample
from agent.speech.text_tokenizer import TextTokenizer

_ROPE_BASE = 10_000.0


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019), in float32 inside."""

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self._epsilon)
        return (self.weight * (x * scale)).to(x.dtype)


def rotary_table(config: LanguageModelConfig) -> Tensor:
    """Cosine and sine of all positions, computed once: float32 [2, seq_length, 1, d / 4]."""
    rotated = config.kv_channels // 2
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
    frequencies = 1.0 / (_ROPE_BASE * config.rope_ratio) ** exponents
    angles = torch.outer(torch.arange(config.seq_length, dtype=torch.float32), frequencies)
    return torch.stack((angles.cos(), angles.sin())).unsqueeze(2)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotary embedding of the first half of each head, on interleaved pairs (Su et al. 2021).

    Args:
        x: [n, heads, d].
        rope: cosine and sine [2, n, 1, d / 4].
    """
    half = x.shape[-1] // 2
    pairs = x[..., :half].view(*x.shape[:-1], half // 2, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    cosine, sine = rope[0], rope[1]
    turned = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1)
    return torch.cat((turned.flatten(-2).to(x.dtype), x[..., half:]), dim=-1)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal grouped-query attention of the last n positions over all t of them.

    The heads of a group become further query positions, so keys and values are read as they lie in
    the cache and never repeated for every head.

    Args:
        query: [n, heads, d].
        keys: [groups, t, d], t >= n.
        values: [groups, t, d].

    Returns:
        [n, heads * d].
    """
    count, heads, width = query.shape
    groups, total, _ = keys.shape
    share = heads // groups
    folded = query.view(count, groups, share, width).permute(1, 2, 0, 3)
    mask = None
    if count > 1:
        mask = torch.ones(count, total, dtype=torch.bool, device=query.device)
        mask = mask.tril(total - count).repeat(share, 1)
    context = F.scaled_dot_product_attention(
        folded.reshape(1, groups, share * count, width), keys[None], values[None], attn_mask=mask
    )
    context = context.view(groups, share, count, width).permute(2, 0, 1, 3)
    return context.reshape(count, heads * width)


class Attention(Protocol):
    """Which positions of one pass see which; :class:`Packed`, or a recipe's own."""

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Context [n, heads * d] of query [n, heads, d], keys and values [n, groups, d]."""


class Packed:
    """Sequences one behind the other without padding; each sees itself, from a cache on.

    Args:
        lengths: New tokens of each sequence.
        caches: What they continue, and are added to; None: they start here.
    """

    def __init__(self, lengths: Sequence[int], caches: Sequence[KVCache] | None):
        self._lengths, self._caches = lengths, caches

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """As in :class:`Attention`."""
        outputs = []
        start = 0
        for index, length in enumerate(self._lengths):
            rows = slice(start, start + length)
            k, v = keys[rows].transpose(0, 1), values[rows].transpose(0, 1)
            if self._caches is not None:
                k, v = self._caches[index].extend(layer, k, v)
            outputs.append(attend(query[rows], k, v))
            start += length
        return torch.cat(outputs)


class SelfAttention(nn.Module):
    """Grouped-query attention with one fused, biased projection."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self._width = config.kv_channels
        self._heads = config.num_attention_heads
        self._groups = config.multi_query_group_num
        inner = self._heads * self._width
        self.query_key_value = nn.Linear(
            config.hidden_size, inner + 2 * self._groups * self._width, bias=True
        )
        self.dense = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rope: Tensor, attention: Attention, layer: int) -> Tensor:
        """Apply to the positions [n, hidden] of one pass."""
        heads = self.query_key_value(x).unflatten(-1, (-1, self._width))
        query, keys, values = heads.split([self._heads, self._groups, self._groups], dim=1)
        context = attention(layer, rotate(query, rope), rotate(keys, rope), values)
        return self.dense(context)  # type: ignore[no-any-return]


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): the first half of the wide projection gates the second."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 2 * config.ffn_hidden_size, bias=False)
        self.dense_4h_to_h = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to [n, hidden]."""
        gate, value = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(F.silu(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One transformer block, normalised before each half."""

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.self_attention = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.mlp = GatedFeedForward(config)

    def forward(self, x: Tensor, rope: Tensor, attention: Attention, layer: int) -> Tensor:
        """Apply to the positions [n, hidden] of one pass."""
        x = x + self.self_attention(self.input_layernorm(x), rope, attention, layer)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


def _transformer(config: LanguageModelConfig) -> nn.ModuleDict:
    """The parts under the names of the published parameters."""
    blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
    words = nn.Embedding(config.padded_vocab_size, config.hidden_size)
    return nn.ModuleDict(
        {
            "embedding": nn.ModuleDict({"word_embeddings": words}),
            "encoder": nn.ModuleDict(
                {
                    "layers": blocks,
                    "final_layernorm": RMSNorm(config.hidden_size, config.layernorm_epsilon),
                }
            ),
            "output_layer": nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False),
        }
    )


class LanguageModel(nn.Module):
    """GLM-4-Voice's language model over text and speech tokens.

    Attributes:
        config: Its sizes.
        text_tokenizer: Text to ids and back.
        audio_offset: Id of ``<|audio_0|>``: speech code c is the id ``audio_offset + c``.

    Raises:
        CheckpointError: The text tokenizer has ids that the embedding lacks.
    """

    rope: Tensor

    def __init__(self, config: LanguageModelConfig, text_tokenizer: TextTokenizer):
        super().__init__()
        if text_tokenizer.size > config.padded_vocab_size:
            raise CheckpointError(
                f"config.json: field 'padded_vocab_size' is {config.padded_vocab_size}, expected "
                f"at least {text_tokenizer.size}, which the tokenizer files ask for"
            )
        self.config = config
        self.text_tokenizer = text_tokenizer
        self.audio_offset = text_tokenizer.audio_offset
        self.transformer = _transformer(config)
        self.register_buffer("rope", rotary_table(config), persistent=False)
        self._inference: InferencePass | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> LanguageModel:
        """Load a directory in the published layout, ready to generate.

        Args:
            path: Holds config.json, the tokenizer files and the safetensors shards.
            device: Where the model lives.
            dtype: Of weights and cache. None: float32 on a CPU, else what the config says.

        Raises:
            CheckpointError: A file is missing, damaged, or does not fit the others.
        """
        config_path = checkpoint_file(path, "config.json")
        config = LanguageModelConfig.read(config_path)
        tokenizer = TextTokenizer.from_pretrained(path)
        if dtype is None:
            on_cpu = torch.device(device).type == "cpu"
            dtype = torch.float32 if on_cpu else DTYPES[config.torch_dtype]
        # Nothing is initialised that the file overwrites: 9 B random numbers take a while.
        with torch.device("meta"):
            model = cls(config, tokenizer)
        model = model.to(dtype).to_empty(device=device)
        model.rope = rotary_table(config).to(device, dtype)
        # The table of frequencies is stored too; it follows from the config.
        load_into(model, read_safetensors(path), path, unused=("transformer.rotary_pos_emb.",))
        return model.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._inference = None  # its views would stay where the parameters were
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.rope.device

    def cache(self, capacity: int = 256) -> KVCache:
        """An empty cache for one sequence, with room for ``capacity`` tokens at first."""
        return KVCache(self.config, self.device, self.rope.dtype, capacity)

    def forward(
        self,
        ids: Tensor,
        lengths: Sequence[int],
        caches: Sequence[KVCache] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Logits of several sequences at once, packed one behind the other without padding.

        Args:
            ids: int64 [n], the new tokens of all sequences.
            lengths: How many of them belong to each sequence; their sum is n.
            caches: One cache a sequence: the new tokens continue what it holds and are added to
                it. None: the sequences start here and nothing is kept.
            rows: int64 [r], the positions among the n to compute logits for; None for all.

        Returns:
            float32 [n or r, padded_vocab_size].
        """
        if caches is not None and (inference := self._without_gradients()) is not None:
            return inference(ids, lengths, caches, rows)
        starts = [0] * len(lengths) if caches is None else [cache.length for cache in caches]
        positions = torch.cat(
            [
                torch.arange(start, start + length, device=ids.device)
                for start, length in zip(starts, lengths, strict=True)
            ]
        )
        if caches is not None:
            for cache, length in zip(caches, lengths, strict=True):
                cache.reserve(length)
        logits = self.attending(ids, positions, Packed(lengths, caches), rows)
        if caches is not None:
            for cache, length in zip(caches, lengths, strict=True):
                cache.advance(length)
        return logits

    def attending(
        self, ids: Tensor, positions: Tensor, attention: Attention, rows: Tensor | None = None
    ) -> Tensor:
        """Logits of tokens that see what an attention lets them see.

        Args:
            ids: int64 [n].
            positions: int64 [n], where each stands in its sequence.
            attention: Of this pass.
            rows: int64 [r], the positions among the n to compute logits for; None for all.

        Returns:
            float32 [n or r, padded_vocab_size].
        """
        rope = self.rope[:, positions]
        parts: Any = self.transformer
        x = parts["embedding"]["word_embeddings"](ids)
        for layer, block in enumerate(parts["encoder"]["layers"]):
            x = block(x, rope, attention, layer)
        if rows is not None:
            x = x[rows]
        x = parts["encoder"]["final_layernorm"](x)
        return parts["output_layer"](x).float()  # type: ignore[no-any-return]

    def _without_gradients(self) -> InferencePass | None:
        """The quick way through the model, where it may be taken."""
        if (
            torch.is_grad_enabled()
            or self.training
            or torch.is_autocast_enabled("cpu")
            or self.rope.dtype != torch.float32
            or self.rope.device.type != "cpu"
        ):
            return None
        if self._inference is None:
            self._inference = InferencePass(self.config, self.transformer, self.rope)
        return self._inference

    def check_ids(self, ids: npt.ArrayLike | Tensor) -> Tensor:
        """Token ids as int64 [n] on the model's device.

        Raises:
            ValueError: Not one row of whole numbers, empty, too long, or an id out of range.
        """
        tensor = torch.as_tensor(ids)
        if tensor.ndim != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise ValueError(
                f"token ids have shape {tuple(tensor.shape)} and dtype {tensor.dtype}, "
                "expected one row of whole numbers"
            )
        if not len(tensor):
            raise ValueError("no token ids, expected at least one")
        if len(tensor) > self.config.seq_length:
            raise ValueError(
                f"{len(tensor)} token ids, expected at most the model's seq_length of "
                f"{self.config.seq_length}"
            )
        bad = ((tensor < 0) | (tensor >= self.config.padded_vocab_size)).nonzero()
        if len(bad):
            position = int(bad[0])
            raise ValueError(
                f"token id {int(tensor[position])} at position {position}, "
                f"expected 0 to {self.config.padded_vocab_size - 1}"
            )
        return tensor.to(self.device, torch.int64)

    @torch.no_grad()
    def logits(self, ids: npt.ArrayLike | Tensor) -> npt.NDArray[np.float32]:
        """Logits after every token of a sequence.

        Args:
            ids: int64 [n].

        Returns:
            float32 [n, padded_vocab_size].

        Raises:
            ValueError: As :meth:`check_ids`.
        """
        tensor = self.check_ids(ids)
        return self(tensor, [len(tensor)]).cpu().numpy()  # type: ignore[no-any-return]

    def generate(
        self,
        ids: npt.ArrayLike | Tensor,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop_ids: Collection[int] = (),
        seed: int | None = None,
    ) -> Iterator[int]:
        """Continue a sequence, one id at a time.

        Args:
            ids: int64 [n], the prompt.
            max_new_tokens: Most ids to yield.
            temperature: 0 takes the most likely id.
            top_p: Share of the probability to sample from.
            stop_ids: Ids that end the continuation; they are not yielded.
            seed: Of this continuation's own random numbers; None takes a fresh one.

        Raises:
            ValueError: As :meth:`check_ids`, or when the sequence passes the model's seq_length.
        """
        new = self.check_ids(ids)
        generator = torch.Generator(self.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        cache = self.cache(len(new) + 64)
        for _ in range(max_new_tokens):
            with torch.no_grad():
                last = torch.tensor([len(new) - 1], device=self.device)
                logits = self(new, [len(new)], [cache], last)[0]
            token = sample(logits, temperature, top_p, generator)
            if token in stop_ids:
                return
            yield token
            new = torch.tensor([token], device=self.device)
