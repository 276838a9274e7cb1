"""What a load run came to: figures for programs, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import computed_field

from telephony.simulator.part import Part
from telephony.simulator.suite_report import pass_hat

LONGEST_GAP_MS = 60.0
"""A gap in an answer longer than this is heard as one."""
TOO_LATE_MS = 5.0
"""Lateness of the tool itself (p99) from which on its other figures are not to be trusted."""
_LARGEST_K = 8


class Percentiles(Part):
    """Where the values of a measurement lie, by nearest rank.

    Attributes:
        count: How many there were.
        p50: Half of them are no larger.
        p90: 90 in 100 are no larger.
        p95: 95 in 100 are no larger.
        p99: 99 in 100 are no larger.
        worst: The largest.
    """

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: ArrayLike) -> Percentiles | None:
        """Of some values; None if there are none."""
        given = np.asarray(values, np.float64)
        if not given.size:
            return None
        at = np.percentile(given, (50, 90, 95, 99, 100), method="inverted_cdf")
        p50, p90, p95, p99, worst = (round(float(value), 3) for value in at)
        return cls(count=given.size, p50=p50, p90=p90, p95=p95, p99=p99, worst=worst)


class Stretch(Part):
    """Some part of a run: a while of it, or all the time that so many calls were up.

    Attributes:
        at: Seconds after the start at which it begins, or the number of calls.
        calls: Calls that were up at once: the most.
        voice_to_voice_ms: Of the answers that began in it, or None.
        gaps: Gaps over 60 ms that ended in it.
        refused: Calls that were refused in it.
    """

    at: float
    calls: int
    voice_to_voice_ms: Percentiles | None
    gaps: int
    refused: int


class LoadReport(Part):
    """One load run.

    Attributes:
        format: Version of this format.
        target: Whom the calls were placed to.
        scenarios: Names of what was said.
        callers: Callers that call again and again.
        ramp_s: Seconds over which they began.
        seconds: How long they went on, the ramp included.
        started_at: Unix seconds.
        calls: Calls placed.
        refused: Calls that came to no media stream, because the webhook said so or failed.
        broken: Calls whose stream failed, or that the agent ended before the caller's last line.
        cut_short: Calls that the end of the run ended; they are not judged.
        passed: Calls that went by their scenario: every line answered, in the time it allows, no
            gap over 60 ms, nothing broken.
        unanswered: Lines that got no answer.
        answers: Answers heard.
        most_at_once: Calls that were up at the same time, the most.
        audio_s: Seconds of the agent's audio that were heard.
        voice_to_voice_ms: From the end of a line to the first sound of its answer, as heard.
        gap_ms: Lengths of the gaps inside answers, those of 60 ms and less included.
        gaps: Those that were longer.
        webhook_ms: How long the webhook took.
        connect_ms: How long the WebSocket took to open.
        errors: What Twilio would have logged, by its number.
        lateness_ms: How late the tool's own ticks came.
        over_time: The run in stretches.
        by_calls: The run by how many calls were up.
    """

    format: int = 1
    target: str
    scenarios: tuple[str, ...]
    callers: int
    ramp_s: float
    seconds: float
    started_at: float
    calls: int
    refused: int
    broken: int
    cut_short: int
    passed: int
    unanswered: int
    answers: int
    most_at_once: int
    audio_s: float
    voice_to_voice_ms: Percentiles | None
    gap_ms: Percentiles | None
    gaps: int
    webhook_ms: Percentiles | None
    connect_ms: Percentiles | None
    errors: Mapping[int, int]
    lateness_ms: Percentiles | None
    over_time: tuple[Stretch, ...]
    by_calls: tuple[Stretch, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def judged(self) -> int:
        """Calls that could go right or wrong."""
        return self.calls - self.cut_short

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trustworthy(self) -> bool:
        """Whether the tool itself kept time."""
        return self.lateness_ms is not None and self.lateness_ms.p99 < TOO_LATE_MS

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pass_hat(self) -> list[float]:
        """pass^1, pass^2, ... up to pass^8, as far as there were calls."""
        return pass_hat(self.passed, self.judged)[:_LARGEST_K]


class Try(Part):
    """One load run of a search.

    Attributes:
        callers: How many there were.
        held: Whether everything stayed within bounds.
        why_not: What did not, or None.
        report: The run.
    """

    callers: int
    held: bool
    why_not: str | None
    report: LoadReport


class CapacityReport(Part):
    """A search for the largest number of calls within bounds.

    Attributes:
        format: Version of this format.
        p95_ms: The bound on voice-to-voice time.
        repeat: Runs in a row that a number of calls had to stand.
        largest: The largest number that stood them; 0 if not even one call did.
        limit: Why there was no search beyond it.
        tries: In order.
    """

    format: int = 1
    p95_ms: float
    repeat: int
    largest: int
    limit: str
    tries: tuple[Try, ...]


def judge(report: LoadReport, p95_ms: float) -> str | None:
    """What is wrong with a run whose calls should all be answered well; None if nothing is."""
    answered = report.voice_to_voice_ms
    wrong: Sequence[tuple[bool, str]] = (
        (not report.trustworthy, "this machine is too busy for the callers: their ticks were late"),
        (report.refused > 0, f"{report.refused} of {report.calls} calls were refused"),
        (report.broken > 0, f"{report.broken} of {report.calls} calls broke"),
        (answered is None, "nothing was answered"),
        (report.unanswered > 0, f"{report.unanswered} lines were not answered"),
        (
            answered is not None and answered.p95 > p95_ms,
            f"voice to voice is {answered.p95 if answered else 0:.0f} ms at p95,"
            f" over {p95_ms:g} ms",
        ),
        (report.gaps > 0, f"{report.gaps} gaps over {LONGEST_GAP_MS:g} ms"),
    )
    return next((reason for holds, reason in wrong if holds), None)
