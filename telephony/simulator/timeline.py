"""Draws a call: who was heard when, what was said, and where the time went."""

import math
import textwrap
import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.report import CallReport, TurnReport
from telephony.simulator.terminal import PARTS

_WIDTH = 16.0
"""Inches; at 100 dots each the picture is 1600 pixels wide."""
_DPI = 100
_LEFT, _RIGHT = 0.055, 0.985
_ROW_SECONDS = 60.0
_ROW_INCHES = 4.3
_BAR_INCHES = 0.36

_INK = "#1f2933"
_FAINT = "#9aa5b1"
_GRID = "#e4e7eb"
_CALLER = "#2457a6"
_AGENT = "#0b7a5f"
_ALARM = "#c62828"
_PART_COLOURS = ("#f2b134", "#8d6cab", "#4f8fc0", "#5aae7d", "#b8c0c8")

_CALLER_Y, _AGENT_Y = 1.0, -1.0
_CAPTION_Y = 2.05
_TOP = 4.0
_CAPTION_FONT = FontProperties(size=9)
_RULER = RendererAgg(1, 1, _DPI)  # type: ignore[no-untyped-call]
_LINES = 5


def draw_timeline(
    path: Path, report: CallReport, caller: NDArray[np.int16], agent: NDArray[np.int16]
) -> None:
    """Draw a call into a PNG file, 1600 pixels wide.

    Args:
        path: The picture.
        report: What was found.
        caller: int16 [n] at 8 kHz: what the caller said.
        agent: int16 [n] at 8 kHz: what the phone played.
    """
    duration = max(len(caller) / SAMPLE_RATE, 1.0)
    rows = math.ceil(duration / _ROW_SECONDS)
    answered = [turn for turn in report.turns if turn.latency is not None]
    bars = len(answered) * _BAR_INCHES + 0.75 if answered else 0.0
    header = 0.75
    height = header + rows * _ROW_INCHES + bars + 0.35
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _title(figure, report, duration, height)
    span = duration / rows
    for row in range(rows):
        bottom = (height - header - (row + 1) * _ROW_INCHES + 0.45) / height
        axes = figure.add_axes((_LEFT, bottom, _RIGHT - _LEFT, (_ROW_INCHES - 0.55) / height))
        _conversation(axes, report, caller, agent, (row * span, (row + 1) * span))
    if answered:
        axes = figure.add_axes((0.25, 0.45 / height, _RIGHT - 0.25, (bars - 0.7) / height))
        _latencies(axes, answered)
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box, and that is all there is to say.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path)


def _title(figure: Figure, report: CallReport, duration: float, height: float) -> None:
    held = sum(turn.passed for turn in report.turns)
    verdict = "as expected" if report.passed else "NOT as expected"
    facts = [
        f"{duration:.1f} s",
        report.cause,
        f"{held} of {len(report.turns)} turns held",
        f"gaps in the agent's audio: {len(report.gaps)}",
    ]
    if report.lateness is not None:
        facts.append(f"simulator late by {report.lateness.p99:.1f} ms (p99)")
    top = 1 - 0.28 / height
    figure.text(
        _LEFT,
        top,
        report.scenario,
        size=15,
        weight="bold",
        color=_INK,
        va="center",
        parse_math=False,
    )
    figure.text(
        _RIGHT,
        top,
        verdict,
        size=13,
        weight="bold",
        color=_AGENT if report.passed else _ALARM,
        ha="right",
        va="center",
    )
    below = 1 - 0.58 / height
    figure.text(_LEFT, below, "  ·  ".join(facts), size=10, color=_INK, va="center")


