"""Low-rank adaptation of linear layers (arXiv 2106.09685): a few numbers learn, the rest stays.

A layer's output W x becomes W x + (alpha / rank) B A x, with W frozen, A [rank, in] random and
B [out, rank] zero at first, so that nothing changes before the first step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from agent.speech.checkpoint import CheckpointError
from agent.training.recipe import Section

ADAPTER_FILE = "adapter.safetensors"


class Lora(Section):
    """What is adapted, and how much.

    Attributes:
        rank: Of the change.
        alpha: The change counts alpha / rank times.
        targets: Last parts of the names of the linear layers, such as ``query_key_value``.
    """

    rank: int
    alpha: float
    targets: list[str]


class AdaptedLinear(nn.Module):
    """A frozen linear layer and its low-rank change, which is kept and computed in float32."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.base = base.requires_grad_(False)
        self._scale = alpha / rank
        device = base.weight.device
        start = torch.empty(rank, base.in_features)
        nn.init.uniform_(start, -1.0, 1.0, generator=generator)
        self.lora_a = nn.Parameter((start / math.sqrt(base.in_features)).to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to [..., in]."""
        y: Tensor = self.base(x)
        change = (x.to(self.lora_a.dtype) @ self.lora_a.T) @ self.lora_b.T
        return y + (self._scale * change).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with the change added to its weight."""
        change = self._scale * (self.lora_b @ self.lora_a)
        self.base.weight += change.to(self.base.weight.dtype)
        return self.base


def adapt(model: nn.Module, settings: Lora, seed: int) -> list[str]:
    """Freeze a model and put adapters over the layers that the settings name.

    Returns:
        Names of the adapted layers.

    Raises:
        ValueError: A target names no linear layer.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in settings.targets
    ]
    for target in settings.targets:
        if not any(name.rpartition(".")[2] == target for name in found):
            layers = {n.rpartition(".")[2] for n, m in model.named_modules() if _linear(m)}
            raise ValueError(
                f"lora.targets: no linear layer is called {target!r}, "
                f"there are {', '.join(sorted(layers))}"
            )
    for name in found:
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        _put(model, name, AdaptedLinear(base, settings.rank, settings.alpha, generator))
    return found


def merge(model: nn.Module) -> None:
    """Turn every adapted layer back into a plain one that gives the same."""
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear):
            _put(model, name, module.merged())


def save(model: nn.Module, settings: Lora, path: Path) -> None:
    """Write the adapters alone, as safetensors; the settings go into the file's metadata."""
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if _is_adapter(name)
    }
    save_file(tensors, path, metadata={"lora": settings.model_dump_json()})


def load(model: nn.Module, path: str | Path) -> None:
    """Put saved adapters over a model's layers.

    Raises:
        CheckpointError: The file is damaged, holds no adapters or those of another model.
    """
    try:
        with safe_open(path, "pt") as file:
            settings = Lora(**json.loads((file.metadata() or {})["lora"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own kinds; all mean one thing here
        raise CheckpointError(f"{path}: not a file of adapters ({error})") from error
    adapt(model, settings, seed=0)
    own = {n: v for n, v in model.state_dict().items() if _is_adapter(n)}
    for name in own.keys() | tensors.keys():
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise CheckpointError(f"{path}: tensor {name!r} does not fit the model")
    model.load_state_dict(tensors, strict=False)


def _is_adapter(name: str) -> bool:
    return name.endswith((".lora_a", ".lora_b"))


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def parameters(model: nn.Module) -> Sequence[nn.Parameter]:
    """What learns."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
