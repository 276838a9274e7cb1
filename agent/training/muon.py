"""Muon: momentum whose matrices are made orthogonal before they are added (Jordan et al. 2024)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# Of the quintic that pushes all singular values towards 1 when it is applied a few times.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """For matrices inside a network, in float32; convolutions count as matrices [out, in * width].

    Torch's own computes in bfloat16, which many CPUs emulate: a nano step took 8 s instead of 2.
    Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one
    learning rate fits both.

    Args:
        params: Matrices, or tensors with more dimensions.
        lr: Learning rate.
        weight_decay: Share of the weights that goes at a rate of 1.
        momentum: Of the gradients' running mean.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update on the gradients there are."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            # Those of one shape together: to a GPU each alone would be next to nothing.
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.flatten(1).shape].append(parameter)
            for shape, parameters in alike.items():
                gradients = [p.grad for p in parameters if p.grad is not None]
                means = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if not state:
                        state["mean"] = torch.zeros_like(parameter)
                    means.append(state["mean"])
                torch._foreach_lerp_(means, gradients, 1 - momentum)
                ahead = torch._foreach_lerp(gradients, means, momentum)
                updates = orthogonal(torch.stack([one.flatten(1) for one in ahead]))
                torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
                size = 0.2 * math.sqrt(max(shape))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.add_(update.view_as(parameter), alpha=-rate * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrices [..., n, m] whose singular values are all alike, near 1."""
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    x: Tensor = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = _LINEAR * x + (_CUBIC * square + _QUINTIC * square @ square) @ x
    return x if wide is matrix else x.mT


def optimizers(
    inside: nn.Module,
    outside: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside a network, AdamW for all the rest.

    Args:
        inside: The network or what is inside of it.
        outside: Embeddings and output layers, whether or not they are part of it.
        learning_rate: At its peak.
        weight_decay: Of both.
    """
    outer = list(outside)
    apart = set(map(id, outer))
    inner = [p for p in inside.parameters() if id(p) not in apart]
    matrices = [p for p in inner if p.ndim > 1]
    rest = [*(p for p in inner if p.ndim == 1), *outer]
    adamw = torch.optim.AdamW(
        rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
    )
    return [Muon(matrices, learning_rate, weight_decay), adamw]


def named(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
    """Optimizers by the names under which a training keeps them."""
    return {type(optimizer).__name__.lower(): optimizer for optimizer in optimizers}
