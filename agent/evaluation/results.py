"""What a task found: figures with how sure they are, and what kept it from finding more."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from agent.evaluation.items import Item

Better: TypeAlias = Literal["higher", "lower", ""]
_DRAWS = 1_000


@dataclass(frozen=True)
class Figure:
    """One number of a report.

    Attributes:
        name: What it is, the same for every set; docs/evaluation.md lists the names.
        set: The data set it is of.
        value: In its unit.
        unit: "%", "ms", "points" or another.
        count: Items behind it.
        low: Lower end of the 95 % interval, if there is one.
        high: Upper end.
        better: Which way is better, if either is.
    """

    name: str
    set: str
    value: float
    unit: str
    count: int
    low: float | None = None
    high: float | None = None
    better: Better = ""


@dataclass
class TaskResult:
    """What became of one task.

    Attributes:
        task: Its name.
        figures: Empty if it did not run.
        notes: What could not be measured and why, and what measured the rest.
        items: One record an item: what was asked, said and found.
    """

    task: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ran(self) -> bool:
        """Whether anything was measured."""
        return bool(self.figures)


AnyItem = TypeVar("AnyItem", bound=Item)


def by_set(items: Iterable[AnyItem]) -> dict[str, list[AnyItem]]:
    """Items of each set, in order."""
    groups: defaultdict[str, list[AnyItem]] = defaultdict(list)
    for item in items:
        groups[item.set].append(item)
    return dict(groups)


def share(name: str, part: str, right: Sequence[float]) -> Figure:
    """The share of items that are right (1; half right counts 0.5), in %.

    The interval is Wilson's (1927), which also holds for few items and for all or none right.
    """
    count, z = len(right), 1.96
    mean = sum(right) / count
    middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + (z / (2 * count)) ** 2)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Figure(name, part, 100 * mean, "%", count, 100 * low, 100 * high, "higher")


def error_rate(name: str, part: str, errors: Sequence[int], lengths: Sequence[int]) -> Figure:
    """Errors over the length of all references together, in %.

    The interval is the percentile bootstrap over items, with fixed random numbers.
    """
    wrong, long = np.array(errors), np.array(lengths)
    drawn = np.random.default_rng(0).integers(0, len(wrong), (_DRAWS, len(wrong)))
    rates = 100 * wrong[drawn].sum(axis=1) / np.maximum(long[drawn].sum(axis=1), 1)
    low, high = (float(end) for end in np.percentile(rates, (2.5, 97.5)))
    value = 100 * float(wrong.sum()) / max(1, int(long.sum()))
    return Figure(name, part, value, "%", len(wrong), low, high, "lower")


def mean(name: str, part: str, values: Sequence[float], unit: str, better: Better) -> Figure:
    """The mean with its bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(np.array(values)[drawn].mean(axis=1), (2.5, 97.5))
    middle = float(np.mean(values))
    return Figure(name, part, middle, unit, len(values), float(low), float(high), better)
