"""That variation keeps track of time and leaves sounds where they belong."""

import numpy as np
import torch

from agent.training.augment import mask_spectrum, running_maximum, vary


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_varied_speech_says_where_a_moment_went() -> None:
    audio = 0.001 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    audio[24_000:24_400] = tone(800, 0.025)
    for seed in range(20):
        varied = vary(audio, np.random.default_rng(seed), 1.0)
        middle = varied.start + (24_200 / 16_000) / varied.speed
        smooth = np.convolve(varied.audio**2, np.ones(400), "same")
        assert abs(int(smooth.argmax()) / 16_000 - middle) < 0.01
        assert 0.85 < varied.speed < 1.19


def test_no_strength_leaves_the_pace_alone_but_for_rounding_to_fast_lengths() -> None:
    for seed in range(10):
        varied = vary(tone(500), np.random.default_rng(seed), 0.0)
        assert abs(varied.speed - 1.0) < 0.05


def test_masks_grow_with_strength() -> None:
    mel = torch.rand(4, 64, 300) + 1.0
    untouched = mask_spectrum(mel.clone(), np.random.default_rng(0), 0.0)
    masked = mask_spectrum(mel.clone(), np.random.default_rng(0), 1.0)
    assert (untouched == mel).all()
    assert 0 < int((masked != mel).sum()) < mel.numel() // 2


def test_running_maximum_is_what_a_stream_knows_at_the_end_of_each_block() -> None:
    log_mel = torch.zeros(1, 2, 10)
    log_mel[0, 1, 2], log_mel[0, 0, 5], log_mel[0, 0, 9] = 1.0, 3.0, 2.0
    found = running_maximum(log_mel, 4)
    assert found.tolist() == [[[1.0] * 4 + [3.0] * 6]]
