"""Layers over [batch, time, channels] against torch's own over [batch, channels, time]."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agent.speech.time_major import arrange, convolve, double, group_norm, mish


@pytest.mark.parametrize("arranged", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 3, 68, 69])
@torch.inference_mode()
def test_a_convolution_is_torchs(arranged, stride, length):
    layer = nn.Conv1d(5, 7, 3, stride, padding=1)
    if arranged:
        arrange(nn.Sequential(layer))
    x = torch.randn(2, length, 5)
    expected = layer(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(convolve(x, layer.weight, layer.bias, stride), expected, atol=1e-5)


@torch.inference_mode()
def test_a_convolution_may_be_taken_apart_by_channels():
    layer = nn.Conv1d(5, 7, 3, padding=1)
    x = torch.randn(2, 9, 5)
    rest = convolve(x[..., 2:], layer.weight[:, 2:], layer.bias)
    whole = convolve(x[..., :2].contiguous(), layer.weight[:, :2], None, base=rest)
    assert torch.allclose(whole, convolve(x, layer.weight, layer.bias), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 35])
@torch.inference_mode()
def test_doubling_is_torchs_transposed_convolution(length):
    layer = nn.ConvTranspose1d(5, 7, 4, stride=2, padding=1)
    x = torch.randn(2, length, 5)
    expected = layer(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(double(x, layer), expected, atol=1e-5)


@torch.inference_mode()
def test_norm_and_activation_are_torchs():
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 9, 8) * 3 + 1
    expected = norm(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(group_norm(x, norm), expected, atol=1e-5)
    wide = torch.linspace(-120, 120, 4001)
    assert torch.allclose(mish(wide), F.mish(wide), rtol=1e-5, atol=1e-6)


def test_arranging_changes_neither_shapes_nor_values():
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(4, 2, 4), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arrange(model)
    arrange(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model[0].weight.transpose(1, 2).is_contiguous()
