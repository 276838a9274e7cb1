"""Lines over an axis, as the page draws them: what goes where, in shares of the drawing."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Chart:
    """Some lines over the same places of one axis.

    Attributes:
        title: What is shown.
        x_name: What the axis counts, with its unit.
        y_unit: The unit of all lines.
        x: The places, ascending.
        lines: For each line's name a value for each place; None where there is none.
        limit: A value that should not be exceeded, or None.
    """

    title: str
    x_name: str
    y_unit: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, values in self.lines.items():
            if len(values) != len(self.x):
                raise ValueError(f"{name}: expected {len(self.x)} values, got {len(values)}")

    @property
    def y_ticks(self) -> list[float]:
        """Round values from zero to above everything."""
        values = [v for line in self.lines.values() for v in line if v is not None]
        top = max([*values, self.limit or 0.0, 1e-9])
        return _ticks(0.0, top * 1.02)

    @property
    def x_ticks(self) -> list[float]:
        """Round places on the axis; all that there are, if they are few."""
        if len(self.x) <= 8:
            return list(self.x)
        low, high = self.x[0], self.x[-1]
        return [tick for tick in _ticks(low, high) if low <= tick <= high]

    def left(self, x: float) -> float:
        """How far to the right a place lies, from 0 to 1."""
        low, high = self.x[0], self.x[-1]
        return (x - low) / (high - low) if high > low else 0.5

    def up(self, y: float) -> float:
        """How high a value lies, from 0 to 1."""
        return y / self.y_ticks[-1]

    def points(self, name: str) -> list[tuple[float, float]]:
        """Where the values of a line lie: (``left``, ``up``)."""
        values = zip(self.x, self.lines[name], strict=True)
        return [(self.left(x), self.up(y)) for x, y in values if y is not None]

    def path(self, name: str) -> str:
        """A line as an SVG path in a square of 1000 by 1000; broken where values are missing."""
        values = zip(self.x, self.lines[name], strict=True)
        pieces = []
        for known, group in itertools.groupby(values, lambda pair: pair[1] is not None):
            if known:
                corners = [
                    f"{1000 * self.left(x):.1f} {1000 - 1000 * self.up(y):.1f}"
                    for x, y in group
                    if y is not None
                ]
                pieces.append("M" + "L".join(corners))
        return "".join(pieces)


def _ticks(low: float, high: float) -> list[float]:
    return [float(t) for t in MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)]
