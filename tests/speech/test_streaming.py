"""Layers fed piece by piece against the same layers on the whole."""

import pytest
import torch
from torch import nn

from agent.speech.streaming import ConvStream, Join, TransposedConvStream

SIZES = [[40], [1] * 40, [3, 0, 20, 17], [39, 1, 0]]


def _fed(stream, x, sizes):
    pieces = torch.split(x, sizes, dim=1)
    return torch.cat(
        [stream.push(piece, index == len(pieces) - 1) for index, piece in enumerate(pieces)], dim=1
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 4, 7, dilation=3, padding=9),
        nn.Conv1d(3, 4, 8, stride=4, padding=2),
        nn.Conv1d(3, 4, 1, bias=False),
    ],
)
@torch.inference_mode()
def test_any_chunking_of_a_convolution_equals_whole(layer, sizes):
    x = torch.randn(1, 40, 3)
    whole = layer(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(_fed(ConvStream(layer), x, sizes), whole, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(16, 8, 4), (5, 2, 1), (4, 4, 0)])
@torch.inference_mode()
def test_any_chunking_of_a_transposed_convolution_equals_whole(kernel, stride, padding, sizes):
    layer = nn.ConvTranspose1d(3, 4, kernel, stride, padding)
    x = torch.randn(1, 40, 3)
    whole = layer(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(_fed(TransposedConvStream(layer), x, sizes), whole, atol=1e-5)


def test_branches_that_lag_by_turns_add_up_in_order():
    signals = torch.randn(3, 1, 20, 2)
    cuts = [[0, 9, 12, 20], [0, 2, 14, 20], [0, 5, 5, 20]]
    join = Join()
    sums = [
        join.push(
            *(
                signal[:, cut[turn] : cut[turn + 1]].clone()
                for signal, cut in zip(signals, cuts, strict=True)
            )
        )
        for turn in range(3)
    ]
    assert [piece.shape[1] for piece in sums] == [2, 3, 15]
    assert torch.allclose(torch.cat(sums, dim=1), signals.sum(0), atol=1e-6)


def test_a_join_overwrites_nothing_but_its_first_branch():
    own, other = torch.ones(1, 4, 2), torch.ones(1, 6, 2)
    join = Join()
    join.push(own, other)
    assert torch.equal(other, torch.ones(1, 6, 2))
    assert torch.equal(join.push(torch.ones(1, 2, 2), other[:, :0]), torch.full((1, 2, 2), 2.0))
