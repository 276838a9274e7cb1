"""The vocoder against what the reference computed, and its stream against itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.speech.checkpoint import (
    CheckpointError,
    fold_weight_norm,
    load_into,
    read_pickle,
    read_yaml,
    unfold_weight_norm,
)
from agent.speech.vocoder import Vocoder


@pytest.fixture(scope="module")
def vocoder(goldens: Path) -> Vocoder:
    config = goldens / "speech_decoder" / "config.yaml"
    weights = goldens / "speech_decoder" / "hift.pt"
    model = Vocoder.from_config(read_yaml(config)["hift"], config).eval()
    load_into(model, fold_weight_norm(read_pickle(weights)), weights)
    return model


@pytest.fixture(scope="module")
def expected(goldens: Path) -> dict[str, torch.Tensor]:
    arrays = np.load(goldens / "expected" / "hift.npz")
    return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays}


@torch.inference_mode()
def test_pitch_and_source_are_the_references(vocoder, expected):
    f0 = vocoder.f0(expected["mel"])
    assert torch.allclose(f0, expected["f0"], atol=1e-3)
    source = vocoder.source(expected["f0"], expected["phase"][:, :, 0], expected["noise"])
    # The reference rounds its running phase to float32; ours is kept in double.
    assert torch.allclose(source, expected["source"], atol=5e-4)


@torch.inference_mode()
def test_waveform_from_the_stored_source_is_the_references(vocoder, expected):
    waveform = vocoder(expected["mel"], expected["source"])
    assert torch.allclose(waveform, expected["wav"], atol=1e-5)


def test_waveform_from_mel_is_the_references(vocoder, expected):
    waveform = vocoder.vocode(expected["mel"][0], expected["phase"][0, :, 0], expected["noise"][0])
    error = waveform - expected["wav"][0]
    assert error.abs().max() < 5e-3
    assert error.square().mean().sqrt() < 5e-4


@pytest.mark.parametrize("sizes", [[172], [1] * 172, [68, 69, 35], [3, 0, 100, 0, 69], [171, 1]])
def test_any_chunking_of_the_stream_equals_whole(vocoder, expected, sizes):
    mel = expected["mel"][0]
    whole = vocoder.vocode(mel, seed=5)
    stream = vocoder.stream(seed=5)
    begins = np.cumsum([0, *sizes])
    pieces = [
        stream.push(mel[:, begin : begin + size], last=index == len(sizes) - 1)
        for index, (begin, size) in enumerate(zip(begins[:-1], sizes, strict=True))
    ]
    together = torch.cat(pieces)
    assert together.shape == whole.shape
    error = together - whole
    # A mel frame near the voicing threshold may flip on a rounding; the README's bounds for it.
    assert error.abs().max() < 5e-3
    assert error.square().mean().sqrt() < 5e-4


def test_end_without_new_frames_releases_what_was_held_back(vocoder, expected):
    mel = expected["mel"][0]
    stream = vocoder.stream()
    held_back = 172 * 256 - len(stream.push(mel))
    assert held_back > 0
    assert len(stream.push(mel[:, :0], last=True)) == held_back


def test_pitch_does_not_drift_on_a_long_answer(vocoder):
    f0 = torch.full((1, 6000), 207.03)
    noise = torch.zeros(1, 9, 6000 * 256)
    phase = torch.zeros(1, 9)
    whole = vocoder.source(f0, phase, noise)
    sample = np.arange(6000 * 256, dtype=np.float64)
    turns = (sample + 1) * (np.float64(np.float32(207.03)) / 22050)
    sines = 0.1 * np.sin(2 * np.pi * turns[None] * np.arange(1, 10)[:, None])
    weight = vocoder.m_source.l_linear.weight.detach().double().numpy()
    bias = vocoder.m_source.l_linear.bias.detach().double().numpy()
    ideal = np.tanh(weight @ sines + bias[:, None])
    assert np.abs(whole[0].detach().numpy() - ideal)[:, -2560:].max() < 5e-3


def test_draws_leave_the_process_generator_alone(vocoder, expected):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    vocoder.vocode(expected["mel"][0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mel": torch.zeros(79, 4)}, r"mel has shape \(79, 4\), expected \(80, frames\)"),
        ({"mel": torch.zeros(80, 0)}, "mel has no frames"),
        ({"mel": torch.full((80, 4), float("nan"))}, "finite"),
        ({"phase": torch.zeros(8)}, r"phase has shape \(8,\), expected \(9,\)"),
        ({"noise": torch.zeros(9, 5)}, r"noise has shape \(9, 5\), expected \(9, 1024\)"),
    ],
)
def test_wrong_arrays_are_named(vocoder, change, message):
    with pytest.raises(ValueError, match=message):
        vocoder.vocode(**({"mel": torch.zeros(80, 4)} | change))


def test_a_stream_that_ended_takes_no_more(vocoder):
    stream = vocoder.stream()
    stream.push(torch.zeros(80, 30), last=True)
    with pytest.raises(ValueError, match="has ended"):
        stream.push(torch.zeros(80, 1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base_channels", None, "base_channels"),
        ("upsample_rates", [8], "upsample_kernel_sizes"),
        ("upsample_rates", [8, -1], "upsample_rates"),
        ("nb_harmonics", "eight", "nb_harmonics"),
    ],
)
def test_a_wrong_config_field_is_named(goldens, field, value, message):
    path = goldens / "speech_decoder" / "config.yaml"
    config = dict(read_yaml(path)["hift"])
    config[field] = value
    with pytest.raises(CheckpointError, match=message):
        Vocoder.from_config(config, path)


def test_weight_norm_survives_export(goldens):
    stored = read_pickle(goldens / "speech_decoder" / "hift.pt")
    names = [name.removesuffix(".weight_g") for name in stored if name.endswith(".weight_g")]
    folded = fold_weight_norm(stored)
    again = fold_weight_norm(unfold_weight_norm(folded, names))
    assert set(unfold_weight_norm(folded, names)) == set(stored)
    for name, value in folded.items():
        assert torch.allclose(again[name], value, atol=1e-6), name
