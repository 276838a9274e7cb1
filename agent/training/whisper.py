"""A published Whisper encoder as the start of a speech tokenizer's training.

The layers before the quantiser are the encoder's first ones; what reads the codes again are the
layers after them. So the training begins with an ASR encoder into which only the pooled quantiser
has been put, as the published tokenizer's did (arXiv 2412.02612, section 2.1). Whisper's decoder,
which the published run kept for its loss, is replaced by the reader's heads (CTC and phones).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    field,
    load_into,
    read_json,
    read_safetensors,
)
from agent.speech.tokenizer_encoder import WhisperVQEncoder
from agent.training.tokenizer_parts import POOL, Reader, Settings

_PREFIXES = ("model.encoder.", "encoder.")
# Fields of Whisper's config.json and the settings that must agree with them.
_SIZES = {
    "d_model": "width",
    "encoder_attention_heads": "heads",
    "encoder_ffn_dim": "ffn",
    "num_mel_bins": "n_mels",
}


@torch.no_grad()
def start_from_whisper(
    path: Path, settings: Settings, encoder: WhisperVQEncoder, reader: Reader
) -> None:
    """Put a Whisper encoder's weights into both halves of a tokenizer.

    Args:
        path: Directory with config.json and model.safetensors, as published for Whisper.
        settings: Of the tokenizer; ``layers`` says after which layer the quantiser comes.
        encoder: Receives the convolutions, the positions and the first ``layers`` layers.
        reader: Receives the next ``head_layers`` layers; its up-sampling starts as repetition.

    Raises:
        CheckpointError: A file is missing or damaged, or its sizes are not those of the settings.
    """
    config_path = checkpoint_file(path, "config.json")
    config = read_json(config_path)
    for name, setting in _SIZES.items():
        found, wanted = field(config, name, int, config_path), getattr(settings, setting)
        if found != wanted:
            raise CheckpointError(
                f"{config_path}: field {name!r} is {found}, the settings have {setting}: {wanted}"
            )
    layers = field(config, "encoder_layers", int, config_path)
    if settings.layers + settings.head_layers > layers:
        raise CheckpointError(
            f"{config_path}: field 'encoder_layers' is {layers}, the settings ask for layers "
            f"{settings.layers} and head_layers {settings.head_layers}"
        )
    tensors = _encoder_tensors(path)
    own = encoder.state_dict()
    kept = {name: own[name] for name in ("codebook.weight", "embed_positions2.weight")}
    first = {
        name: value
        for name, value in tensors.items()
        if not name.startswith(("layers.", "layer_norm."))
        or name.startswith(tuple(f"layers.{i}." for i in range(settings.layers)))
    }
    load_into(encoder, first | kept, path)
    for number, layer in enumerate(reader.layers):
        prefix = f"layers.{settings.layers + number}."
        load_into(layer, _below(tensors, prefix), path)
    if settings.layers + settings.head_layers == layers:
        load_into(reader.norm, _below(tensors, "layer_norm."), path)
    _repeat(reader.spread)


def _encoder_tensors(path: Path) -> dict[str, Tensor]:
    tensors = read_safetensors(path)
    for prefix in _PREFIXES:
        if found := _below(tensors, prefix):
            return found
    raise CheckpointError(f"{path}: no tensor 'model.encoder...', this is no Whisper checkpoint")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def _repeat(spread: nn.Linear) -> None:
    """Let the up-sampling give each of a token's frames the token's own vector."""
    width = spread.in_features
    spread.weight.copy_(torch.eye(width).repeat(POOL, 1))
    spread.bias.zero_()
