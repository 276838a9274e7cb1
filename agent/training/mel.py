"""The decoder's acoustic features: log mel at 22.05 kHz, and the pitch the vocoder learns from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch import Tensor

SAMPLE_RATE, N_FFT, HOP, BINS, F_MAX = 22_050, 1024, 256, 80, 8000.0


def mel_filters(
    sample_rate: int, n_fft: int, bins: int, f_min: float = 0.0, f_max: float | None = None
) -> Tensor:
    """Triangular filters on Slaney's mel scale, each of unit area in Hz.

    Returns:
        float32 [bins, n_fft // 2 + 1].
    """

    def to_mel(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        linear = hertz / (200 / 3)
        return np.where(
            hertz < 1000, linear, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
        )

    def to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mel < 15, mel * (200 / 3), 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))

    limits = to_mel(np.array([f_min, sample_rate / 2 if f_max is None else f_max]))
    edges = to_hertz(np.linspace(limits[0], limits[1], bins + 2))
    frequencies = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


_FILTERS = mel_filters(SAMPLE_RATE, N_FFT, BINS, 0.0, F_MAX)
_WINDOW = torch.hann_window(N_FFT)


def log_mel(audio: Tensor) -> Tensor:
    """Natural log of the mel magnitudes, floored at 1e-5, as the published decoder was trained on.

    Args:
        audio: float32 [..., n] at 22.05 kHz.

    Returns:
        float32 [..., 80, n // 256].
    """
    edge = (N_FFT - HOP) // 2
    shape = audio.shape
    padded = F.pad(audio.reshape(-1, 1, shape[-1]), (edge, edge), mode="reflect")[:, 0]
    window = _WINDOW.to(audio.device)
    spectrum = torch.stft(padded, N_FFT, HOP, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    mel = (_FILTERS.to(audio.device) @ magnitude).clamp(min=1e-5).log()
    return mel.reshape(*shape[:-1], BINS, mel.shape[-1])


def to_decoder_rate(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Resample float32 [n] from 16 kHz to 22.05 kHz."""
    return np.asarray(resample_poly(audio, 441, 320), dtype=np.float32)


def pitch(audio: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float32]:
    """Fundamental in Hz at the mel's frames, 0 where unvoiced (Praat's autocorrelation method).

    Args:
        audio: float32 [n] at 22.05 kHz.
        frames: Number of mel frames.

    Returns:
        float32 [frames].
    """
    import parselmouth  # only trainings need it

    sound = parselmouth.Sound(audio.astype(np.float64), SAMPLE_RATE)
    track = sound.to_pitch_ac(time_step=HOP / SAMPLE_RATE, pitch_floor=75.0, pitch_ceiling=400.0)
    times = track.xs()
    values = track.selected_array["frequency"]
    wanted = (np.arange(frames) + 0.5) * HOP / SAMPLE_RATE
    nearest = np.clip(np.searchsorted(times, wanted - HOP / SAMPLE_RATE / 2), 0, len(times) - 1)
    return np.asarray(values[nearest], dtype=np.float32)
