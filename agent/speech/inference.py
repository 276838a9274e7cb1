"""The language model's forward where nothing is learnt: the same numbers from far fewer calls.

One new token of a small model is a few microseconds of arithmetic a layer; what it costs is the
number of calls and how the weights lie in memory. Here rotary embedding is one complex product for
queries and keys together, keys and values are written at once, products are added to the residual
stream where they arise, and what a step needs of positions, masks and caches is cut out once for
all layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.decode_step import SMALL_BYTES, DecodeStep
from agent.speech.kv_cache import CacheStep, KVCache
from agent.speech.language_model_config import LanguageModelConfig


class _Layer(NamedTuple):
    """Views of one block's parameters."""

    attention_scale: Tensor
    query_key_value: Tensor
    bias: Tensor
    dense: Tensor
    feed_forward_scale: Tensor
    up: Tensor
    down: Tensor


class InferencePass:
    """Reads new tokens of several sequences at once into their caches.

    It holds views of the parameters and must be made anew when they move. Float32 on a CPU is what
    it is made and measured for. Where each sequence has one new token, a small model goes through
    :class:`agent.speech.decode_step.DecodeStep` instead.

    Args:
        config: The model's sizes.
        transformer: Its parts under the published names.
        rope: Cosine and sine, float32 [2, seq_length, 1, d / 4].
    """

    def __init__(self, config: LanguageModelConfig, transformer: nn.ModuleDict, rope: Tensor):
        self._width = config.kv_channels
        self._heads = config.num_attention_heads
        self._groups = config.multi_query_group_num
        self._inner = self._heads * self._width
        self._gate = config.ffn_hidden_size
        self._turns = torch.complex(rope[0], rope[1])
        self._epsilon = config.layernorm_epsilon
        # The norm x / rms(x) is sqrt(h) x / hypot(|x|, sqrt(h epsilon)).
        self._root = math.sqrt(config.hidden_size)
        self._floor = rope.new_tensor(math.sqrt(config.hidden_size * config.layernorm_epsilon))
        self._zeros = rope.new_zeros(config.hidden_size)
        parts: Any = transformer
        self._words = parts["embedding"]["word_embeddings"].weight.detach()
        self._layers = [_views(block) for block in parts["encoder"]["layers"]]
        self._final_scale = parts["encoder"]["final_layernorm"].weight.detach()
        self._output = parts["output_layer"].weight.detach()
        size = sum(weight.nbytes for weight in transformer.parameters())
        self._decode = DecodeStep(config, transformer, rope) if size <= SMALL_BYTES else None

    def __call__(
        self, ids: Tensor, lengths: Sequence[int], caches: Sequence[KVCache], rows: Tensor | None
    ) -> Tensor:
        """Logits; see :meth:`LanguageModel.forward`."""
        if self._decode is not None and len(ids) == len(lengths):
            logits = torch.from_numpy(self._decode(ids.numpy(), caches))
            return logits if rows is None else logits[rows]
        lengths = list(lengths)
        starts = [cache.length for cache in caches]
        steps = [cache.step(length) for cache, length in zip(caches, lengths, strict=True)]
        spans = [self._turns[start : start + n] for start, n in zip(starts, lengths, strict=True)]
        turns = torch.cat(spans) if len(spans) > 1 else spans[0]
        masks = [_mask(start, length) for start, length in zip(starts, lengths, strict=True)]
        x = F.embedding(ids, self._words)
        for number, layer in enumerate(self._layers):
            normed = self._norm(x, layer.attention_scale)
            heads = torch.addmm(layer.bias, normed, layer.query_key_value)
            self._rotate(heads, turns)
            context = self._attend(heads, lengths, steps, masks, number)
            if layer is self._layers[-1] and rows is not None and (len(x), len(rows)) != (1, 1):
                x, context = x[rows], context[rows]  # the others are only attended to
            x.addmm_(context, layer.dense)
            wide = _transposed(layer.up, self._norm(x, layer.feed_forward_scale))
            gated = F.silu(wide[: self._gate]).mul_(wide[self._gate :])
            x.addmm_(gated.t(), layer.down)
        for cache, length in zip(caches, lengths, strict=True):
            cache.advance(length)
        return _transposed(self._output, self._norm(x, self._final_scale)).t().contiguous()

    def _norm(self, x: Tensor, scale: Tensor) -> Tensor:
        """RMSNorm of [n, hidden]."""
        if len(x) == 1:
            row = x[0]
            factor = (torch.dot(row, row).item() / len(row) + self._epsilon) ** -0.5
            return torch.addcmul(self._zeros, x, scale, value=factor)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self._floor)
        return torch.addcdiv(self._zeros, x, length, value=self._root).mul_(scale)

    def _rotate(self, heads: Tensor, turns: Tensor) -> None:
        """Turn the first half of all query and key heads in place; pairs are complex numbers.

        Args:
            heads: [n, (heads + 2 groups) d].
            turns: complex64 [n, 1, d / 4].
        """
        width = self._width
        shape = (len(heads), self._heads + self._groups, width // 4, 2)
        pairs = heads.as_strided(shape, (heads.stride(0), width, 2, 1))
        torch.view_as_complex(pairs).mul_(turns)

    def _attend(
        self,
        heads: Tensor,
        lengths: list[int],
        steps: Sequence[CacheStep],
        masks: Sequence[Tensor | None],
        layer: int,
    ) -> Tensor:
        """Write keys and values, and attend inside each sequence: [n, heads * d]."""
        count, row = heads.shape
        groups, width, share = self._groups, self._width, self._heads // self._groups
        # One call each instead of a slice and a view: at one row that is what counts.
        queries = heads.as_strided(
            (count, 1, groups, share, width), (row, row, share * width, width, 1)
        )
        news = heads.as_strided(
            (count, 2, groups, 1, width), (row, groups * width, width, width, 1), self._inner
        )
        if count == len(lengths):
            contexts = []
            for step, query, new in zip(steps, queries.unbind(), news.unbind(), strict=True):
                step.write[layer].copy_(new)
                keys, values = step.read[2 * layer], step.read[2 * layer + 1]
                contexts.append(F.scaled_dot_product_attention(query, keys, values))
            return (torch.cat(contexts) if count > 1 else contexts[0]).view(count, -1)
        contexts = []
        parts = zip(
            steps, torch.split(queries, lengths), torch.split(news, lengths), masks, strict=True
        )
        for step, query, new, mask in parts:
            step.write[layer].copy_(new[:, :, :, 0].permute(1, 2, 0, 3))
            keys, values = step.read[2 * layer], step.read[2 * layer + 1]
            # Groups take the place of a batch and share their keys, so that nothing is repeated.
            context = F.scaled_dot_product_attention(
                query[:, 0].permute(1, 2, 0, 3),
                keys.transpose(0, 1).expand(-1, share, -1, -1),
                values.transpose(0, 1).expand(-1, share, -1, -1),
                attn_mask=mask,
                is_causal=mask is None and len(query) > 1,
            )
            contexts.append(context.permute(2, 0, 1, 3).reshape(len(query), self._inner))
        return torch.cat(contexts)


def _transposed(weight: Tensor, x: Tensor) -> Tensor:
    """[out, n] of a weight [out, in] and [n, in].

    With MKL, 2 to 16 rows take half to nine tenths as long where the result lies by outputs, since
    then the matrix is not repacked.
    """
    return torch.mm(weight, x.t())


def _views(block: Any) -> _Layer:
    attention, feed_forward = block.self_attention, block.mlp
    return _Layer(
        block.input_layernorm.weight.detach(),
        attention.query_key_value.weight.detach().t(),
        attention.query_key_value.bias.detach(),
        attention.dense.weight.detach().t(),
        block.post_attention_layernorm.weight.detach(),
        feed_forward.dense_h_to_4h.weight.detach(),
        feed_forward.dense_4h_to_h.weight.detach().t(),
    )


def _mask(start: int, length: int) -> Tensor | None:
    """What is added to the scores of ``length`` positions over ``start`` + ``length``.

    None where a causal mask of the kernel's own will do, or one position sees everything.
    """
    if length == 1 or start == 0:
        return None
    mask = torch.full((length, start + length), float("-inf"))
    return mask.triu_(start + 1)
