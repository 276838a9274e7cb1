"""A speech tokenizer that begins as a Whisper encoder."""

import json

import pytest
import torch
from safetensors.torch import save_file

from agent.speech.checkpoint import CheckpointError
from agent.speech.tokenizer_encoder import EncoderLayer, WhisperVQEncoder
from agent.training.tokenizer_parts import POSITIONS, Reader
from agent.training.whisper import start_from_whisper

LAYERS = 3


@pytest.fixture(scope="module")
def whisper(tmp_path_factory, small_tokenizer):
    """A random encoder under the names that Whisper is published with."""
    torch.manual_seed(5)
    source = WhisperVQEncoder(small_tokenizer.encoder())
    tensors = {
        name: torch.randn_like(value)
        for name, value in source.state_dict().items()
        if name.startswith(("conv", "embed_positions."))
    }
    for number in range(LAYERS):
        layer = EncoderLayer(small_tokenizer.width, small_tokenizer.heads, small_tokenizer.ffn)
        tensors |= {
            f"layers.{number}.{name}": torch.randn_like(value)
            for name, value in layer.state_dict().items()
        }
    tensors |= {
        f"layer_norm.{name}": torch.randn(small_tokenizer.width) for name in ("weight", "bias")
    }
    tensors["decoder.embed_tokens.weight"] = torch.zeros(4, small_tokenizer.width)
    path = tmp_path_factory.mktemp("whisper")
    named = {
        f"model.{'' if name.startswith('decoder') else 'encoder.'}{name}": value
        for name, value in tensors.items()
    }
    save_file(named, path / "model.safetensors")
    config = {
        "d_model": small_tokenizer.width,
        "encoder_attention_heads": small_tokenizer.heads,
        "encoder_ffn_dim": small_tokenizer.ffn,
        "encoder_layers": LAYERS,
        "num_mel_bins": small_tokenizer.n_mels,
        "max_source_positions": POSITIONS,
    }
    (path / "config.json").write_text(json.dumps(config))
    return path, tensors


def halves(settings):
    return WhisperVQEncoder(settings.encoder()), Reader(settings, phones=3, styles=2)


def test_the_quantiser_stands_between_two_of_whispers_layers(whisper, small_tokenizer):
    path, tensors = whisper
    settings = small_tokenizer.model_copy(update={"layers": 2})
    encoder, reader = halves(settings)
    start_from_whisper(path, settings, encoder, reader)
    for name in ("conv1.weight", "embed_positions.weight", "layers.1.fc1.weight"):
        torch.testing.assert_close(encoder.state_dict()[name], tensors[name])
    after = reader.layers[0].state_dict()["fc1.weight"]
    torch.testing.assert_close(after, tensors["layers.2.fc1.weight"])
    torch.testing.assert_close(reader.norm.bias.data, tensors["layer_norm.bias"])


def test_codes_are_repeated_until_something_better_is_learnt(whisper, small_tokenizer):
    encoder, reader = halves(small_tokenizer)
    start_from_whisper(whisper[0], small_tokenizer, encoder, reader)
    codes = torch.randn(1, 2, small_tokenizer.width)
    spread = reader.spread(codes).view(1, 2, 4, small_tokenizer.width)
    torch.testing.assert_close(spread, codes[:, :, None].expand(-1, -1, 4, -1))


def test_other_sizes_are_refused_by_name(whisper, small_tokenizer):
    wider = small_tokenizer.model_copy(update={"width": 64})
    with pytest.raises(CheckpointError, match="'d_model' is 32, the settings have width: 64"):
        start_from_whisper(whisper[0], wider, *halves(wider))
    deeper = small_tokenizer.model_copy(update={"head_layers": 3})
    with pytest.raises(CheckpointError, match="'encoder_layers' is 3"):
        start_from_whisper(whisper[0], deeper, *halves(deeper))


def test_what_is_no_whisper_is_refused(tmp_path, whisper, small_tokenizer):
    (tmp_path / "config.json").write_bytes((whisper[0] / "config.json").read_bytes())
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no Whisper checkpoint"):
        start_from_whisper(tmp_path, small_tokenizer, *halves(small_tokenizer))
