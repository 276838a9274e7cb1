"""What came of a load run: its calls one by one, added up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.load_report import LONGEST_GAP_MS, LoadReport, Percentiles, Stretch
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace, Cause

_STRETCHES = 30


@dataclass(frozen=True)
class LoadPlan:
    """How a load run goes.

    Attributes:
        calls: Callers; each calls again when its call is over.
        seconds: How long the run goes on, from the first call; then everybody hangs up.
        ramp: Seconds over which the callers begin, one after the other.
    """

    calls: int
    seconds: float
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise ValueError(f"calls: expected at least 1, got {self.calls}")
        if not self.seconds > 0:
            raise ValueError(f"for: expected more than 0 seconds, got {self.seconds:g}")
        if not 0 <= self.ramp < self.seconds:
            raise ValueError(
                f"ramp: expected 0 seconds or more, and less than the run, got {self.ramp:g}"
            )


@dataclass
class LoadCall:
    """A call that was placed.

    Attributes:
        scenario: What was said in it.
        trace: What the loopback Twilio saw.
        meter: What was measured.
        at_once: Calls that were up when it was placed, itself included.
        cut_short: The end of the run ended it.
        said_everything: Every line was begun.
    """

    scenario: Scenario
    trace: CallTrace
    meter: CallMeter
    at_once: int
    cut_short: bool = False
    said_everything: bool = False

    @property
    def refused(self) -> bool:
        """There was no media stream."""
        return self.trace.stream is None and not self.cut_short

    @property
    def broken(self) -> bool:
        """It ended before its caller had said everything, and not by its caller."""
        if self.cut_short or self.trace.stream is None:
            return False
        return self.trace.cause is not Cause.CALLER_HUNG_UP and not self.said_everything

    @property
    def unanswered(self) -> int:
        """Lines without an answer, less those that must have none."""
        silent = sum(not turn.expect.answered for turn in self.scenario.turns)
        return max(0, self.meter.unanswered - silent)

    @property
    def passed(self) -> bool:
        """It went by its scenario, as far as that can be told while it is on."""
        if self.cut_short or self.refused or self.broken or self.trace.errors:
            return False
        for answer in self.meter.answers:
            limit = self.scenario.turns[answer.turn].expect.answer_within_ms
            if limit is not None and answer.ms > limit:
                return False
        return not self.unanswered and not any(self.long_gaps())

    def long_gaps(self) -> Iterator[float]:
        """Where gaps over 60 ms ended, in seconds of the call."""
        for gap in self.meter.gaps:
            if gap.ms > LONGEST_GAP_MS:
                yield gap.position / SAMPLE_RATE


def tally(
    calls: Sequence[LoadCall],
    scenarios: Sequence[Scenario],
    plan: LoadPlan,
    target: Target,
    begun: float,
    lateness: Percentiles | None,
) -> LoadReport:
    """Add up a run.

    Args:
        calls: All calls that were placed.
        scenarios: What was said in them.
        plan: How the run went.
        target: Whom they went to.
        begun: Unix seconds of its beginning.
        lateness: How late the callers' own ticks came, in milliseconds.
    """
    errors = Counter(error.code for call in calls for error in call.trace.errors)
    answers = [answer.ms for call in calls for answer in call.meter.answers]
    gaps = [gap.ms for call in calls for gap in call.meter.gaps]
    traces = [call.trace for call in calls]
    webhook = [1000 * t.webhook_seconds for t in traces if t.webhook_seconds is not None]
    connect = [1000 * t.connect_seconds for t in traces if t.connect_seconds is not None]
    moments = _moments(calls)
    return LoadReport(
        target=target.voice_url,
        scenarios=tuple(scenario.name for scenario in scenarios),
        callers=plan.calls,
        ramp_s=plan.ramp,
        seconds=plan.seconds,
        started_at=begun,
        calls=len(calls),
        refused=sum(call.refused for call in calls),
        broken=sum(call.broken for call in calls),
        cut_short=sum(call.cut_short for call in calls),
        passed=sum(call.passed for call in calls),
        unanswered=sum(call.unanswered for call in calls),
        answers=len(answers),
        most_at_once=max((up for _, up in moments), default=0),
        audio_s=round(sum(call.meter.heard for call in calls) / SAMPLE_RATE, 1),
        voice_to_voice_ms=Percentiles.of(answers),
        gap_ms=Percentiles.of(gaps),
        gaps=sum(1 for call in calls for _ in call.long_gaps()),
        webhook_ms=Percentiles.of(webhook),
        connect_ms=Percentiles.of(connect),
        errors=dict(sorted(errors.items())),
        lateness_ms=lateness,
        over_time=_over_time(calls, moments, begun, plan.seconds),
        by_calls=_by_calls(calls, moments),
    )


@dataclass(frozen=True)
class _Happened:
    """Something that was measured, at a Unix time."""

    at: float
    answer_ms: float | None = None
    gap: bool = False
    refused: bool = False


def _happenings(calls: Sequence[LoadCall]) -> Iterator[_Happened]:
    for call in calls:
        stream = call.trace.stream
        if call.refused:
            yield _Happened(call.trace.dialled_at, refused=True)
        if stream is None:
            continue
        for answer in call.meter.answers:
            yield _Happened(stream.started_at + answer.position / SAMPLE_RATE, answer.ms)
        for second in call.long_gaps():
            yield _Happened(stream.started_at + second, gap=True)


def _moments(calls: Sequence[LoadCall]) -> list[tuple[float, int]]:
    """How many media streams were open from when on."""
    changes: list[tuple[float, int]] = []
    for call in calls:
        if call.trace.stream is not None:
            changes += [(call.trace.stream.started_at, 1), (call.trace.ended_at or math.inf, -1)]
    up = 0
    moments = []
    for at, change in sorted(changes):
        up += change
        moments.append((at, up))
    return moments


def _stretch(at: float, calls: int, happened: Sequence[_Happened]) -> Stretch:
    return Stretch(
        at=at,
        calls=calls,
        voice_to_voice_ms=Percentiles.of(
            [h.answer_ms for h in happened if h.answer_ms is not None]
        ),
        gaps=sum(h.gap for h in happened),
        refused=sum(h.refused for h in happened),
    )


def _over_time(
    calls: Sequence[LoadCall], moments: Sequence[tuple[float, int]], begun: float, seconds: float
) -> tuple[Stretch, ...]:
    width = max(1.0, seconds / _STRETCHES)
    happened = list(_happenings(calls))
    stretches = []
    for number in range(math.ceil(seconds / width)):
        begin = begun + number * width
        before = [up for at, up in moments if at < begin]
        within = [up for at, up in moments if begin <= at < begin + width]
        most = max([*before[-1:], *within], default=0)
        inside = [h for h in happened if begin <= h.at < begin + width]
        stretches.append(_stretch(round(number * width, 3), most, inside))
    return tuple(stretches)


def _by_calls(
    calls: Sequence[LoadCall], moments: Sequence[tuple[float, int]]
) -> tuple[Stretch, ...]:
    """What happened while so many calls were up, in steps of a twentieth of the most."""
    most = max((up for _, up in moments), default=0)
    step = max(1, math.ceil(most / 20))
    times = [at for at, _ in moments]
    groups: dict[int, list[_Happened]] = {}
    for happened in _happenings(calls):
        index = int(np.searchsorted(times, happened.at, side="right")) - 1
        up = moments[index][1] if index >= 0 else 0
        groups.setdefault(max(1, -(-up // step)) * step, []).append(happened)
    return tuple(_stretch(count, count, groups[count]) for count in sorted(groups))
