"""Random weights: they must be what a checkpoint is, and answers must not run out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.bench.sounds import speech
from agent.bench.weights import MID_SIZE, Sizes, random_checkpoint
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.checkpoint import read_pickle

TINY = Sizes(
    tokenizer=dict(MID_SIZE.tokenizer)
    | {
        "d_model": 32,
        "encoder_ffn_dim": 64,
        "encoder_layers": 2,
        "num_hidden_layers": 2,
        "pooling_position": 2,
        "quantize_position": 2,
        "quantize_vocab_size": 64,
    },
    text_tokens=300,
    language_model={
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "kv_channels": 8,
        "ffn_hidden_size": 64,
        "seq_length": 512,
    },
    flow={
        "input_size": 32,
        "vocab_size": 64,
        "encoder": {"input_size": 32, "output_size": 32, "linear_units": 64, "num_blocks": 1},
        "decoder": {
            "estimator": {
                "channels": [16, 16],
                "attention_head_dim": 8,
                "n_blocks": 1,
                "num_mid_blocks": 1,
                "num_heads": 2,
            }
        },
    },
    hift={"base_channels": 32, "f0_predictor": {"cond_channels": 16}},
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights"), TINY)


def test_all_sounds_get_one_token(tiny: Path) -> None:
    tokenizer = SpeechTokenizer.from_pretrained(tiny / "speech_tokenizer")
    ids = tokenizer.encode([speech(5.0)])[0]
    assert len(set(ids.tolist())) > 10


def test_a_greedy_answer_ends_or_overflows(tiny: Path) -> None:
    model = LanguageModel.from_pretrained(tiny / "language_model")
    ids = list(model.generate([1, 2, 3], 200))
    assert not set(ids) & set(model.config.eos_token_id)
    assert np.isfinite(model.logits(ids)).all()
    assert model.text_tokenizer.audio_count == 64


def test_the_decoder_gives_silence_or_noise_at_the_limit(tiny: Path) -> None:
    decoder = SpeechDecoder.from_pretrained(tiny / "speech_decoder")
    wave = decoder.decode(torch.arange(12))
    assert bool(torch.isfinite(wave).all())
    assert 0.0 < float(wave.abs().mean()) < 0.9
    with torch.inference_mode():
        f0 = decoder.vocoder.f0(decoder.mel(torch.arange(12))[None])
    threshold = decoder.vocoder.config.nsf_voiced_threshold
    assert 0.0 < float((f0 > threshold).float().mean()) < 1.0


def test_the_layout_is_not_the_published_one(tiny: Path, goldens: Path) -> None:
    def shape_of(name: str) -> str:
        return ".".join("N" if part.isdigit() else part for part in name.split("."))

    for file in ("flow.pt", "hift.pt"):
        made = {shape_of(name) for name in read_pickle(tiny / "speech_decoder" / file)}
        golden = {shape_of(name) for name in read_pickle(goldens / "speech_decoder" / file)}
        assert made == golden


def test_weights_are_made_again_or_confused(tiny: Path) -> None:
    marker = tiny / "speech_decoder" / "flow.pt"
    before = marker.stat().st_mtime_ns
    assert random_checkpoint(tiny.parent, TINY) == tiny
    assert marker.stat().st_mtime_ns == before
    other = random_checkpoint(tiny.parent, replace(TINY, text_tokens=310))
    assert other != tiny
