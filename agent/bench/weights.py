"""Random weights in the published layout: sizes that a benchmark can run in minutes.

What the weights are does not change what a pass costs, so random ones time as trained ones do.
They are drawn so that nothing overflows, every layer matters to the result (a wrong layer shows
when two implementations are compared), and greedy answers never come to an end by themselves.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from agent.bench.sounds import spoken_lines
from agent.settings import SHIPPED_CHECKPOINT
from agent.speech import SpeechTokenizer
from agent.speech.checkpoint import read_json, read_yaml, unfold_weight_norm
from agent.speech.features import normalise
from agent.speech.flow import Flow, FlowConfig
from agent.speech.language_model import LanguageModel
from agent.speech.language_model_config import LanguageModelConfig
from agent.speech.text_tokenizer import TextTokenizer
from agent.speech.tokenizer_encoder import EncoderConfig, WhisperVQEncoder
from agent.speech.vocoder import Vocoder
from agent.training import byte_pairs

_RECIPE = 1  # to be raised when the weights below are drawn differently
_SPECIAL_ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")


@dataclass(frozen=True)
class Sizes:
    """Fields of the shipped checkpoint's configs to replace, and the size of the text vocabulary.

    Attributes:
        tokenizer: Of speech_tokenizer/config.json.
        text_tokens: Text tokens of the language model.
        language_model: Of language_model/config.json.
        flow: Of the section ``flow`` of speech_decoder/config.yaml, nested as there.
        hift: Of the section ``hift``, likewise.
    """

    tokenizer: Mapping[str, Any]
    text_tokens: int
    language_model: Mapping[str, Any]
    flow: Mapping[str, Any]
    hift: Mapping[str, Any]


MID_SIZE = Sizes(
    tokenizer={
        "d_model": 256,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 1024,
        "encoder_layers": 6,
        "num_hidden_layers": 6,
        "num_mel_bins": 128,
        "pooling_position": 6,
        "quantize_position": 6,
        "quantize_causal_block_size": 200,
        "quantize_vocab_size": 16_384,
        "torch_dtype": "float32",
    },
    text_tokens=10_240,
    language_model={
        "hidden_size": 512,
        "num_layers": 6,
        "num_attention_heads": 8,
        "multi_query_group_num": 2,
        "kv_channels": 64,
        "ffn_hidden_size": 2304,
        "seq_length": 8192,
    },
    flow={
        "input_size": 256,
        "vocab_size": 16_384,
        "encoder": {
            "input_size": 256,
            "output_size": 256,
            "attention_heads": 4,
            "linear_units": 1024,
            "num_blocks": 6,
        },
        "decoder": {
            "estimator": {
                "channels": [128, 128],
                "attention_head_dim": 64,
                "n_blocks": 4,
                "num_mid_blocks": 12,
                "num_heads": 4,
            }
        },
    },
    hift={"base_channels": 256, "f0_predictor": {"cond_channels": 256}},
)
"""Half the published decoder's width, which is a quarter of its parameters; the rest as stated."""


