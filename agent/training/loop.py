"""What every recipe shares: a schedule, weight averaging, a log, checkpoints that resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
"""One, or several that share a network's parameters."""

_Drawn = TypeVar("_Drawn")

SAVE_EVERY = 120.0
"""Seconds between two saves of a training."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step, the same whether or not the run was stopped before it."""

    numpy: np.random.Generator
    torch: torch.Generator


class Loop:
    """Counts the steps of one training and keeps its files in one directory.

    ``last.pt`` holds everything a resumed run needs, ``log.jsonl`` a line for every report. What a
    step draws follows from the seed and its number alone, so that a run that was stopped and
    resumed ends with the same weights as one that was not.

    Args:
        out: The directory; made if missing.
        steps: Length of the training.
        lr: Peak learning rate; warmed up over ``warmup`` steps, then a cosine down.
        parts: What is saved and restored, by name (modules, optimizers, averages).
        seed: Of everything that is drawn.
        warmup: Steps.
        last: Share of the peak rate at the end.
    """

    def __init__(
        self,
        out: Path,
        steps: int,
        lr: float,
        parts: dict[str, Any],
        seed: int,
        warmup: int = 200,
        last: float = 0.02,
    ) -> None:
        self.out, self.steps, self.lr, self.parts, self.warmup = out, steps, lr, parts, warmup
        self.seed, self.last = seed, last
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)
        path = out / "last.pt"
        if path.is_file():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            self.step = saved["step"]
        self.started, self.first = time.monotonic(), self.step
        self.saved = self.started

    def begin(self) -> Draws:
        """Begin a step: save if it is time, and give the step its random numbers.

        Torch's own generator is seeded as well, for dropout.
        """
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()
        numbers = self.numbers(self.step)
        seed = int(numbers.integers(2**62))
        torch.manual_seed(seed)
        return Draws(numbers, torch.Generator().manual_seed(seed))

    def numbers(self, step: int) -> np.random.Generator:
        """The random numbers of any step."""
        return np.random.default_rng((self.seed, step))

    def drawn(
        self, draw: Callable[[int, np.random.Generator], _Drawn], until: int, workers: int
    ) -> Iterator[_Drawn]:
        """What the steps from the present one on learn from, each drawn with its own numbers.

        Args:
            draw: Draws it for one step, given its number.
            until: The step before which to end.
            workers: Processes that draw ahead; 0 draws here.
        """
        steps = _Steps(lambda step: draw(step, self.numbers(step)))
        yield from DataLoader(
            steps,
            batch_size=None,
            sampler=range(self.step, until),
            num_workers=workers,
            collate_fn=_as_it_is,
            multiprocessing_context="fork" if workers else None,
        )

    def rate(self) -> float:
        """Learning rate of the current step."""
        if self.step < self.warmup:
            return self.lr * (self.step + 1) / self.warmup
        progress = min(1.0, (self.step - self.warmup) / max(1, self.steps - self.warmup))
        return self.lr * (self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * progress)))

    def advance(self, optimizer: Optimizers, loss: Tensor, clip: float = 1.0) -> None:
        """Finish a step: update on ``loss`` and count."""
        self.update(optimizer, loss, clip)
        self.step += 1

    def update(self, optimizer: Optimizers, loss: Tensor, clip: float = 1.0) -> None:
        """One optimiser step on ``loss`` at the scheduled rate, with the gradient clipped."""
        using = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        groups = [group for one in using for group in one.param_groups]
        for group in groups:
            group["lr"] = self.rate()
        for one in using:
            one.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], clip)
        for one in using:
            one.step()

    def save(self) -> None:
        """Write ``last.pt``; a kill while writing leaves the previous one."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**state, "step": self.step}, self.out / "last.tmp")
        os.replace(self.out / "last.tmp", self.out / "last.pt")
        self.saved = time.monotonic()

    def report(self, **figures: float) -> None:
        """Append figures to the log and print them with the time that is left."""
        elapsed = time.monotonic() - self.started
        left = elapsed / max(1, self.step - self.first) * (self.steps - self.step)
        line = {"step": self.step, **{k: round(v, 5) for k, v in figures.items()}}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{self.step}/{self.steps}  {shown}  left {left / 60:.1f} min", flush=True)


class _Steps(Dataset[Any]):
    """What steps learn from, by their numbers."""

    def __init__(self, of: Callable[[int], Any]):
        self._of = of

    def __getitem__(self, step: int) -> Any:
        return self._of(step)


def _as_it_is(drawn: Any) -> Any:
    return drawn


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; faster in the first steps, when the start still weighs."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                self.values[name].lerp_(parameter, 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Set the module's parameters to the average."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self.values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return self.values

    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        """Take up saved averages."""
        for name, value in self.values.items():
            value.copy_(values[name])


def parameter_count(parts: Iterable[nn.Module]) -> int:
    """Number of parameters of some modules together."""
    return sum(p.numel() for part in parts for p in part.parameters())
