"""Log-mel features against Whisper's, and the promises that streaming builds on."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from agent.speech.features import LogMel, mel_filters, normalise


@pytest.fixture(scope="module")
def speech(goldens: Path) -> torch.Tensor:
    samples, _ = soundfile.read(goldens / "wav" / "speech_1s7.flac", dtype="float32")
    padded = -(-len(samples) // 1280) * 1280
    return torch.from_numpy(np.pad(samples, (0, padded - len(samples))))[None]


def test_mel_is_the_references(goldens: Path, speech: torch.Tensor) -> None:
    expected = np.load(goldens / "expected" / "tokenizer_speech_1s7.npz")["mel"]
    raw = LogMel(128).whole(speech)
    mel = normalise(raw, raw.amax())
    assert mel.shape == expected.shape
    assert expected.std() > 0.1
    np.testing.assert_allclose(mel.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("bands", [64, 128])
def test_every_filter_hears_something_and_has_unit_area(bands: int) -> None:
    filters = mel_filters(bands, 400)
    assert filters.shape == (bands, 201)
    assert (filters >= 0).all()
    # Bins are 40 Hz apart. Narrow filters are sampled too coarsely for their area to be exact.
    areas = filters.sum(1) * 40.0
    assert (areas[bands // 2 :] - 1.0).abs().max() < 0.1
    assert (filters.amax(1) > 0).all()


def test_a_tone_lands_in_the_band_of_its_frequency() -> None:
    time = torch.arange(16_000) / 16_000
    mel = LogMel(64).frames(torch.sin(2 * torch.pi * 1000.0 * time))
    filters = mel_filters(64, 400)
    assert mel.mean(1).argmax() == filters[:, 25].argmax()  # bin 25 is 1 kHz


def test_frames_of_a_part_are_the_frames_of_the_whole(speech: torch.Tensor) -> None:
    log_mel = LogMel(128)
    whole = log_mel.whole(speech)
    first, last = 40, 90
    part = speech[:, first * 160 - 200 : last * 160 + 200]
    torch.testing.assert_close(log_mel.frames(part), whole[..., first : last + 1])


def test_batches_do_not_mix(speech: torch.Tensor) -> None:
    log_mel = LogMel(128)
    other = speech.flip(-1)
    both = log_mel.whole(torch.cat([speech, other]))
    torch.testing.assert_close(both[1:], log_mel.whole(other))


def test_clamp_is_80_db_below_the_maximum_it_is_given() -> None:
    log_mel = torch.tensor([[[-10.0, -5.0, 1.0]]])
    found = normalise(log_mel, torch.tensor(2.0))
    torch.testing.assert_close(found, torch.tensor([[[-0.5, -0.25, 1.25]]]))
