"""Pictures of figures, as SVG to be put into a page."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from agent.evaluation.latency import PARTS
from agent.evaluation.paper import published
from agent.evaluation.report import LABELS
from agent.evaluation.results import Figure, TaskResult

_OURS, _PAPER, _INK = "#7fb2cf", "#c8553d", "#333333"
_SHADES = ("#1b4965", "#5fa8d3", "#f4a259")
_WIDTH, _ROW = 8.0, 0.36


def plots(result: TaskResult) -> list[str]:
    """The SVG pictures of one task: its figures by unit, and its items where that tells more."""
    pictures = []
    if result.task == "latency":
        if result.ran:
            pictures.append(_parts(result))
        return pictures
    # Changes are small, go both ways and have units of their own: the table shows them better.
    drawn = [figure for figure in result.figures if not figure.name.startswith("change_")]
    for unit in dict.fromkeys(figure.unit for figure in drawn):
        figures = [figure for figure in drawn if figure.unit == unit]
        pictures.append(_bars(result.task, figures, unit))
    if result.task == "cloze":
        pictures += _margins(result)
    return pictures


def _bars(task: str, figures: Sequence[Figure], unit: str) -> str:
    """One bar a figure, its interval, and the paper's figure of the same set as a mark."""
    canvas, axes = _canvas(len(figures))
    rows = range(len(figures))
    axes.barh(rows, [figure.value for figure in figures], height=0.6, color=_OURS)
    for at, figure in zip(rows, figures, strict=True):
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [at, at], color=_INK, linewidth=1.2)
        if same := published(task, figure.name, figure.set):
            axes.plot(same.value, at, "D", color=_PAPER, markersize=6)
            axes.annotate(
                "paper", (same.value, at), (0, 7), textcoords="offset points", ha="center"
            )
    axes.set_yticks(rows, [f"{figure.set}: {LABELS[figure.name]}" for figure in figures])
    axes.set_xlabel({"%": "%", "of 10": "points of 10"}.get(unit, unit))
    if unit == "%" and all(figure.better == "higher" for figure in figures):
        axes.set_xlim(0.0, 100.0)
    else:
        axes.set_xlim(0.0, max(1.0, axes.get_xlim()[1]))
    return _svg(canvas)


def _margins(result: TaskResult) -> list[str]:
    """How much likelier the right ending is than the wrong one, one dot an item."""
    pairs = [item["log_likelihood"] for item in result.items]
    modes = [
        mode for mode in ("speech_to_speech", "speech_to_text") if any(mode in p for p in pairs)
    ]
    if not modes:
        return []
    canvas, axes = _canvas(len(modes))
    for at, mode in enumerate(modes):
        margins = [pair[mode][0] - pair[mode][1] for pair in pairs if mode in pair]
        axes.plot(margins, [at] * len(margins), "o", color=_OURS, alpha=0.5)
    axes.axvline(0.0, color=_INK, linewidth=0.8)
    axes.set_ylim(len(modes) - 0.5, -0.5)
    axes.set_yticks(range(len(modes)), [mode.replace("_", " ") for mode in modes])
    axes.set_xlabel("log likelihood of the right ending less the wrong one's, nats a token")
    return [_svg(canvas)]


def _parts(result: TaskResult) -> str:
    """Each answer's way to its first sound, part after part."""
    timed = [item for item in result.items if "total" in item] or result.items
    canvas, axes = _canvas(len(timed))
    left = [0.0] * len(timed)
    for part, shade in zip(PARTS, _SHADES, strict=True):
        widths = [1_000 * item.get(part, 0.0) for item in timed]
        axes.barh(range(len(timed)), widths, 0.6, left, color=shade, label=LABELS[part])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(timed)), [f"{item['set']}: {item['id']}" for item in timed])
    axes.set_xlabel("ms after the recording's end")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False)
    return _svg(canvas)


def _canvas(rows: int) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH, 0.9 + _ROW * rows), layout="constrained")
    axes = canvas.add_subplot()
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return canvas, axes


def _svg(canvas: Canvas) -> str:
    out = io.BytesIO()
    # Text stays text: smaller, and it can be read and searched.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "glm-voice"}):
        canvas.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue().decode("utf-8")
    return text[text.index("<svg") :]
