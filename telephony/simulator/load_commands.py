"""What ``glm-voice simulate --calls`` and ``--find-capacity`` do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from telephony.simulator import load_loop
from telephony.simulator.capacity import find_capacity
from telephony.simulator.commands import Outputs
from telephony.simulator.gateway_process import GatewayError, GatewayProcess
from telephony.simulator.html_page import write_page
from telephony.simulator.load import run_load
from telephony.simulator.load_report import CapacityReport, LoadReport, judge
from telephony.simulator.load_section import LoadSection
from telephony.simulator.load_tally import LoadPlan
from telephony.simulator.load_view import capacity_section, load_lines, load_section
from telephony.simulator.suite import collect
from telephony.simulator.target import Target
from telephony.simulator.terminal import Terminal


@dataclass(frozen=True)
class Agent:
    """Who is called.

    Attributes:
        target: A server that is running; None starts a gateway.
        settings: The YAML file of a gateway that is started.
    """

    target: Target | None = None
    settings: Path | None = None


def load(
    paths: Sequence[Path],
    agent: Agent,
    plan: LoadPlan,
    outputs: Outputs,
    *,
    p95_ms: float | None = None,
    out: TextIO | None = None,
) -> int:
    """Place many calls at once and report on them.

    Args:
        paths: The scenarios' YAML files, or directories with such files; calls take turns.
        agent: Whom to call.
        plan: How many callers, and for how long.
        outputs: Where the reports go: load.json and report.html.
        p95_ms: Bound on voice-to-voice time at p95, or None.
        out: Receives what a person reads; standard output by default.

    Returns:
        0 if every call was answered well, 1 if not.

    Raises:
        ValueError: A scenario, an address or a place for reports cannot be used.
    """
    run = _Loading(paths, agent, outputs, out)

    async def go() -> LoadReport:
        async with run.target() as target:
            run.terminal.heading(f"{plan.calls} callers for {plan.seconds:g} s")
            return await run_load(run.scenarios, target, plan, progress=run.terminal.step)

    try:
        report = load_loop.run(go())
    except GatewayError as error:
        run.terminal.step(str(error))
        return 1
    why_not = judge(report, p95_ms or float("inf"))
    verdict = "Every call was answered well." if why_not is None else f"NOT well: {why_not}."
    for line in load_lines(report):
        run.terminal.step(line)
    run.write("load.json", report, load_section(report, verdict, why_not is None))
    run.terminal.heading(verdict)
    return 0 if why_not is None else 1


def capacity(
    paths: Sequence[Path],
    agent: Agent,
    plan: LoadPlan,
    outputs: Outputs,
    *,
    p95_ms: float,
    repeat: int = 1,
    out: TextIO | None = None,
) -> int:
    """Search for the largest number of calls that are all answered well.

    Args:
        paths: As for :func:`load`.
        agent: Whom to call.
        plan: ``calls`` is the most to try; every run takes its time and ramp.
        outputs: Where the reports go: capacity.json and report.html.
        p95_ms: Bound on voice-to-voice time at p95.
        repeat: Runs in a row that a number has to stand.
        out: Receives what a person reads; standard output by default.

    Returns:
        0 if at least one call was answered well, 1 if not.

    Raises:
        ValueError: A scenario, an address, a bound or a place for reports cannot be used.
    """
    run = _Loading(paths, agent, outputs, out)

    async def go() -> CapacityReport:
        async with run.target() as target:
            run.terminal.heading(f"How many calls within {p95_ms:g} ms at p95?")

            async def once(calls: int) -> LoadReport:
                return await run_load(run.scenarios, target, replace(plan, calls=calls))

            return await find_capacity(
                once, p95_ms, most=plan.calls, repeat=repeat, progress=run.terminal.step
            )

    try:
        report = load_loop.run(go())
    except GatewayError as error:
        run.terminal.step(str(error))
        return 1
    run.write("capacity.json", report, capacity_section(report))
    run.terminal.heading(f"{report.largest} calls at once. {report.limit}.")
    return 0 if report.largest else 1


class _Loading:
    """What both commands need."""

    def __init__(
        self, paths: Sequence[Path], agent: Agent, outputs: Outputs, out: TextIO | None
    ) -> None:
        self.terminal = Terminal(out or sys.stdout)
        self.scenarios = [script.scenario for script in collect(paths)]
        self._agent = agent
        self._outputs = outputs
        self._directory = outputs.make()

    @contextlib.asynccontextmanager
    async def target(self) -> AsyncIterator[Target]:
        """Whom to call: the server that is running, or a gateway for as long as it is needed."""
        if self._agent.target is not None:
            yield self._agent.target
            return
        self.terminal.heading("Starting Triton and the gateway")
        async with GatewayProcess(
            self._directory, settings=self._agent.settings, progress=self.terminal.step
        ) as gateway:
            yield gateway.target

    def write(self, name: str, report: LoadReport | CapacityReport, section: LoadSection) -> None:
        """Write the report for programs and the page."""
        json = self._outputs.json or self._directory / name
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
        write_page(self._outputs.html or self._directory / "report.html", load=section)
        names = [path.name for path in sorted(self._directory.iterdir()) if path.is_file()]
        self.terminal.step(f"{self._directory}/: {', '.join(names)}")