def _conversation(
    axes: Axes,
    report: CallReport,
    caller: NDArray[np.int16],
    agent: NDArray[np.int16],
    window: tuple[float, float],
) -> None:
    begin, end = window
    axes.set_xlim(begin, end)
    axes.set_ylim(-_TOP, _TOP)
    axes.set_yticks([_CALLER_Y, _AGENT_Y], ["caller", "agent"], size=11)
    for label, colour in zip(axes.get_yticklabels(), (_CALLER, _AGENT), strict=True):
        label.set_color(colour)
        label.set_fontweight("bold")
    axes.tick_params(axis="both", length=0)
    axes.xaxis.set_major_locator(MultipleLocator(5 if end - begin > 20 else 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x // 60)}:{x % 60:02.0f}"))
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    _waveform(axes, caller, _CALLER_Y, _CALLER, window)
    _waveform(axes, agent, _AGENT_Y, _AGENT, window)
    for gap in report.gaps:
        axes.fill_between(gap, _AGENT_Y - 1.0, _AGENT_Y - 0.82, color=_ALARM, linewidth=0)
    speech = [t for t in report.turns if t.speech is not None]
    answers = [t for t in report.turns if t.answer is not None]
    ends = [*(t.speech[0] for t in speech if t.speech), end]
    for place, turn in enumerate(speech):
        if turn.speech is not None and begin <= turn.speech[0] < end:
            room = min(ends[place + 1], end) - turn.speech[0]
            _span(axes, turn.speech, _CALLER_Y, _CALLER)
            _caption(axes, turn.speech[0], turn.caller or "", _CALLER, window, room, above=True)
    starts = [*(t.answer[0] for t in answers if t.answer), end]
    for place, turn in enumerate(answers):
        if turn.answer is not None and begin <= turn.answer[0] < end:
            room = min(starts[place + 1], end) - turn.answer[0]
            _span(axes, turn.answer, _AGENT_Y, _AGENT)
            text = "(text not known)" if turn.agent is None else turn.agent
            _caption(axes, turn.answer[0], text, _AGENT, window, room, above=False)
    for turn in speech:
        _between(axes, turn, window)


def _waveform(
    axes: Axes, audio: NDArray[np.int16], y: float, colour: str, window: tuple[float, float]
) -> None:
    """The least and the greatest sample under each pixel."""
    first, last = (int(second * SAMPLE_RATE) for second in window)
    piece = audio[first:last].astype(np.float32) / 32768
    columns = int(_WIDTH * _DPI * (_RIGHT - _LEFT))
    per_column = max(1, math.ceil((last - first) / columns))
    piece = np.concatenate([piece, np.zeros(-len(piece) % per_column, np.float32)])
    if not len(piece):
        return
    blocks = piece.reshape(-1, per_column)
    # The square root lets soft speech be seen beside loud speech.
    low, high = (
        np.sign(edge) * np.sqrt(np.abs(edge)) * 0.92 for edge in (blocks.min(1), blocks.max(1))
    )
    x = window[0] + (np.arange(len(blocks)) + 0.5) * per_column / SAMPLE_RATE
    axes.axhline(y, color=colour, linewidth=0.6, alpha=0.5)
    axes.fill_between(x, y + low, y + high, color=colour, linewidth=0.3, alpha=0.95)


def _span(axes: Axes, span: tuple[float, float], y: float, colour: str) -> None:
    axes.fill_between(span, y - 0.95, y + 0.95, color=colour, alpha=0.09, linewidth=0)


def _caption(
    axes: Axes,
    at: float,
    text: str,
    colour: str,
    window: tuple[float, float],
    room: float,
    *,
    above: bool,
) -> None:
    pixels = _WIDTH * _DPI * (_RIGHT - _LEFT) / (window[1] - window[0])
    lines = _wrap(text, max(90.0, room * pixels - 14))
    axes.text(
        at + 4 / pixels,
        _CAPTION_Y if above else -_CAPTION_Y,
        "\n".join(lines),
        fontproperties=_CAPTION_FONT,
        color=colour,
        va="bottom" if above else "top",
        linespacing=1.15,
        parse_math=False,
    )


def _wrap(text: str, width: float) -> list[str]:
    """Break a caption into lines of so many pixels; what does not fit becomes an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _pixels(longer) > width:
            if len(lines) == _LINES:
                lines[-1] += " …"
                break
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _pixels(text: str) -> float:
    measure = _RULER.get_text_width_height_descent
    return float(measure(text, _CAPTION_FONT, False)[0])  # type: ignore[no-untyped-call]


def _between(axes: Axes, turn: TurnReport, window: tuple[float, float]) -> None:
    """What lies between caller and agent: voice-to-voice time, or a barge-in."""
    if turn.speech is None or not window[0] <= turn.speech[0] < window[1]:
        return
    if turn.barge_in is not None:
        at = turn.speech[0]
        silent = at + turn.barge_in.silent_after_ms / 1000
        axes.plot([at, at], [_AGENT_Y - 0.95, _TOP], color=_ALARM, linewidth=1.2)
        axes.fill_between(
            [at, silent], _AGENT_Y - 0.95, _AGENT_Y + 0.95, color=_ALARM, alpha=0.25, linewidth=0
        )
        text = f"barge-in: silent after {turn.barge_in.silent_after_ms:.0f} ms"
        if turn.barge_in.kept is not None:
            text += f"\nhistory keeps “{textwrap.shorten(turn.barge_in.kept, 50)}”"
        right = at > (window[0] + window[1]) * 0.6
        axes.annotate(
            text,
            (at, _TOP),
            (-5 if right else 5, 0),
            textcoords="offset points",
            size=9,
            color=_ALARM,
            ha="right" if right else "left",
            va="top",
            parse_math=False,
        )
    if turn.latency is not None and turn.answer is not None:
        begin, end = turn.speech[1], turn.answer[0]
        axes.plot([begin, begin], [_CALLER_Y, 0.0], color=_INK, linewidth=0.9)
        axes.plot([begin, end], [0.0, 0.0], color=_INK, linewidth=2.2, solid_capstyle="butt")
        axes.plot([end, end], [0.0, _AGENT_Y], color=_INK, linewidth=0.9)
        axes.annotate(
            f"{turn.latency.voice_to_voice:.0f} ms",
            (end, 0.0),
            (5, 0),
            textcoords="offset points",
            size=9.5,
            weight="bold",
            color=_INK,
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )


def _latencies(axes: Axes, turns: list[TurnReport]) -> None:
    longest = max(turn.latency.voice_to_voice for turn in turns if turn.latency)
    for row, turn in enumerate(turns):
        latency = turn.latency
        assert latency is not None
        left = 0.0
        for (field, _), colour in zip(PARTS, _PART_COLOURS, strict=True):
            value = getattr(latency, field)
            if value is None or value <= 0:
                continue
            axes.barh(row, value, left=left, height=0.62, color=colour)
            if value > longest * 0.045:
                axes.text(left + value / 2, row, f"{value:.0f}", size=8.5, ha="center", va="center")
            left += value
        if latency.decision is None:
            left = latency.voice_to_voice
            axes.barh(row, left, height=0.62, color=_FAINT)
        axes.text(
            max(left, latency.voice_to_voice) + longest * 0.008,
            row,
            f"{latency.voice_to_voice:.0f} ms",
            size=9.5,
            weight="bold",
            va="center",
            color=_INK,
        )
    labels = [f"{(t.index or 0) + 1}  {textwrap.shorten(t.caller or '', 46)}" for t in turns]
    axes.set_yticks(range(len(turns)), labels, size=9.5, color=_INK, parse_math=False)
    axes.set_ylim(len(turns) - 0.45, -0.75)
    axes.set_xlim(0, longest * 1.1)
    axes.tick_params(axis="both", length=0)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f} ms"))
    names = [name for _, name in PARTS]
    handles = [axes.barh(0, 0, color=colour) for colour in _PART_COLOURS]
    axes.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(names),
        frameon=False,
        fontsize=9,
        borderpad=0,
        handlelength=1.2,
        title="voice to voice by turn",
        title_fontproperties={"weight": "bold", "size": 10},
        alignment="left",
    )
