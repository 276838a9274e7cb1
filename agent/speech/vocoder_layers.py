"""Layers of the vocoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def same(channels: int, out: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(channels, out, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """Snake: x + sin^2(alpha x) / alpha (arXiv 2006.08195); ``alpha`` is broadcast over x."""
    sine = torch.sin(alpha * x)
    return torch.addcmul(x, sine, sine * (alpha + 1e-9).reciprocal())


class Snake(nn.Module):
    """``snake`` with one alpha a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, t] -> [b, c, t]."""
        return snake(x, self.alpha[:, None])


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(same(channels, channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(same(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, t] -> [b, c, t]."""
        for act1, conv1, act2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(act2(conv1(act1(x))))
        return x


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer: mel to the fundamental in Hz."""

    def __init__(self, mel_channels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(5):
            layers += [same(channels if index else mel_channels, channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel [b, 80, f] -> fundamental [b, f] in Hz."""
        return self.head(self.condnet(mel).transpose(1, 2))

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden [b, f, c] -> fundamental [b, f] in Hz."""
        f0: Tensor = self.classifier(hidden).squeeze(-1)
        return f0.abs()


class HarmonicSource(nn.Module):
    """Sines at the fundamental and its harmonics, with noise, merged into one excitation."""

    def __init__(self, harmonics: int) -> None:
        super().__init__()
        self.l_linear = nn.Linear(harmonics + 1, 1)

    def forward(self, sines: Tensor) -> Tensor:
        """[b, harmonics + 1, t] -> [b, 1, t]."""
        return torch.tanh(self.l_linear.weight @ sines + self.l_linear.bias)
