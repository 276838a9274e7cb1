"""One new token of every sequence through a small language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from agent.speech import decode_kernels as kernels
from agent.speech.decode_kernels import Floats
from agent.speech.kv_cache import KVCache
from agent.speech.language_model_config import LanguageModelConfig

# A model is small if the time of its steps is not that of reading its weights: MKL reads those of
# larger ones with better use of the machine, and with more threads than one.
SMALL_BYTES = 64 << 20


class _Layer(NamedTuple):
    """One block's parameters."""

    attention_scale: Floats
    query_key_value: Floats
    bias: Floats
    dense: Floats
    feed_forward_scale: Floats
    up: Floats
    down: Floats


class DecodeStep:
    """Steps of a model in which each sequence has one new token.

    Arrays are views of the parameters, which must stay where they are.

    Args:
        config: The model's sizes.
        transformer: Its parts under the published names, float32 on the CPU.
        rope: Cosine and sine, float32 [2, seq_length, 1, d / 4].
    """

    def __init__(self, config: LanguageModelConfig, transformer: nn.ModuleDict, rope: Tensor):
        self._heads = config.num_attention_heads
        self._turned = config.num_attention_heads + config.multi_query_group_num
        self._width = config.kv_channels
        self._epsilon = config.layernorm_epsilon
        self._rope = np.ascontiguousarray(rope[:, :, 0].numpy())
        parts: Any = transformer
        self._words = _array(parts["embedding"]["word_embeddings"].weight)
        self._layers = [
            _Layer(
                _array(block.input_layernorm.weight),
                _array(block.self_attention.query_key_value.weight),
                _array(block.self_attention.query_key_value.bias),
                _array(block.self_attention.dense.weight),
                _array(block.post_attention_layernorm.weight),
                _array(block.mlp.dense_h_to_4h.weight),
                _array(block.mlp.dense_4h_to_h.weight),
            )
            for block in parts["encoder"]["layers"]
        ]
        self._final_scale = _array(parts["encoder"]["final_layernorm"].weight)
        self._output = _array(parts["output_layer"].weight)

    def __call__(self, ids: npt.NDArray[np.int64], caches: Sequence[KVCache]) -> Floats:
        """Read the new tokens into their caches.

        Args:
            ids: int64 [m].
            caches: Of m sequences.

        Returns:
            Logits float32 [m, vocab].

        Raises:
            ValueError: A sequence would be longer than the model's positions.
        """
        for cache in caches:
            cache.reserve(1)
        positions = np.array([cache.length for cache in caches])
        x = self._words[ids]
        context = np.empty((len(ids), self._heads * self._width), np.float32)
        for number, layer in enumerate(self._layers):
            rows = kernels.query_key_value(
                x,
                layer.attention_scale,
                self._epsilon,
                layer.query_key_value,
                layer.bias,
                self._rope,
                positions,
                self._turned,
                self._width,
            )
            for row, cache, out in zip(rows, caches, context, strict=True):
                kernels.attend(row, cache.arrays[number], cache.length, self._heads, out)
            kernels.rest_of_layer(
                x,
                context,
                layer.dense,
                layer.feed_forward_scale,
                self._epsilon,
                layer.up,
                layer.down,
            )
        for cache in caches:
            cache.advance(1)
        return kernels.logits(x, self._final_scale, self._epsilon, self._output)


def _array(parameter: Tensor) -> Floats:
    return parameter.detach().numpy()
