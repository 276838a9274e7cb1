"""Hundreds of callers at once: who calls when, what came of it, and how busy it was."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from telephony.clock import Clock
from telephony.simulator.caller import Caller
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.clock import UnixClock
from telephony.simulator.load_caller import LoadCaller, Stopping
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.load_report import LoadReport, Percentiles
from telephony.simulator.load_stream import LoadStreams
from telephony.simulator.load_tally import LoadCall, LoadPlan, tally
from telephony.simulator.pacing import Pacer
from telephony.simulator.preparation import Sounds, prepare
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target
from telephony.simulator.trace import Cause

_BETWEEN_CALLS_SECONDS = 1.0
"""A caller that has hung up, or was refused, waits so long before it calls again."""
_LAST_SECONDS = 15.0
"""How long the last calls may take to end after they were told to."""


@dataclass
class _Run:
    """One run as it goes on."""

    scenarios: Sequence[Scenario]
    sounds: Sequence[Sounds]
    twilio: LoopbackTwilio
    clock: Clock
    meters: dict[str, CallMeter]
    stopping: Stopping = field(default_factory=Stopping)
    calls: list[LoadCall] = field(default_factory=list)
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
        call = LoadCall(scenario, trace, meter, self.up)
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
    streams = LoadStreams(clock, pacer, meters)
    async with LoopbackTwilio(target, clock, streams=streams) as twilio:
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
                outcomes = await asyncio.gather(*callers, pacing, telling, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return tally(run.calls, scenarios, plan, target, begun, pacer.percentiles())


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
    ticks = 0
    while progress is not None:
        await run.clock.sleep(5.0)
        answers = [answer.ms for call in run.calls for answer in call.meter.answers]
        told = Percentiles.of(answers)
        # Of the last seconds only: to sort those of a long run would make everybody late.
        late = pacer.percentiles(since=ticks)
        ticks = len(pacer.lateness)
        progress(
            f"{run.clock.time() - begun:4.0f} s  {run.up} calls up, {len(run.calls)} placed, "
            f"{sum(call.refused for call in run.calls if call.trace.ended_at)} refused; "
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
