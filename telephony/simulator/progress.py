"""A run of several calls as it goes on, for a person at a terminal or in a build's log."""

import shutil
import textwrap
from pathlib import Path
from typing import TextIO

from telephony.simulator.suite import Plan, Script
from telephony.simulator.suite_report import Attempt, Outcome, ScenarioReport, SuiteReport
from telephony.simulator.terminal import Quiet, Watcher, complaints, time_of_call

_NAME = 48
_INDENT = " " * 25
_WIDTH = 110
_MOST_COLUMNS = 5


class Progress:
    """Prints a line for each call when it is over; on a terminal also what is going on."""

    def __init__(self, out: TextIO, scenarios: int, plan: Plan) -> None:
        """Print to a stream.

        Args:
            out: Where to; if it is a terminal, its last line shows the calls that are going on.
            scenarios: How many there are.
            plan: How they are called.
        """
        self._out = out
        self._plan = plan
        self._total = scenarios * plan.repeat
        self._done = 0
        self._on_the_line: dict[tuple[Path, str, int], _OnTheLine] = {}
        calls = f"{self._total} calls, {plan.parallel} at a time"
        budget = "" if plan.budget is None else f", {plan.budget:g} s for all of them"
        self._print(f"  {calls}{budget}\n")

    def call_begins(self, script: Script, number: int) -> Watcher:
        """Show it among those that are going on."""
        call = _OnTheLine(self, script.scenario.name, len(script.scenario.turns))
        self._on_the_line[script.file, script.scenario.name, number] = call
        self.refresh()
        return call

    def call_ends(self, script: Script, attempt: Attempt) -> None:
        """Print how it went and what did not hold."""
        self._on_the_line.pop((script.file, script.scenario.name, attempt.number), None)
        self._done += 1
        name = textwrap.shorten(script.scenario.name, _NAME, placeholder="…")
        if self._plan.repeat > 1:
            name += f" ({attempt.number} of {self._plan.repeat})"
        outcome, call = attempt.outcome, attempt.call
        word = outcome.value if outcome in (Outcome.PASSED, Outcome.SKIPPED) else outcome.upper()
        length = time_of_call(call.duration) if call is not None and call.duration else ""
        place = f"{self._done}/{self._total}"
        self._print(f"{place:>7}  {word:<7} {length:>6}  {name}")
        reasons = [reason for reason in (attempt.skipped, attempt.error) if reason]
        for reason in reasons + (complaints(call) if call is not None else []):
            for line in textwrap.wrap(reason, _WIDTH - len(_INDENT)):
                self._print(f"{_INDENT}{line}")
        self.refresh()

    def suite_ends(self, report: SuiteReport) -> None:
        """Print the table of scenarios and the answer times."""
        self._print("")
        for line in table(report):
            self._print(line)
        times = report.voice_to_voice
        if times is not None:
            self._print(
                f"\nvoice to voice: median {times.median:.0f} ms, p95 {times.p95:.0f} ms,"
                f" worst {times.worst:.0f} ms, {times.answers} answers"
            )

    def refresh(self) -> None:
        """Show anew what is going on."""
        if not self._out.isatty():
            return
        calls = ", ".join(str(call) for call in self._on_the_line.values())
        width = shutil.get_terminal_size().columns - 1
        line = f"{self._done}/{self._total} done; on the line: {calls}" if calls else ""
        self._out.write(f"\r\x1b[K{line[:width]}")
        self._out.flush()

    def _print(self, text: str) -> None:
        erase = "\r\x1b[K" if self._out.isatty() else ""
        self._out.write(f"{erase}{text}\n")
        self._out.flush()


class _OnTheLine(Quiet):
    """One call that is going on."""

    def __init__(self, progress: Progress, name: str, turns: int) -> None:
        self._progress = progress
        self._name = name
        self._turns = turns
        self._turn = 0

    def __str__(self) -> str:
        return f"{self._name} {self._turn}" + (f"/{self._turns}" if self._turns else "")

    def caller_speaks(self, at: float, text: str, over_agent: bool) -> None:
        """Count it."""
        self._turn += 1
        self._progress.refresh()


def table(report: SuiteReport) -> list[str]:
    """All scenarios with how many of their calls passed, and pass^k, as lines of text."""
    columns = range(min(_MOST_COLUMNS, report.repeat))
    titles = "".join(f"{f'pass^{k + 1}':>8}" for k in columns) if report.repeat > 1 else ""
    lines = [f"{'scenario':<{_NAME}}{'calls':>7}{'passed':>8}{titles}"]
    rows: list[ScenarioReport | SuiteReport] = [*report.scenarios, report]
    for row in rows:
        name = row.name if isinstance(row, ScenarioReport) else "all"
        cells = "".join(
            f"{format(row.pass_hat[k], '.2f') if k < len(row.pass_hat) else '–':>8}"
            for k in columns
        )
        name = textwrap.shorten(name, _NAME - 1, placeholder="…")
        lines.append(
            f"{name:<{_NAME}}{row.made:>7}{row.passed:>8}{cells if report.repeat > 1 else ''}"
        )
    return lines
