"""What ``glm-voice simulate`` and ``make demo`` do."""

import asyncio
import sys
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from agent.embedded import EmbeddedServer, EmbeddedServerError
from agent.settings import SHIPPED_CHECKPOINT
from telephony.clock import Clock
from telephony.simulator.clock import UnixClock
from telephony.simulator.gateway_process import PUBLIC_BASE_URL, GatewayError, GatewayProcess
from telephony.simulator.rehearsal import run_directory, run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario, load_scenario
from telephony.simulator.target import Target
from telephony.simulator.terminal import Terminal

DEMO_SCENARIO = Path(__file__).parent / "demo" / "scenario.yaml"


def simulate(
    scenario_path: Path,
    url: str,
    auth_token: str,
    out_root: Path,
    records_dir: Path | None = None,
    *,
    public_url: str | None = None,
    out: TextIO | None = None,
) -> int:
    """Rehearse one scenario against a server that is already running.

    Args:
        scenario_path: The scenario's YAML file.
        url: The server's voice webhook, where it can be reached.
        auth_token: With which the server checks Twilio's signatures.
        out_root: Receives a directory with the call's report.
        records_dir: Where the server appends its records, if they can be read from here.
        public_url: The voice webhook as the server believes itself to be called, where that is
            another address than ``url``.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: 0 if every expectation holds.

    Raises:
        ValueError: The scenario, a recording or an address cannot be used.
    """
    terminal = Terminal(out or sys.stdout)
    scenario = load_scenario(scenario_path)
    via = None if public_url is None else "{0.scheme}://{0.netloc}".format(urlsplit(url))
    target = Target(public_url or url, auth_token, via=via)
    directory = run_directory(out_root)
    terminal.heading(f"{scenario.name}: calling {url}")
    report = asyncio.run(
        run_scenario(scenario, target, directory, records_dir=records_dir, watcher=terminal)
    )
    return _verdict(terminal, report, directory)


def demo(out_root: Path, *, out: TextIO | None = None) -> int:
    """Answer a call: start Triton with the shipped checkpoint and the gateway, then ring.

    Args:
        out_root: Receives a directory with the call's report and both servers' logs.
        out: Receives what a person reads; standard output by default.

    Returns:
        The exit status: 0 if every turn was answered as the demo's scenario expects.
    """
    terminal = Terminal(out or sys.stdout)
    directory = run_directory(out_root)
    directory.mkdir(parents=True)
    scenario = load_scenario(DEMO_SCENARIO)
    try:
        report = asyncio.run(_demo(terminal, directory, scenario))
    except (EmbeddedServerError, GatewayError) as error:
        terminal.step(str(error))
        return 1
    return _verdict(terminal, report, directory)


async def _demo(terminal: Terminal, directory: Path, scenario: Scenario) -> CallReport:
    clock = UnixClock()
    watch = _Stopwatch(terminal, clock)
    terminal.heading("Triton, with the checkpoint that ships")
    async with EmbeddedServer(
        checkpoint=SHIPPED_CHECKPOINT,
        progress=lambda model, state: watch.step(f"{model} {state}"),
        log_file=directory / "triton.log",
    ) as server:
        watch.step(f"listening on {server.url}")
        terminal.heading("The gateway, in a process of its own")
        watch.step("loading turn detection")
        async with GatewayProcess(directory, server.url) as gateway:
            watch.step(f"listening on {gateway.address}, known as {PUBLIC_BASE_URL}")
            terminal.heading(f"A call from {scenario.caller} to {scenario.called}")
            return await run_scenario(
                scenario,
                gateway.target,
                directory,
                records_dir=gateway.records_dir,
                watcher=terminal,
                clock=clock,
            )


class _Stopwatch:
    """Prints steps with the seconds since it was made."""

    def __init__(self, terminal: Terminal, clock: Clock) -> None:
        self._terminal = terminal
        self._clock = clock
        self._start = clock.time()

    def step(self, text: str) -> None:
        self._terminal.step(f"{self._clock.time() - self._start:5.1f} s  {text}")


def _verdict(terminal: Terminal, report: CallReport, directory: Path) -> int:
    terminal.heading(
        "Every turn was answered as expected." if report.passed else "NOT as expected."
    )
    names = [path.name for path in sorted(directory.iterdir()) if path.is_file()]
    terminal.step(f"{directory}/: {', '.join(names)}")
    return 0 if report.passed else 1
