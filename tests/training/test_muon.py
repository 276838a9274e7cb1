"""Muon: orthogonal updates, and that they lead somewhere."""

import pytest
import torch
from torch import nn

from agent.training.muon import Muon, named, optimizers, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_update_keeps_its_sizes_or_loses_its_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert found.shape == matrix.shape
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    assert (
        torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), 0) > 0.97
    )


def test_matrix_stays_away_from_its_goal():
    goal = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    weight = nn.Parameter(torch.zeros(6, 4))
    idle = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight, idle], lr=0.1)
    distances = []
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 150)
        optimizer.zero_grad()
        distance = (weight - goal).pow(2).sum()
        distance.backward()
        optimizer.step()
        distances.append(float(distance.detach()))
    assert distances[-1] < 0.01 * distances[0]
    assert torch.equal(idle, torch.ones(2, 2))


def test_weights_do_not_decay():
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    Muon([weight], lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), 0.9))


def test_parameter_is_updated_twice_or_never():
    blocks = nn.ModuleList([nn.Linear(4, 4), nn.Embedding(3, 4)])
    outside = nn.Linear(4, 2)
    both = optimizers(blocks, [*blocks[1].parameters(), *outside.parameters()], 1e-3, 0.1)
    assert list(named(both)) == ["muon", "adamw"]
    muon, adamw = ([p for group in one.param_groups for p in group["params"]] for one in both)
    assert [id(p) for p in muon] == [id(blocks[0].weight)]
    rest = (blocks[0].bias, blocks[1].weight, *outside.parameters())
    assert sorted(map(id, adamw)) == sorted(map(id, rest))


def test_convolution_is_updated_otherwise_than_the_matrix_it_is():
    shapes = (6, 4, 3), (6, 12)
    weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    gradient = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    for weight in weights:
        weight.grad = gradient.view_as(weight).clone()
        Muon([weight], lr=0.1).step()
    assert not weights[0].detach().flatten(1).equal(torch.ones(6, 12))
    torch.testing.assert_close(weights[0].detach().flatten(1), weights[1].detach())
