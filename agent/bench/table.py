"""What a benchmark found, as Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

NOT_HERE = "not on this machine"


@dataclass(frozen=True)
class Measured:
    """Repetitions of one measurement.

    Attributes:
        values: One a repetition, in the figure's unit.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Their median."""
        return statistics.median(self.values)

    def text(self, unit: str) -> str:
        """The median, and the lowest and highest where they were repeated."""
        shown = f"{self.median:.3g}"
        if len(self.values) > 1:
            shown += f" ({min(self.values):.3g} to {max(self.values):.3g})"
        return f"{shown} {unit}".strip()


@dataclass(frozen=True)
class Bar:
    """What a figure must reach.

    Attributes:
        kind: Which side of the limit is good.
        limit: Of the ratio, or of ours.
        of: What is held against the limit.
    """

    kind: Literal["at most", "at least"]
    limit: float
    of: Literal["ratio", "ours"] = "ratio"

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.limit if self.kind == "at most" else value >= self.limit

    def text(self, unit: str) -> str:
        """For the table."""
        return f"{self.kind} {self.limit:.3g}" + (f" {unit}" if self.of == "ours" else "x")


@dataclass(frozen=True)
class Figure:
    """One row: ours against something on the same weights in the same run.

    Attributes:
        name: What is measured.
        weights: On which weights.
        unit: Of both sides.
        ours: Our side.
        against: The other side, or why there is none.
        bar: What must be reached, if anything.
        other: What the other side is, where it is not the reference.
        note: What a reader needs to know of this row.
    """

    name: str
    weights: str
    unit: str
    ours: Measured
    against: Measured | str
    bar: Bar | None = None
    other: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the other side, by medians."""
        if isinstance(self.against, str) or not self.against.median:
            return None
        return self.ours.median / self.against.median

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None where there is none or nothing to hold against it."""
        value = self.ours.median if self.bar and self.bar.of == "ours" else self.ratio
        return None if self.bar is None or value is None else self.bar.met(value)

    def cells(self) -> tuple[str, ...]:
        """The row, as text."""
        against = self.against
        shown = against if isinstance(against, str) else against.text(self.unit)
        return (
            self.name,
            self.weights,
            f"{self.other}: {shown}" if self.other else shown,
            self.ours.text(self.unit),
            "-" if self.ratio is None else f"{self.ratio:.3g}",
            self.bar.text(self.unit) if self.bar else "-",
            {True: "yes", False: "no", None: "-"}[self.met],
            "-" if isinstance(against, str) else str(len(against.values)),
            str(len(self.ours.values)),
        )


@dataclass(frozen=True)
class Table:
    """Figures that have no other side: a table of their own.

    Attributes:
        title: Its heading.
        columns: Names of the columns.
        rows: Cells, ready to be read.
        notes: Below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


Result: TypeAlias = Figure | Table

_COLUMNS = ("figure", "weights", "reference", "ours", "ratio", "bar", "met", "n ref.", "n ours")


@dataclass(frozen=True)
class Report:
    """One run of the benchmark.

    Attributes:
        facts: Machine, versions and settings, by name.
        agreement: What was found equal on both sides before anything was timed.
        results: In the order of the groups.
    """

    facts: dict[str, str]
    agreement: tuple[str, ...]
    results: tuple[Result, ...]

    def markdown(self) -> str:
        """For reading."""
        figures = [result for result in self.results if isinstance(result, Figure)]
        lines = [f"- {name}: {value}" for name, value in self.facts.items()]
        lines += ["", *(f"- {line}" for line in self.agreement)]
        if figures:
            lines += ["", *_rows(_COLUMNS, [figure.cells() for figure in figures])]
            notes = {figure.note: None for figure in figures if figure.note}
            lines += ["", *(f"- {note}" for note in notes)] if notes else []
        for table in self.results:
            if isinstance(table, Table):
                lines += ["", f"### {table.title}", "", *_rows(table.columns, table.rows)]
                lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
        return "\n".join(lines) + "\n"

    def json(self) -> dict[str, Any]:
        """For programs: every repetition is in it."""
        figures = [
            asdict(figure) | {"ratio": figure.ratio, "met": figure.met}
            for figure in self.results
            if isinstance(figure, Figure)
        ]
        tables = [asdict(table) for table in self.results if isinstance(table, Table)]
        return {
            "facts": self.facts,
            "agreement": list(self.agreement),
            "figures": figures,
            "tables": tables,
        }


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
