"""The language model's recipe on disk: settings in, a checkpoint in the published layout out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from agent.speech.checkpoint import checkpoint_file
from agent.speech.language_model import LanguageModel
from agent.speech.language_model_config import LanguageModelConfig
from agent.speech.prompt import TRANSCRIBE_SYSTEM
from agent.speech.system_prompt import SPEECH_SYSTEM, TEXT_SYSTEM, system_prompt
from agent.speech.text_tokenizer import TextTokenizer
from agent.training import byte_pairs
from agent.training.conversations import Mixture
from agent.training.data import Corpus
from agent.training.line import Line
from agent.training.listening import Settings as Listening
from agent.training.recipe import Device, Section

# Of the speech ids' first vectors; twice that of others, lest training soon forgets them.
_CODE_DEVIATION = 0.04
_SYSTEMS = (SPEECH_SYSTEM, TEXT_SYSTEM, TRANSCRIBE_SYSTEM)


class Sizes(Section):
    """A language model to begin from nothing; named as in the published ``config.json``.

    Attributes:
        text_tokens: Pieces of text, the 256 bytes included.
    """

    hidden_size: int
    num_layers: int
    num_attention_heads: int
    multi_query_group_num: int
    kv_channels: int
    ffn_hidden_size: int
    seq_length: int
    text_tokens: int


class Settings(Sizes):
    """The recipe; see the comments of ``agent/nano/recipe_language_model.yaml``.

    Attributes:
        scenes: Of each kind in a step.
        workers: Processes that draw them beside the training.
    """

    section = "language_model"

    lines: list[Path]
    takes: int
    first_takes: int
    listening: Listening
    mixture: Mixture
    scenes: int = 1
    workers: int = 0
    steps: int
    learning_rate: float
    warmup: int
    weight_decay: float
    dropout: float
    text_weight: float
    average: float
    bfloat16: bool
    device: Device = "cpu"
    judge_every: int
    judged: int
    report_every: int
    seed: int


def nano_texts(lines: Iterable[Line], corpus: Corpus) -> list[str]:
    """What the nano's text pieces are learnt from, the words of every prompt often enough."""
    texts = [corpus.text(index) for index in corpus.indices(split="train")]
    # The prompts are in every conversation: their words should be short.
    texts += [*_SYSTEMS, "Say this: ", "streaming_transcription\n"] * 2000
    for line in lines:
        texts += line.texts() * 200
        texts += [text for asked in line.styles.values() for text in asked] * 200
        texts += [f"\n{i.instruction}" for i in line.intents.values() if i.instruction] * 2000
        if line.tools:
            texts += [system_prompt(True, None, line.tools)] * 500
        for intent in line.intents.values():
            if tool := intent.tool:
                called = f"{tool.name}\n{json.dumps(tool.arguments, ensure_ascii=False)}"
                texts += [called, *(f"\n{result}" for result, _ in tool.results)] * 100
    return texts


def write_layout(settings: Sizes, texts: Iterable[str], codes: int, out: Path) -> None:
    """Write a checkpoint's files but for the weights: configs and a text tokenizer.

    Args:
        settings: The model's sizes.
        texts: What the pieces of the text tokenizer are learnt from.
        codes: Number of speech codes.
        out: The directory; made if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokens = byte_pairs.learn(texts, settings.text_tokens)
    size = byte_pairs.write(tokens, codes, out, settings.seq_length)
    first = len(tokens)
    ends = [
        first + byte_pairs.SPECIAL.index(f"<|{n}|>") for n in ("endoftext", "user", "observation")
    ]
    config: dict[str, Any] = {
        name: getattr(settings, name)
        for name in (
            "hidden_size",
            "num_layers",
            "num_attention_heads",
            "multi_query_group_num",
            "kv_channels",
            "ffn_hidden_size",
            "seq_length",
        )
    }
    config |= {
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "architectures": ["ChatGLMModel"],
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "eos_token_id": ends,
        "fp32_residual_connection": False,
        "hidden_dropout": 0.0,
        "layernorm_epsilon": 3.90625e-08,
        "model_type": "chatglm",
        "multi_query_attention": True,
        "original_rope": True,
        "pad_token_id": ends[0],
        "padded_vocab_size": size,
        "post_layer_norm": True,
        "rmsnorm": True,
        "rope_ratio": 1,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transcription_prompt": TRANSCRIBE_SYSTEM,
        "use_cache": True,
        "vocab_size": size,
    }
    generation = {"do_sample": True, "eos_token_id": ends, "pad_token_id": ends[0]}
    generation |= {"max_length": settings.seq_length, "temperature": 0.2, "top_p": 0.8}
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        (out / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def fresh_model(layout: Path, seed: int) -> LanguageModel:
    """A model with random weights for a layout; the last projections start small."""
    config = LanguageModelConfig.read(layout / "config.json")
    model = LanguageModel(config, TextTokenizer.from_pretrained(layout))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            # Scales stay at 1; torch would draw biases without the seed.
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            continue
        deviation = 0.02
        if name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
            deviation /= math.sqrt(2 * config.num_layers)
        nn.init.normal_(parameter, std=deviation, generator=generator)
    return model


@torch.no_grad()
def liken_codes(model: LanguageModel, codebook: Tensor, seed: int) -> None:
    """Start the model's speech ids as its tokenizer knows them: alike where their codes are.

    Args:
        model: Fresh.
        codebook: The tokenizer's vectors, float32 [codes, width].
        seed: Of the random projection to the model's width, which keeps distances about the same.
    """
    parameters = dict(model.named_parameters())
    ids = model.text_tokenizer.speech_ids(range(len(codebook)))
    generator = torch.Generator().manual_seed(seed)
    for name in ("embedding.word_embeddings", "output_layer"):
        table = parameters[f"transformer.{name}.weight"]
        projection = torch.randn(codebook.shape[1], table.shape[1], generator=generator)
        vectors = (codebook - codebook.mean(0)) @ projection
        table[ids] = _CODE_DEVIATION * vectors / vectors.std()


_LAYOUT = ("config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json")


def write_weights(
    tensors: Mapping[str, Tensor],
    config: LanguageModelConfig,
    layout: Path,
    out: Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write weights and beside them the rest of a layout.

    Args:
        tensors: By name.
        config: The model's.
        layout: Where configs and tokenizer files are copied from.
        out: The directory; made if missing.
        dtype: Of the weights in the file.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in _LAYOUT:
        (out / name).write_bytes(checkpoint_file(layout, name).read_bytes())
    written = {name: value.detach().to(dtype).cpu().contiguous() for name, value in tensors.items()}
    rotated = config.kv_channels // 2
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
    written["transformer.rotary_pos_emb.inv_freq"] = 10_000.0**-exponents
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
