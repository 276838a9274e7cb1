"""Sizes and switches of a GLM, read from the published ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.speech.checkpoint import CheckpointError, field, read_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What the published config says and this model has built in; any other value is another model.
_BUILT_IN = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "multi_query_attention": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes of a GLM, named as in the published ``config.json``.

    Attributes:
        hidden_size: Width of the residual stream.
        num_layers: Number of blocks.
        num_attention_heads: Query heads.
        multi_query_group_num: Key and value heads.
        kv_channels: Width of a head; the first half of it is rotated.
        ffn_hidden_size: Width of the gated feed-forward.
        padded_vocab_size: Rows of the embedding and of the output layer.
        seq_length: Longest sequence, in tokens.
        layernorm_epsilon: Added to the mean square in RMSNorm.
        rope_ratio: Multiplies the rotary base.
        eos_token_id: Ids that end an answer.
        torch_dtype: The dtype the checkpoint is meant to run in.
        transcription_prompt: System prompt under which the checkpoint writes down what it hears;
            None where it was not trained to. The published config has no such field.
    """

    hidden_size: int
    num_layers: int
    num_attention_heads: int
    multi_query_group_num: int
    kv_channels: int
    ffn_hidden_size: int
    padded_vocab_size: int
    seq_length: int
    layernorm_epsilon: float
    rope_ratio: float
    eos_token_id: tuple[int, ...]
    torch_dtype: str = "float32"
    transcription_prompt: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> LanguageModelConfig:
        """Read ``config.json``.

        Raises:
            CheckpointError: A field is missing, has a wrong value, or asks for another model.
        """
        config = read_json(path)
        for name, value in _BUILT_IN.items():
            if field(config, name, bool, path) is not value:
                raise CheckpointError(f"{path}: field {name!r} is {not value}, expected {value}")
        sizes: dict[str, Any] = {}
        for name in (
            "hidden_size",
            "num_layers",
            "num_attention_heads",
            "multi_query_group_num",
            "kv_channels",
            "ffn_hidden_size",
            "padded_vocab_size",
            "seq_length",
        ):
            sizes[name] = field(config, name, int, path)
            if sizes[name] < 1:
                raise CheckpointError(
                    f"{path}: field {name!r} is {sizes[name]}, expected 1 or more"
                )
        if sizes["num_attention_heads"] % sizes["multi_query_group_num"]:
            raise CheckpointError(
                f"{path}: field 'multi_query_group_num' is {sizes['multi_query_group_num']}, "
                f"expected a divisor of 'num_attention_heads' ({sizes['num_attention_heads']})"
            )
        if sizes["kv_channels"] % 4:
            raise CheckpointError(
                f"{path}: field 'kv_channels' is {sizes['kv_channels']}, expected a multiple of 4"
            )
        ends = field(config, "eos_token_id", (int, list), path)
        ends = [ends] if isinstance(ends, int) else ends
        if not all(isinstance(end, int) and 0 <= end < sizes["padded_vocab_size"] for end in ends):
            raise CheckpointError(f"{path}: field 'eos_token_id' is {ends}, expected ids")
        dtype = field(config, "torch_dtype", str, path)
        if dtype not in DTYPES:
            raise CheckpointError(
                f"{path}: field 'torch_dtype' is {dtype!r}, expected one of {', '.join(DTYPES)}"
            )
        prompt = "transcription_prompt"
        return cls(
            **sizes,
            layernorm_epsilon=float(field(config, "layernorm_epsilon", (int, float), path)),
            rope_ratio=float(field(config, "rope_ratio", (int, float), path)),
            eos_token_id=tuple(ends),
            torch_dtype=dtype,
            transcription_prompt=field(config, prompt, str, path) if prompt in config else None,
        )
