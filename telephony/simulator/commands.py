"""What ``glm-voice simulate`` and ``make demo`` do."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from telephony.simulator.clock import UnixClock
from telephony.simulator.gateway_process import GatewayError, GatewayProcess
from telephony.simulator.html_page import write_page
from telephony.simulator.junit import write_junit
from telephony.simulator.progress import Progress
from telephony.simulator.rehearsal import run_directory
from telephony.simulator.suite import Plan, Script, collect, run_suite
from telephony.simulator.suite_report import Attempt, ExitStatus, Outcome, SuiteReport
from telephony.simulator.target import Target
from telephony.simulator.terminal import Terminal, Watcher

DEMO_SCENARIO = Path(__file__).parent / "demo" / "scenario.yaml"
DEMO_SETTINGS = DEMO_SCENARIO.with_name("settings.yaml")


@dataclass(frozen=True)
class Outputs:
    """Where reports go.

    Attributes:
        root: Receives a directory named after the time, unless ``directory`` is given.
        directory: The run's directory itself; must not hold anything yet.
        html: Where the page goes; by default it is report.html in the run's directory.
        json: Where the whole report goes; by default it is report.json there.
        junit: The JUnit XML file, or None for none.
    """

    root: Path = Path("runs")
    directory: Path | None = None
    html: Path | None = None
    json: Path | None = None
    junit: Path | None = None

    def make(self) -> Path:
        """The run's directory, made.

        Raises:
            ValueError: It holds something, or it or the place of a report is not what it should be.
        """
        for name in ("html", "json", "junit"):
            path = getattr(self, name)
            if path is not None and path.is_dir():
                raise ValueError(f"--{name}: {path} is a directory, expected a file")
        directory = self.directory or run_directory(self.root)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise ValueError(f"--out: {directory} is not empty")
        except OSError as error:
            raise ValueError(f"{directory}: {error.strerror or error}") from error
        return directory


def simulate(
    paths: Sequence[Path],
    url: str,
    auth_token: str,
    outputs: Outputs,
    records: str | Path | None = None,
    *,
    plan: Plan | None = None,
    via: str | None = None,
    out: TextIO | None = None,
) -> int:
    """Rehearse scenarios against a server that is already running.

    Args:
        paths: The scenarios' YAML files, or directories with such files.
        url: The server's voice webhook, as the server believes itself to be called.
        auth_token: With which the server checks Twilio's signatures.
        outputs: Where the reports go.
        records: Where the server's records are, if they can be read from here; as for
            ``run_scenario``.
        plan: How the calls are made.
        via: Scheme and authority, such as ``http://127.0.0.1:8080``, where the server is reached
            if not at ``url``.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: see ``ExitStatus``.

    Raises:
        ValueError: A scenario, a recording, an address or a place for reports cannot be used.
    """
    scripts = collect(paths)
    target = Target(url, auth_token, via=via)
    run = _Rehearsal(scripts, plan or Plan(), outputs, out or sys.stdout)
    run.heading(f"calling {url}")
    return run.verdict(asyncio.run(run.calls(target, records)))


def rehearse(
    paths: Sequence[Path],
    outputs: Outputs,
    settings: Path | None = None,
    *,
    plan: Plan | None = None,
    out: TextIO | None = None,
) -> int:
    """Start a gateway in a process of its own and rehearse scenarios against it.

    Args:
        paths: The scenarios' YAML files, or directories with such files.
        outputs: Where the reports go, and the gateway's log and records.
        settings: The gateway's YAML file; by default it embeds Triton with the shipped checkpoint.
        plan: How the calls are made; the budget begins when the gateway is up.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: see ``ExitStatus``.

    Raises:
        ValueError: A scenario, a recording or a place for reports cannot be used.
    """
    run = _Rehearsal(collect(paths), plan or Plan(), outputs, out or sys.stdout)
    try:
        report = asyncio.run(run.with_gateway(settings))
    except GatewayError as error:
        run.terminal.step(str(error))
        return ExitStatus.FAILED
    return run.verdict(report)


class _Rehearsal:
    """One run: a single call is shown as it goes on, of several calls their results."""

    def __init__(
        self, scripts: Sequence[Script], plan: Plan, outputs: Outputs, out: TextIO
    ) -> None:
        self.terminal = Terminal(out)
        self._out = out
        self._scripts = scripts
        self._plan = plan
        self._outputs = outputs
        self._directory = outputs.make()
        self._single = len(scripts) * plan.repeat == 1
        self._progress: Progress | None = None

    def heading(self, text: str) -> None:
        """Say what comes next: with the scenario's name if there is one call only."""
        count = len(self._scripts)
        several = f"{count} scenario{'s' if count > 1 else ''}"
        name = self._scripts[0].scenario.name if self._single else several
        self.terminal.heading(f"{name}: {text}")

    async def calls(self, target: Target, records: str | Path | None) -> SuiteReport:
        """Make the calls."""
        if not self._single:
            self._progress = Progress(self._out, len(self._scripts), self._plan)
        return await run_suite(
            self._scripts,
            target,
            self._directory,
            plan=self._plan,
            records=records,
            watcher=self._progress or _Single(self.terminal),
        )

    async def with_gateway(self, settings: Path | None) -> SuiteReport:
        """Make the calls to a gateway of their own."""
        clock = UnixClock()
        start = clock.time()

        def progress(line: str) -> None:
            self.terminal.step(f"{clock.time() - start:5.1f} s  {line}")

        self.terminal.heading("Starting Triton and the gateway")
        async with GatewayProcess(
            self._directory, settings=settings, progress=progress, clock=clock
        ) as gateway:
            first = self._scripts[0].scenario
            who = f"{first.caller} calls {first.called}"
            self.heading(who if self._single else "calling the gateway")
            return await self.calls(gateway.target, gateway.records)

    def verdict(self, report: SuiteReport) -> int:
        """Write the reports and say what came out."""
        if self._progress is not None:
            self._progress.suite_ends(report)
        self._write(report)
        self.terminal.heading(_verdict(report, self._single))
        names = [path.name for path in sorted(self._directory.iterdir()) if path.is_file()]
        self.terminal.step(f"{self._directory}/: {', '.join(names)}")
        return report.exit_status

    def _write(self, report: SuiteReport) -> None:
        outputs = self._outputs
        json = outputs.json or self._directory / "report.json"
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
        if outputs.junit is not None:
            write_junit(outputs.junit, report)
        write_page(outputs.html or self._directory / "report.html", report, self._directory)


def _verdict(report: SuiteReport, single: bool) -> str:
    """What came out, in a sentence."""
    counts = report.counts
    calls = sum(counts.values())
    wrong = counts[Outcome.FAILED] + counts[Outcome.ERROR]
    skipped = counts[Outcome.SKIPPED]
    if single and not skipped:
        return "NOT as expected." if wrong else "Every turn was answered as expected."
    if not wrong and not skipped:
        return f"All {calls} calls went as expected."
    parts = []
    if wrong:
        parts.append(f"{wrong} of {calls} calls did NOT go as expected.")
    if skipped:
        parts.append(
            f"The budget ran out: {skipped} of {calls} calls were not made or not finished."
        )
    return " ".join(parts)


class _Single:
    """Shows the one call of a run."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def call_begins(self, script: Script, number: int) -> Watcher:
        """The terminal itself is told."""
        return self._terminal

    def call_ends(self, script: Script, attempt: Attempt) -> None:
        """Say why there was no whole call, if there was none."""
        for reason in (attempt.skipped, attempt.error):
            if reason is not None:
                self._terminal.step(reason)
