"""Discriminators of waveforms, for the second stage of a vocoder's training.

Periods: a waveform laid out in rows of p samples, so that what repeats every p samples stands in
columns (HiFi-GAN, arXiv 2010.05646, section 2.3). Resolutions: magnitude spectrograms at three
sizes of window (UnivNet, arXiv 2106.07889, section 2.2). Losses: least squares (arXiv 1611.04076)
and the distance of the discriminators' features (2010.05646, section 2.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""n_fft, hop and window of each."""
# Judgement, and what each layer saw on the way to it.
Opinion = tuple[Tensor, list[Tensor]]


class PeriodDiscriminator(nn.Module):
    """Judges a waveform by what happens every so many samples.

    Args:
        period: Samples.
        width: Channels of the first layer; 32 as published, and 32 times as many in the last.
    """

    def __init__(self, period: int, width: int = 32):
        super().__init__()
        self._period = period
        channels = (1, width, 4 * width, 16 * width, 32 * width)
        layers = [
            nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)) for a, b in itertools.pairwise(channels)
        ]
        layers.append(nn.Conv2d(channels[-1], channels[-1], (5, 1), padding=(2, 0)))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> Opinion:
        """Judge [b, n]."""
        missing = -audio.shape[-1] % self._period
        padded = F.pad(audio[:, None], (0, missing), mode="reflect")
        x = padded.view(*padded.shape[:-1], -1, self._period)
        return _judged(x, self.layers, self.last, slope=0.1)


class ResolutionDiscriminator(nn.Module):
    """Judges a waveform by its magnitude spectrogram.

    Args:
        resolution: n_fft, hop and window.
        width: Channels; 32 as published.
    """

    window: Tensor

    def __init__(self, resolution: tuple[int, int, int], width: int = 32):
        super().__init__()
        self._n_fft, self._hop, length = resolution
        self.register_buffer("window", torch.hann_window(length), persistent=False)
        layers = [nn.Conv2d(1, width, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(width, width, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)]
        layers.append(nn.Conv2d(width, width, (3, 3), padding=(1, 1)))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def forward(self, audio: Tensor) -> Opinion:
        """Judge [b, n]."""
        spectrum = torch.stft(
            audio,
            self._n_fft,
            self._hop,
            len(self.window),
            self.window,
            return_complex=True,
        )
        # The floor keeps the gradient of silence finite.
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return _judged(magnitude[:, None], self.layers, self.last, slope=0.2)


def _judged(x: Tensor, layers: nn.ModuleList, last: nn.Module, slope: float) -> Opinion:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return last(x), features


class Discriminators(nn.Module):
    """All of them.

    Args:
        width: Channels of the first layers; 32 as published.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, width) for period in PERIODS),
                *(ResolutionDiscriminator(resolution, width) for resolution in RESOLUTIONS),
            ]
        )

    def forward(self, audio: Tensor) -> list[Opinion]:
        """What each thinks of [b, n]."""
        return [part(audio) for part in self.parts]


def telling_apart(true: Sequence[Opinion], made: Sequence[Opinion]) -> Tensor:
    """The discriminators' loss: recordings are to be judged 1, what is made 0."""
    losses = [
        (real - 1).square().mean() + fake.square().mean()
        for (real, _), (fake, _) in zip(true, made, strict=True)
    ]
    return torch.stack(losses).sum()


def passing(made: Sequence[Opinion]) -> Tensor:
    """The generator's loss: what it makes is to be judged 1."""
    return torch.stack([(fake - 1).square().mean() for fake, _ in made]).sum()


def feature_distance(true: Sequence[Opinion], made: Sequence[Opinion]) -> Tensor:
    """Mean absolute difference of the features, summed over all layers."""
    distances = [
        (a.detach() - b).abs().mean()
        for (_, ours), (_, theirs) in zip(true, made, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(distances).sum()
