"""A run as one HTML file that needs nothing else: to open, to keep, to hand on.

The template, its style and its script are in ``page/``; Jinja puts them into one file. Recordings
are inside as Ogg Vorbis, the waveforms as vector graphics on the axis of the call's time.
"""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from telephony.simulator.load_section import LoadSection
from telephony.simulator.report import CallReport
from telephony.simulator.suite_report import Attempt, ScenarioReport, SuiteReport, spread
from telephony.simulator.terminal import PARTS, TOO_LATE_MS, complaints, time_of_call

HALF_HEIGHT = 50
"""A waveform's greatest excursion in units of its drawing."""
COLUMN = 160
"""Samples that one column of a waveform stands for: 20 ms."""


@dataclass(frozen=True)
class Clip:
    """A recording as the page holds it.

    Attributes:
        audio: Ogg Vorbis in base64, caller left, agent right.
        columns: Width of the drawings: columns of 20 ms.
        caller: The caller's waveform, an SVG path.
        agent: The agent's.
    """

    audio: str
    columns: int
    caller: str
    agent: str


@dataclass(frozen=True)
class Entry:
    """A call as the page shows it.

    Attributes:
        anchor: Its place in the page.
        scenario: Whose call it is.
        attempt: Which of its calls.
        clip: Its recording, or None where there is none.
    """

    anchor: str
    scenario: ScenarioReport
    attempt: Attempt
    clip: Clip | None

    @property
    def median(self) -> float | None:
        """Median voice-to-voice time of its answers, in milliseconds."""
        times = spread([self.attempt.call]) if self.attempt.call else None
        return times.median if times else None

    @property
    def complaints(self) -> list[str]:
        """What did not hold or kept the call from being made, a line each."""
        reasons = [r for r in (self.attempt.skipped, self.attempt.error) if r]
        return reasons + (complaints(self.attempt.call) if self.attempt.call else [])


def write_page(
    path: Path,
    suite: SuiteReport | None = None,
    directory: Path | None = None,
    load: LoadSection | None = None,
) -> None:
    """Write a run as a page.

    Args:
        path: The file; its directory is made if need be.
        suite: A run of calls, each shown by itself; None for a page about load alone.
        directory: Where that run left its recordings; None for a page without them.
        load: A load run, or None.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(suite, directory, load), "utf-8")


def render(
    suite: SuiteReport | None = None,
    directory: Path | None = None,
    load: LoadSection | None = None,
) -> str:
    """A run as HTML; the arguments are those of ``write_page``."""
    page = _environment().get_template("page.html")
    return page.render(
        suite=suite,
        load=load,
        entries=[] if suite is None else _entries(suite, directory),
        started=None if suite is None else datetime.fromtimestamp(suite.started_at).astimezone(),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("telephony.simulator", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = time_of_call
    environment.filters["ms"] = lambda value: f"{value:,.0f} ms"
    environment.filters["amount"] = lambda value: (
        f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    )
    environment.filters["percent"] = lambda at, whole: f"{100 * at / whole:.3f}%"
    environment.globals.update(ticks=_ticks, parts=PARTS, half=HALF_HEIGHT, too_late=TOO_LATE_MS)
    return environment


def _entries(suite: SuiteReport, directory: Path | None) -> list[Entry]:
    calls = [(scenario, attempt) for scenario in suite.scenarios for attempt in scenario.attempts]
    with ThreadPoolExecutor() as pool:
        clips = list(pool.map(lambda call: _clip_of(call[1], directory), calls))
    return [
        Entry(f"call-{number}", scenario, attempt, clip)
        for number, ((scenario, attempt), clip) in enumerate(zip(calls, clips, strict=True), 1)
    ]


def _clip_of(attempt: Attempt, directory: Path | None) -> Clip | None:
    if directory is None or attempt.directory is None or attempt.call is None:
        return None
    path = directory / attempt.directory / "call.wav"
    if not path.exists():
        return None
    audio, rate = soundfile.read(path, dtype="int16", always_2d=True)
    return clip(audio, rate)


def clip(audio: NDArray[np.int16], rate: int) -> Clip:
    """Prepare a recording for a page.

    Args:
        audio: int16 [n, 2]: caller and agent.
        rate: Samples a second.
    """
    buffer = io.BytesIO()
    # Opus takes four times as long, and more room at this rate; MP3 cannot be sought in exactly.
    soundfile.write(buffer, audio, rate, format="OGG", subtype="VORBIS")
    return Clip(
        audio=base64.b64encode(buffer.getvalue()).decode(),
        columns=-(-len(audio) // COLUMN),
        caller=waveform(audio[:, 0]),
        agent=waveform(audio[:, 1]),
    )


def waveform(audio: NDArray[np.int16]) -> str:
    """The outline of a recording as an SVG path, closed, around y = 0.

    Args:
        audio: int16 [n].

    Returns:
        The greatest sample of each column of 20 ms from left to right, then the least ones back.
        Their square roots, rather: so soft speech can be seen beside loud speech.
    """
    padded = np.concatenate([audio, np.zeros(-len(audio) % COLUMN, np.int16)])
    columns = padded.reshape(-1, COLUMN).astype(np.float64) / 32768
    highest, lowest = (
        np.rint(np.sign(edge) * np.sqrt(np.abs(edge)) * HALF_HEIGHT).astype(int)
        for edge in (columns.max(axis=1), columns.min(axis=1))
    )
    right = list(_corners(-highest))
    left = [(x, y) for x, y in _corners(-lowest)][::-1]
    return "M" + "L".join(f"{x} {y}" for x, y in right + left) + "Z"


def _corners(edge: NDArray[np.int_]) -> Iterator[tuple[int, int]]:
    """The points of an edge, without those in the middle of a level stretch."""
    last = len(edge) - 1
    for x, y in enumerate(edge.tolist()):
        if 0 < x < last and edge[x - 1] == y == edge[x + 1]:
            continue
        yield x, y


def _ticks(call: CallReport) -> list[int]:
    """Seconds of a call at which its axis has a number; at its end there is no room for one."""
    step = 1 if call.duration <= 15 else 5
    return list(range(0, max(1, int(call.duration)), step))
