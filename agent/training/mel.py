"""The decoder's acoustic features: log mel at 22.05 kHz, and the pitch the vocoder learns from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch import Tensor

from agent.speech.features import mel_filters

SAMPLE_RATE, N_FFT, HOP, BINS, F_MAX = 22_050, 1024, 256, 80, 8000.0


_FILTERS = mel_filters(BINS, N_FFT, SAMPLE_RATE, F_MAX)
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
