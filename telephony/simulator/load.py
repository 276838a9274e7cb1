"""Hundreds of callers at once: who calls when, what came of it, and how busy it was."""

from __future__ import annotations

import asyncio
import gc
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import numpy as np
from numpy.typing import NDArray

from telephony.clock import Clock
from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.caller import Caller
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.clock import UnixClock
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.load_report import LONGEST_GAP_MS, LoadReport, Percentiles, Stretch
from telephony.simulator.load_stream import LoadStream
from telephony.simulator.pacing import Pacer
from telephony.simulator.preparation import Sounds, prepare
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace, Cause

_BETWEEN_CALLS_SECONDS = 1.0
"""A caller that has hung up, or was refused, waits so long before it calls again."""
_LAST_SECONDS = 15.0
"""How long the last calls may take to end after they were told to."""
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


class _Stopping:
    """Whether everybody hangs up."""

    def __init__(self) -> None:
        self.now = False


class LoadCaller:
    """A scenario's caller whose lines are told to a meter, and who may be told to hang up."""

    def __init__(self, caller: Caller, meter: CallMeter, stopping: _Stopping) -> None:
        """Wrap a caller."""
        self._caller = caller
        self._meter = meter
        self._stopping = stopping
        self._lines = 0

    @property
    def keys(self) -> deque[str]:
        """Keys that were pressed and not sent yet."""
        return self._caller.keys

    @property
    def said_everything(self) -> bool:
        """Whether every line of the scenario was begun."""
        return len(self._caller.spoken) == len(self._caller.script.turns)

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms."""
        if self._stopping.now:
            return None
        said = self._caller.tick(heard)
        if len(self._caller.spoken) > self._lines:
            self._meter.spoke(self._caller.spoken[self._lines])
            self._lines += 1
        return said


@dataclass
class _Call:
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
        return self.trace.stream is None and not self.cut_short

    @property
    def broken(self) -> bool:
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


@dataclass
class _Run:
    """One run as it goes on."""

    scenarios: Sequence[Scenario]
    sounds: Sequence[Sounds]
    twilio: LoopbackTwilio
    clock: Clock
    meters: dict[str, CallMeter]
    stopping: _Stopping = field(default_factory=_Stopping)
    calls: list[_Call] = field(default_factory=list)
    up: int = 0
    placed: int = 0

    async def caller(self, begins: float) -> None:
        """Call again and again, from a moment on."""
        await self.clock.sleep(max(0.0, begins - self.clock.time()))
        while not self.stopping.now:
            await self.call()
            await self.clock.sleep(_BETWEEN_CALLS_SECONDS)

    async def call(self) -> None:
        """Place one call and stay until it is over."""
        index = self.placed % len(self.scenarios)
        self.placed += 1
        scenario, sounds = self.scenarios[index], self.sounds[index]
        trace = self.twilio.new_call()
        meter = self.meters[trace.call_sid] = CallMeter()
        person = LoadCaller(
            Caller(scenario, sounds.lines, background=sounds.background), meter, self.stopping
        )
        self.up += 1
        call = _Call(scenario, trace, meter, self.up)
        self.calls.append(call)
        try:
            await self.twilio.place(trace, person, scenario.caller, scenario.called)
        finally:
            self.up -= 1
            told_to = (Cause.CALLER_HUNG_UP, Cause.BROKEN_OFF)
            call.cut_short = self.stopping.now and trace.cause in told_to
            call.said_everything = person.said_everything
            if not call.cut_short:
                meter.over()
            self.twilio.calls.pop(trace.call_sid, None)
            del self.meters[trace.call_sid]


async def run_load(
    scenarios: Sequence[Scenario],
    target: Target,
    plan: LoadPlan,
    *,
    clock: Clock | None = None,
    progress: Callable[[str], None] | None = None,
) -> LoadReport:
    """Place calls until the time is up, and report on them.

    Args:
        scenarios: What is said; the calls take turns with them.
        target: Whom to call.
        plan: How many callers, and for how long.
        clock: Paces everything; the machine's own if not given.
        progress: Told how it goes every few seconds, as a line for a person.

    Returns:
        The report.

    Raises:
        ValueError: A scenario cannot be used: its recordings, or it has a goal, for which its
            caller would have to understand what it hears.
    """
    for scenario in scenarios:
        if scenario.goal is not None:
            raise ValueError(f"{scenario.name}: a caller with a goal is none for a load run")
    sounds = [prepare(scenario) for scenario in scenarios]
    clock = clock or UnixClock()
    pacer = Pacer(clock)
    meters: dict[str, CallMeter] = {}
    stream = partial(LoadStream, pacer=pacer, meters=meters)
    async with LoopbackTwilio(target, clock, stream=stream) as twilio:
        run = _Run(scenarios, sounds, twilio, clock, meters)
        begun = clock.time()
        pacing = asyncio.create_task(pacer.run())
        with _no_collections():
            # Nobody begins with somebody else: ticks that are due together make each other late.
            apart = max(plan.ramp / plan.calls, 0.02 / plan.calls)
            callers = [
                asyncio.create_task(run.caller(begun + number * apart))
                for number in range(plan.calls)
            ]
            telling = asyncio.create_task(_tell(run, pacer, begun, progress))
            try:
                await _until(clock, begun + plan.seconds, [pacing, *callers])
            finally:
                run.stopping.now = True
                telling.cancel()
                _, late = await asyncio.wait(callers, timeout=_LAST_SECONDS)
                for task in (*late, pacing):
                    task.cancel()
                outcomes = await asyncio.gather(
                    *callers, pacing, telling, return_exceptions=True
                )
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return _report(run, pacer, plan, target, begun)


async def _until(clock: Clock, end: float, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for a moment, or for a task that fails before."""
    sleep = asyncio.ensure_future(clock.sleep(max(0.0, end - clock.time())))
    try:
        await asyncio.wait({sleep, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleep.cancel()
        await asyncio.gather(sleep, return_exceptions=True)


async def _tell(
    run: _Run, pacer: Pacer, begun: float, progress: Callable[[str], None] | None
) -> None:
    while progress is not None:
        await run.clock.sleep(5.0)
        answers = [answer.ms for call in run.calls for answer in call.meter.answers]
        told = Percentiles.of(answers)
        late = pacer.percentiles()
        progress(
            f"{run.clock.time() - begun:4.0f} s  {run.up} calls up, {len(run.calls)} placed, "
            f"{sum(call.refused for call in run.calls) - run.up} refused or ended; "
            f"{f'{told.count} answers, p95 {told.p95:.0f} ms' if told else 'no answer yet'}; "
            f"own lateness p99 {late.p99 if late else 0:.1f} ms"
        )


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep what is there out of the garbage collector's sight: a collection stops all callers."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _report(
    run: _Run, pacer: Pacer, plan: LoadPlan, target: Target, begun: float
) -> LoadReport:
    calls = run.calls
    errors = Counter(error.code for call in calls for error in call.trace.errors)
    answers = [answer.ms for call in calls for answer in call.meter.answers]
    gaps = [gap.ms for call in calls for gap in call.meter.gaps]
    traces = [call.trace for call in calls]
    webhook = [1000 * t.webhook_seconds for t in traces if t.webhook_seconds is not None]
    connect = [1000 * t.connect_seconds for t in traces if t.connect_seconds is not None]
    moments = _moments(calls)
    return LoadReport(
        target=target.voice_url,
        scenarios=tuple(scenario.name for scenario in run.scenarios),
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
        lateness_ms=pacer.percentiles(),
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


def _happenings(calls: Sequence[_Call]) -> Iterator[_Happened]:
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


def _moments(calls: Sequence[_Call]) -> list[tuple[float, int]]:
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
        voice_to_voice_ms=Percentiles.of([h.answer_ms for h in happened if h.answer_ms is not None]),
        gaps=sum(h.gap for h in happened),
        refused=sum(h.refused for h in happened),
    )


def _over_time(
    calls: Sequence[_Call], moments: Sequence[tuple[float, int]], begun: float, seconds: float
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
    calls: Sequence[_Call], moments: Sequence[tuple[float, int]]
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
