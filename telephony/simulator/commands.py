"""What ``glm-voice simulate`` and ``make demo`` do."""

import asyncio
import sys
from pathlib import Path
from typing import TextIO

from telephony.simulator.clock import UnixClock
from telephony.simulator.gateway_process import GatewayError, GatewayProcess
from telephony.simulator.rehearsal import run_directory, run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario, load_scenario
from telephony.simulator.target import Target
from telephony.simulator.terminal import Terminal

DEMO_SCENARIO = Path(__file__).parent / "demo" / "scenario.yaml"
DEMO_SETTINGS = DEMO_SCENARIO.with_name("settings.yaml")


def simulate(
    scenario_path: Path,
    url: str,
    auth_token: str,
    out_root: Path,
    records_dir: Path | None = None,
    *,
    via: str | None = None,
    out: TextIO | None = None,
) -> int:
    """Rehearse one scenario against a server that is already running.

    Args:
        scenario_path: The scenario's YAML file.
        url: The server's voice webhook, as the server believes itself to be called.
        auth_token: With which the server checks Twilio's signatures.
        out_root: Receives a directory with the call's report.
        records_dir: Where the server appends its records, if they can be read from here.
        via: Scheme and authority, such as ``http://127.0.0.1:8080``, where the server is reached
            if not at ``url``.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: 0 if every expectation holds.

    Raises:
        ValueError: The scenario, a recording or an address cannot be used.
    """
    terminal = Terminal(out or sys.stdout)
    scenario = load_scenario(scenario_path)
    target = Target(url, auth_token, via=via)
    directory = run_directory(out_root)
    terminal.heading(f"{scenario.name}: calling {url}")
    report = asyncio.run(
        run_scenario(scenario, target, directory, records_dir=records_dir, watcher=terminal)
    )
    return _verdict(terminal, report, directory)


def rehearse(
    scenario_path: Path, out_root: Path, settings: Path | None = None, *, out: TextIO | None = None
) -> int:
    """Start a gateway in a process of its own and rehearse one scenario against it.

    Args:
        scenario_path: The scenario's YAML file.
        out_root: Receives a directory with the call's report and the gateway's log and records.
        settings: The gateway's YAML file; by default it embeds Triton with the shipped checkpoint.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: 0 if every expectation holds.

    Raises:
        ValueError: The scenario or a recording cannot be used.
    """
    terminal = Terminal(out or sys.stdout)
    scenario = load_scenario(scenario_path)
    directory = run_directory(out_root)
    try:
        report = asyncio.run(_rehearse(terminal, scenario, directory, settings))
    except GatewayError as error:
        terminal.step(str(error))
        return 1
    return _verdict(terminal, report, directory)


async def _rehearse(
    terminal: Terminal, scenario: Scenario, directory: Path, settings: Path | None
) -> CallReport:
    clock = UnixClock()
    start = clock.time()

    def progress(line: str) -> None:
        terminal.step(f"{clock.time() - start:5.1f} s  {line}")

    terminal.heading("Starting Triton and the gateway")
    async with GatewayProcess(
        directory, settings=settings, progress=progress, clock=clock
    ) as gateway:
        terminal.heading(f"{scenario.name}: {scenario.caller} calls {scenario.called}")
        return await run_scenario(
            scenario,
            gateway.target,
            directory,
            records_dir=gateway.records_dir,
            watcher=terminal,
            clock=clock,
        )


def _verdict(terminal: Terminal, report: CallReport, directory: Path) -> int:
    terminal.heading(
        "Every turn was answered as expected." if report.passed else "NOT as expected."
    )
    names = [path.name for path in sorted(directory.iterdir()) if path.is_file()]
    terminal.step(f"{directory}/: {', '.join(names)}")
    return 0 if report.passed else 1
