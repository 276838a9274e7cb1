"""What telephones and callers do to speech: random variation for training.

Sequences here are float32 [n] in [-1, 1]; in and out at 16 kHz, since that is what the tokenizer
takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import lfilter, resample_poly
from torch import Tensor

from agent.sound import PHONE_RATE, SAMPLE_RATE, Audio, mu_law


@dataclass(frozen=True)
class Augmented:
    """A varied utterance.

    Attributes:
        audio: float32 [n] at 16 kHz.
        start: Where the utterance begins in it, in seconds.
        speed: A moment t of the original is at ``start + t / speed``.
    """

    audio: Audio
    start: float
    speed: float


def _response(
    hz: npt.NDArray[np.float64], rng: np.random.Generator, strength: float
) -> npt.NDArray[np.float64]:
    """Gains of a random line: 150-350 to 3000-3700 Hz, tilted by up to 3 dB an octave."""
    low, high = rng.uniform(150.0, 350.0), rng.uniform(3000.0, 3700.0)
    if rng.random() > 0.8 * strength:
        low, high = 20.0, 3800.0
    rise = np.clip((hz - 0.7 * low) / (0.6 * low), 0.0, 1.0)
    fall = np.clip((high + 200.0 - hz) / 300.0, 0.0, 1.0)
    tilt = strength * rng.uniform(-3.0, 3.0) * np.log2(np.maximum(hz, 100.0) / 1000.0)
    gains: npt.NDArray[np.float64] = rise * fall * 10.0 ** (tilt / 20.0)
    return gains


def vary(audio: Audio, rng: np.random.Generator, strength: float = 1.0) -> Augmented:
    """Speak faster or slower and send it through a random phone line.

    At strength 1: speed 0.86-1.18 (pitch goes with it), band-pass and tilt, a level of -34 to
    -14 dB, silence around, coloured noise at 12-40 dB, mu-law. At 0: a wide, quiet line.
    """
    n = next_fast_len(len(audio) + SAMPLE_RATE // 20, real=True)
    at_phone_rate = n * PHONE_RATE / SAMPLE_RATE
    speed = 1.0 + strength * rng.uniform(-0.14, 0.18)
    m = next_fast_len(int(at_phone_rate / speed), real=True)
    speed = at_phone_rate / m
    # Cutting the spectrum resamples by any ratio; the filter comes for free.
    spectrum = rfft(audio, n)[: m // 2 + 1]
    hz = np.arange(len(spectrum)) * (PHONE_RATE / m)
    line = irfft(spectrum * _response(hz, rng, strength), m)[: int(len(audio) * m / n)] * (m / n)
    level = 10.0 ** ((-24.0 + strength * rng.uniform(-10.0, 10.0)) / 20.0)
    line *= level / max(float(np.sqrt(np.mean(line**2))), 1e-6)
    longest = 0.8 if rng.random() < 0.3 else 0.2
    before, after = (int(rng.uniform(0.0, s) * PHONE_RATE) for s in (longest, 0.2))
    line = np.pad(line, (before, after))
    if rng.random() < 0.85 * strength:
        colour = rng.uniform(-0.3, 0.9)
        noise = lfilter([1.0], [1.0, -colour], rng.standard_normal(len(line)))
        noise *= np.sqrt(1.0 - colour**2)
        line = line + noise * level * 10.0 ** (-(40.0 - strength * rng.uniform(0.0, 28.0)) / 20.0)
    coded = line.astype(np.float32)
    if rng.random() < 0.75:
        coded = mu_law(coded)
    wide = resample_poly(coded, SAMPLE_RATE // PHONE_RATE, 1).astype(np.float32)
    return Augmented(wide, before / PHONE_RATE, speed)


def mask_spectrum(mel: Tensor, rng: np.random.Generator, strength: float = 1.0) -> Tensor:
    """Log-mel [batch, n_mels, frames] with bands and moments blanked (Park 2019)."""
    batch, n_mels, frames = mel.shape
    blank = _spans(rng, batch, n_mels, 9, n_mels, strength)[:, :, None]
    for _ in range(2):
        blank = blank | _spans(rng, batch, frames, 17, frames // 8, strength)[:, None]
    floors = mel.amin(dim=(1, 2), keepdim=True)
    return torch.where(torch.from_numpy(blank).to(mel.device), floors, mel)


def _spans(
    rng: np.random.Generator, count: int, size: int, below: int, most: int, strength: float
) -> npt.NDArray[np.bool_]:
    """One span in each of ``count`` rows of ``size``: shorter than ``below``, ``most`` at most."""
    lengths = np.minimum((strength * rng.integers(0, below, count)).astype(int), most)
    starts = rng.integers(0, size - lengths)
    places = np.arange(size)
    inside: npt.NDArray[np.bool_] = places >= starts[:, None]
    inside &= places < (starts + lengths)[:, None]
    return inside


def running_maximum(log_mel: Tensor, block: int) -> Tensor:
    """The maximum that a stream knows when it computes each block.

    Args:
        log_mel: float32 [batch, n_mels, frames], before the clamp.
        block: Frames in a block.

    Returns:
        float32 [batch, 1, frames]: at each frame the maximum up to the end of its block.
    """
    frames = log_mel.shape[-1]
    so_far = log_mel.amax(dim=1, keepdim=True).cummax(dim=-1).values
    ends = (torch.arange(frames, device=log_mel.device) // block + 1) * block - 1
    return so_far[..., ends.clamp(max=frames - 1)]
