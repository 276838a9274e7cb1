"""The benchmark's table: what is held against a bar, and what is written down."""

import json

import pytest

from agent.bench.__main__ import write
from agent.bench.table import NOT_HERE, Bar, Figure, Measured, Report, Table


def figure(ours: float, against: float | str, bar: Bar | None) -> Figure:
    other = against if isinstance(against, str) else Measured((against,))
    return Figure("tokens ready", "mid-size", "s", Measured((ours,)), other, bar)


@pytest.mark.parametrize(
    ("bar", "ours", "met"),
    [
        (Bar("at most", 0.25), 0.5, True),
        (Bar("at most", 0.25), 0.6, False),
        (Bar("at least", 4.0), 8.0, True),
        (Bar("at least", 4.0), 7.9, False),
        (Bar("at most", 0.35, "ours"), 0.35, True),
        (Bar("at most", 0.35, "ours"), 0.36, False),
    ],
)
def test_a_bar_is_held_against_the_wrong_side(bar: Bar, ours: float, met: bool) -> None:
    assert figure(ours, 2.0, bar).met is met


def test_a_missing_reference_is_taken_for_a_failure_or_a_success() -> None:
    missing = figure(1.0, NOT_HERE, Bar("at most", 0.25))
    assert missing.ratio is None
    assert missing.met is None
    assert figure(0.3, NOT_HERE, Bar("at most", 0.35, "ours")).met is True


def test_a_single_outlier_decides_a_ratio() -> None:
    ours = Measured((1.0, 1.0, 50.0))
    row = Figure("x", "nano", "s", ours, Measured((2.0, 2.0, 2.0)), None)
    assert row.ratio == 0.5
    assert "1 (1 to 50) s" in row.cells()


def test_a_row_or_a_repetition_gets_lost_on_the_way_to_the_files(tmp_path) -> None:
    report = Report(
        {"machine": "a | b"},
        ("mid-size, same: everything",),
        (
            Table("Costs", ("steps", "factor"), (("6", "0.3"),), ("a note",)),
            Figure(
                "tokens ready",
                "mid-size",
                "s",
                Measured((0.1, 0.3)),
                Measured((1.0,)),
                Bar("at most", 0.25),
                note="of the row",
            ),
            figure(0.2, NOT_HERE, None),
        ),
    )
    folder = write(report, tmp_path)
    text = (folder / "table.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:4]}) == 1
    assert "| tokens ready | mid-size | 1 s | 0.2 (0.1 to 0.3) s | 0.2 | at most 0.25x | yes |" in (
        text
    )
    assert NOT_HERE in text
    for part in ("### Costs", "| 6 | 0.3 |", "- a note", "- of the row", "same: everything"):
        assert part in text
    value = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert value["figures"][0]["ours"]["values"] == [0.1, 0.3]
    assert value["figures"][0]["met"] is True
    assert value["figures"][1]["against"] == NOT_HERE
    assert value["tables"][0]["rows"] == [["6", "0.3"]]
