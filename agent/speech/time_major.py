"""Layers over signals [batch, time, channels]: what a CPU runs fastest.

Convolutions become matrix products, attention and linear layers need no transposition. The layers
and their parameters are torch's own; only how they are computed differs. While gradients are
recorded, and off the CPU, torch computes them itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def arrange(module: nn.Module) -> None:
    """Put the weights of convolutions in memory as this module reads them: channels innermost.

    Shapes and values stay. Without it the results are the same, but each call copies the weight.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            weight = layer.weight.data
            layer.weight.data = weight.transpose(1, 2).contiguous().transpose(1, 2)


def _by_torch(x: Tensor) -> bool:
    return torch.is_grad_enabled() or x.device.type != "cpu"


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, base: Tensor | None = None
) -> Tensor:
    """Convolution of three taps with a sample of zero padding at either end.

    Args:
        x: [b, t, c].
        weight: As ``nn.Conv1d`` keeps it, [o, c, 3].
        bias: [o], or None.
        stride: Between the samples of the result.
        base: [b, t, o], added to the result; only with stride 1.

    Returns:
        [b, ceil(t / stride), o].
    """
    if _by_torch(x):
        y = F.conv1d(x.transpose(1, 2), weight, bias, stride, padding=1).transpose(1, 2)
        return y if base is None else y + base
    before, here, after = weight.unbind(-1)
    if base is None:
        y = F.linear(x[:, ::stride], here, bias)
    else:
        y = torch.addmm(base.flatten(0, 1), x.flatten(0, 1), here.t()).view(base.shape)
    for signal, out in zip(x, y, strict=True):
        later, earlier = signal[1::stride], signal[stride - 1 :: stride][: len(out) - 1]
        out[: len(later)].addmm_(later, after.t())
        out[1:].addmm_(earlier, before.t())
    return y


def double(x: Tensor, layer: nn.ConvTranspose1d) -> Tensor:
    """Transposed convolution of four taps, stride 2 and padding 1: twice as many samples.

    Args:
        x: [b, t, c].
        layer: From c to o channels.

    Returns:
        [b, 2 * t, o].
    """
    if _by_torch(x):
        y: Tensor = layer(x.transpose(1, 2))
        return y.transpose(1, 2)
    taps = x @ layer.weight.transpose(1, 2).flatten(1)
    taps = taps.view(*x.shape[:2], 4, layer.out_channels)
    assert layer.bias is not None
    pairs = taps[:, :, 1:3] + layer.bias
    pairs[:, 1:, 0] += taps[:, :-1, 3]
    pairs[:, :-1, 1] += taps[:, 1:, 0]
    return pairs.flatten(1, 2)


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Norm over all of time. [b, t, c] -> [b, t, c]."""
    # As an image of one row, for which torch has a kernel that reads channels innermost.
    image = F.group_norm(
        x.transpose(1, 2).unsqueeze(2), norm.num_groups, norm.weight, norm.bias, norm.eps
    )
    return image.squeeze(2).transpose(1, 2)


def mish(x: Tensor) -> Tensor:
    """Mish: x tanh(ln(1 + e^x)) (arXiv 1908.08681), of any shape.

    With n = e^x, tanh(ln(1 + n)) is m / (m + 2) where m = n (n + 2): one exponential, where torch
    takes a logarithm and a hyperbolic tangent besides and three times as long.
    """
    if _by_torch(x):
        return F.mish(x)
    n = x.clamp(max=20.0).exp_()  # beyond 20 the quotient is 1 in single precision
    m = (n + 2).mul_(n)
    return (m / (m + 2)).mul_(x)
