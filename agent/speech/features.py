"""Log-mel features as Whisper computes them, in PyTorch, for whole waveforms and frame by frame.

The transform is Whisper's (Radford et al. 2022, arXiv 2212.04356, section 2.2): power spectrum
under a Hann window of ``n_fft`` samples every ``hop`` samples, triangular filters on Slaney's mel
scale with unit area (Slaney 1998, Auditory Toolbox), log10 floored at 1e-10, clamped to 8 below
the maximum, then ``(x + 4) / 4``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE = 16_000
# log10 units kept below the loudest value: 80 dB.
DYNAMIC_RANGE = 8.0

_LINEAR_HZ = 200.0 / 3.0  # Slaney's scale is linear up to 1 kHz, 15 mel,
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0  # and logarithmic above: 27 mel for a factor of 6.4.


def _hz_to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _BREAK_HZ / _LINEAR_HZ + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    break_mel = _BREAK_HZ / _LINEAR_HZ
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * _LINEAR_HZ, above)


def mel_filters(
    n_mels: int, n_fft: int, sample_rate: int = SAMPLE_RATE, highest: float | None = None
) -> Tensor:
    """Triangular filters of unit area on Slaney's mel scale, from 0 Hz to the highest frequency.

    That is half the sample rate unless given.

    Returns:
        float32 [n_mels, n_fft // 2 + 1].
    """
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    limits = _hz_to_mel(np.array([0.0, highest or sample_rate / 2]))
    edges = _mel_to_hz(np.linspace(limits[0], limits[1], n_mels + 2))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


class LogMel:
    """log10 mel spectra of 16 kHz waveforms, before the clamp.

    The clamp needs the maximum of a whole segment, which a stream does not know: see `normalise`.

    Args:
        n_mels: Number of mel filters: 128 in the published checkpoint.
        n_fft: Window and transform length in samples.
        hop: Samples between frames.
        device: Where to compute.
    """

    def __init__(
        self,
        n_mels: int,
        n_fft: int = 400,
        hop: int = 160,
        device: str | torch.device = "cpu",
    ):
        self.n_fft = n_fft
        self.hop = hop
        self._window = torch.hann_window(n_fft, device=device)
        self._filters = mel_filters(n_mels, n_fft).to(device)

    def frames(self, samples: Tensor) -> Tensor:
        """Spectra of every full window; frame t covers samples ``[t * hop, t * hop + n_fft)``.

        Args:
            samples: float32 [..., n] with n >= n_fft.

        Returns:
            float32 [..., n_mels, (n - n_fft) // hop + 1], log10 of the mel power.
        """
        windows = samples.unfold(-1, self.n_fft, self.hop) * self._window
        power = torch.fft.rfft(windows).abs().square()
        mel = torch.matmul(power, self._filters.T).transpose(-1, -2)
        return mel.clamp(min=1e-10).log10()

    def whole(self, samples: Tensor) -> Tensor:
        """Spectra of whole segments, frame t centred on sample ``t * hop``, ends mirrored.

        Args:
            samples: float32 [batch, n], n a multiple of hop and more than n_fft / 2.

        Returns:
            float32 [batch, n_mels, n // hop], log10 of the mel power.
        """
        half = self.n_fft // 2
        padded = functional.pad(samples[:, None], (half, half), mode="reflect")[:, 0]
        # Whisper drops the frame centred on the very end.
        return self.frames(padded)[..., : samples.shape[-1] // self.hop]


def normalise(log_mel: Tensor, maximum: Tensor) -> Tensor:
    """Clamp log10 mel to 8 below a maximum, then ``(x + 4) / 4``.

    Args:
        log_mel: float32 [..., n_mels, frames] as from `LogMel`.
        maximum: float32, broadcastable to log_mel: the segment's maximum, or of a stream so far.

    Returns:
        float32 of the shape of log_mel.
    """
    return (torch.maximum(log_mel, maximum - DYNAMIC_RANGE) + 4.0) / 4.0