def random_checkpoint(cache: Path, sizes: Sizes = MID_SIZE, seed: int = 0) -> Path:
    """Make a checkpoint, or find it made.

    Args:
        cache: Checkpoints go below it, in a directory named after sizes and seed.
        sizes: Of the models.
        seed: Of the weights.

    Returns:
        A directory with speech_tokenizer, language_model and speech_decoder.
    """
    key = json.dumps([_RECIPE, seed, asdict(sizes)], sort_keys=True)
    directory = cache / f"random-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if directory.is_dir():
        return directory
    part = directory.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    _write_tokenizer(part / "speech_tokenizer", sizes.tokenizer, generator)
    _write_language_model(part / "language_model", sizes, generator)
    _write_decoder(part / "speech_decoder", sizes, generator)
    part.rename(directory)  # half a checkpoint is never found
    return directory


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` in it, section by section."""
    merged = dict(base)
    for name, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if inner else value
    return merged


@torch.no_grad()
def _draw(module: nn.Module, generator: torch.Generator, gain: float = 1.0) -> None:
    """Fill every parameter: weights keep the variance of their input, norms stay near 1."""
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if name.endswith("alpha"):
            parameter.copy_(1 + 0.3 * drawn)
        elif "embed" in name and name.endswith(("embedding.weight", "embeddings.weight")):
            parameter.copy_(drawn)
        elif parameter.ndim > 1:
            parameter.copy_(drawn * gain / math.sqrt(parameter[0].numel()))
        elif name.endswith("weight"):
            parameter.copy_(1 + 0.1 * drawn)
        else:
            parameter.copy_(0.05 * drawn)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _save(module: nn.Module, path: Path, **more: Tensor) -> None:
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(tensors | more, path, metadata={"format": "pt"})


def _write_tokenizer(
    directory: Path, changes: Mapping[str, Any], generator: torch.Generator
) -> None:
    directory.mkdir(parents=True)
    shipped = SHIPPED_CHECKPOINT / "speech_tokenizer"
    config = _merged(read_json(shipped / "config.json"), changes)
    features = read_json(shipped / "preprocessor_config.json")
    features["feature_size"] = config["num_mel_bins"]
    _write_json(directory / "config.json", config)
    _write_json(directory / "preprocessor_config.json", features)
    encoder = WhisperVQEncoder(EncoderConfig.from_published(config, directory / "config.json"))
    _draw(encoder, generator)
    path = directory / "model.safetensors"
    _save(encoder, path)
    _place_codes(encoder, SpeechTokenizer.from_pretrained(directory), generator)
    _save(encoder, path)


@torch.no_grad()
def _place_codes(
    encoder: WhisperVQEncoder, tokenizer: SpeechTokenizer, generator: torch.Generator
) -> None:
    """Put the codes where the vectors of speech lie, so that sounds differ in their ids."""
    vectors = []
    for line in spoken_lines().values():
        sound = torch.from_numpy(line[: len(line) - len(line) % tokenizer.token_samples])[None]
        raw = tokenizer.log_mel.whole(sound)
        valid = torch.ones(1, raw.shape[-1] // 2, dtype=torch.bool)
        vectors.append(encoder(normalise(raw, raw.amax()), valid)[0])
    heard = torch.cat(vectors)
    chosen = torch.randint(len(heard), (encoder.config.codes,), generator=generator)
    drawn = torch.randn(encoder.codebook.weight.shape, generator=generator)
    encoder.codebook.weight.copy_(heard[chosen] + 0.5 * heard.std(0) * drawn)


def _write_language_model(directory: Path, sizes: Sizes, generator: torch.Generator) -> None:
    directory.mkdir(parents=True)
    shipped = SHIPPED_CHECKPOINT / "language_model"
    config = _merged(read_json(shipped / "config.json"), sizes.language_model)
    letters = string.ascii_lowercase.encode()
    words = (bytes(w) for n in (2, 3) for w in itertools.product(letters, repeat=n))
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += itertools.islice(words, sizes.text_tokens - len(tokens))
    codes = int(sizes.flow["vocab_size"])
    vocabulary = byte_pairs.write(tokens, codes, directory, config["seq_length"])
    ends = [len(tokens) + byte_pairs.SPECIAL.index(name) for name in _SPECIAL_ENDS]
    config |= {"eos_token_id": ends, "pad_token_id": ends[0]}
    config |= {"vocab_size": vocabulary, "padded_vocab_size": vocabulary}
    _write_json(directory / "config.json", config)
    generation = read_json(shipped / "generation_config.json")
    generation |= {"eos_token_id": ends, "pad_token_id": ends[0]}
    _write_json(
        directory / "generation_config.json", generation | {"max_length": config["seq_length"]}
    )
    read = LanguageModelConfig.read(directory / "config.json")
    model = LanguageModel(read, TextTokenizer.from_pretrained(directory))
    _draw(model, generator, gain=1.5)
    with torch.no_grad():
        # Zero is never the largest of so many logits: a greedy answer does not end.
        model.get_parameter("transformer.output_layer.weight")[ends] = 0.0
    rotated = read.kv_channels // 2
    frequencies = 10_000.0 ** -(torch.arange(0, rotated, 2, dtype=torch.float32) / rotated)
    _save(
        model,
        directory / "model.safetensors",
        **{"transformer.rotary_pos_emb.inv_freq": frequencies},
    )


def _write_decoder(directory: Path, sizes: Sizes, generator: torch.Generator) -> None:
    directory.mkdir(parents=True)
    path = directory / "config.yaml"
    shipped = read_yaml(SHIPPED_CHECKPOINT / "speech_decoder" / "config.yaml")
    config = _merged(
        {name: shipped[name] for name in ("sample_rate", "spk_embed_dim", "flow", "hift")},
        {"flow": sizes.flow, "hift": sizes.hift},
    )
    # As published: the flow runs on the log mel as it is.
    for name in ("mel_mean", "mel_std"):
        config["flow"].pop(name, None)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    flow = Flow(FlowConfig.from_mapping(config["flow"], config["sample_rate"], path))
    _draw(flow, generator)
    torch.save(flow.state_dict(), directory / "flow.pt")
    vocoder = Vocoder.from_config(config["hift"], path)
    _draw(vocoder, generator)
    with torch.no_grad():
        # A pitch that is voiced in some frames and unvoiced in others.
        vocoder.f0_predictor.classifier.weight.mul_(200)
        vocoder.f0_predictor.classifier.bias.fill_(40)
    normed = [
        name
        for name, module in vocoder.named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and "source_downs" not in name
    ]
    tensors = unfold_weight_norm(vocoder.state_dict(), normed)
    torch.save(tensors, directory / "hift.pt")
