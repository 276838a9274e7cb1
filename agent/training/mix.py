"""Examples drawn from several sources in fixed shares of the ids, so that a run can resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.training.examples import Example
from agent.training.shards import Order


@dataclass(frozen=True)
class Source:
    """Where one kind of example comes from.

    Attributes:
        share: Of the ids; the shares of a mix need not add up to 1.
        indices: Samples to draw from, each once an epoch.
        example: Makes the example of a sample, with random numbers of its own; None where the
            sample cannot be used.
    """

    share: float
    indices: Sequence[int]
    example: Callable[[int, np.random.Generator], Example | None]


class Mix:
    """An endless sequence of examples.

    Next comes a source whose ids are furthest behind its share, so the shares hold at any time to
    within an example's length. What comes follows from the seed and from how much has come.

    Args:
        sources: By name; those with a share of 0 are left out.
        seed: Of the orders and of what the examples draw.

    Raises:
        ValueError: A source has nothing to draw from, or there is none with a share.
    """

    def __init__(self, sources: Mapping[str, Source], seed: int):
        self._sources = {name: source for name, source in sources.items() if source.share > 0}
        if not self._sources:
            raise ValueError("no source has a share above 0")
        for name, source in self._sources.items():
            if not source.indices:
                raise ValueError(f"source {name!r} has no sample to draw from")
        self._seed = seed
        self._orders = {
            name: Order(source.indices, seed + number)
            for number, (name, source) in enumerate(self._sources.items())
        }
        self.drawn = dict.fromkeys(self._sources, 0)
        self.ids = dict.fromkeys(self._sources, 0)

    def next(self) -> Example:
        """Draw an example.

        Raises:
            ValueError: No sample of a source can be used.
        """
        name = min(self._sources, key=lambda n: self.ids[n] / self._sources[n].share)
        source = self._sources[name]
        # The rest of this epoch and the whole of the next.
        for _ in range(2 * len(source.indices)):
            place = self.drawn[name]
            rng = np.random.default_rng((self._seed, list(self._sources).index(name), place))
            example = source.example(self._orders[name][place], rng)
            self.drawn[name] += 1
            if example is not None:
                self.ids[name] += len(example.ids)
                return example
        raise ValueError(f"source {name!r}: none of its {len(source.indices)} samples can be used")

    def state_dict(self) -> dict[str, Any]:
        """How far each source has got."""
        return {"drawn": dict(self.drawn), "ids": dict(self.ids)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.drawn, self.ids = dict(state["drawn"]), dict(state["ids"])
