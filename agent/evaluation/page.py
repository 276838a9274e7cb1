"""A run's report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from agent.evaluation.plots import plots
from agent.evaluation.report import (
    HEADER,
    PAPER_HEADER,
    PAPER_TITLE,
    TITLES,
    Report,
    paper_rows,
    row,
)
from agent.evaluation.results import TaskResult

_MOST_ITEMS = 200
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #2a6f97; }
table { border-collapse: collapse; margin: 0.8rem 0; font-size: 0.92rem; }
th, td { text-align: left; padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd;
  vertical-align: top; }
th { background: #eef3f6; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.paper, td.paper { color: #a03c27; }
.absent { color: #a03c27; font-weight: bold; }
svg { max-width: 100%; height: auto; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; }
"""


def page(report: Report) -> str:
    """The whole page."""
    settings = [(name, str(value)) for name, value in report.settings.items()]
    about = [("checkpoint", report.checkpoint), ("data", report.data), *settings]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Evaluation</h1>",
        _table((), about),
        *(_section(result) for result in report.results),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(result: TaskResult) -> str:
    parts = [f"<h2>{escape(TITLES[result.task])} <small>({result.task})</small></h2>"]
    if result.figures:
        rows = [row(result.task, figure) for figure in result.figures]
        parts.append(_table(HEADER, rows, numbers=(2, 3, 4, 5), paper=5))
        parts += plots(result)
    else:
        parts.append('<p class="absent">Not run.</p>')
    if result.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
        parts.append(f"<ul>{notes}</ul>")
    if published := paper_rows(result.task):
        table = _table(PAPER_HEADER, published, numbers=(2, 3), paper=2)
        parts.append(f'<details><summary class="paper">{PAPER_TITLE}</summary>{table}</details>')
    if result.items:
        parts.append(_items(result.items))
    return "\n".join(parts)


def _items(items: Sequence[dict[str, Any]]) -> str:
    shown = items[:_MOST_ITEMS]
    names = list(dict.fromkeys(name for item in shown for name in item))
    rows = [[_cell(item.get(name, "")) for name in names] for item in shown]
    title = f"{len(items)} items"
    if len(shown) < len(items):
        title += f" (the first {len(shown)}; all are in report.json)"
    return f"<details><summary>{title}</summary>{_table(names, rows)}</details>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int] = (),
    paper: int | None = None,
) -> str:
    lines = ["<table>"]
    if header:
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>")
    for cells in rows:
        line = ""
        for column, cell in enumerate(cells):
            kinds = ["number"] * (column in numbers) + ["paper"] * (column == paper)
            mark = f' class="{" ".join(kinds)}"' if kinds else ""
            line += f"<td{mark}>{escape(cell)}</td>"
        lines.append(f"<tr>{line}</tr>")
    return "\n".join([*lines, "</table>"])
