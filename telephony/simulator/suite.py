"""Many calls in one run: scenarios from files and directories, repeated, side by side, in time."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from loguru import logger

from telephony.clock import Clock
from telephony.simulator.clock import UnixClock
from telephony.simulator.loading import load_scenarios
from telephony.simulator.preparation import new_caller
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario
from telephony.simulator.suite_report import Attempt, ScenarioReport, SuiteReport
from telephony.simulator.target import Target
from telephony.simulator.terminal import Quiet, Watcher

_OF_A_SCENARIO = {"format", "goal", "scenarios", "turns"}
"""By one of these fields at its top a YAML file in a directory is known for a scenario."""
_NO_CALL = "the budget ran out before this call"
_HALF_A_CALL = "the budget ran out during this call"


@dataclass(frozen=True)
class Script:
    """A scenario and where it was read from."""

    file: Path
    scenario: Scenario


@dataclass(frozen=True)
class Plan:
    """How the calls of a run are made.

    Attributes:
        repeat: Calls of each scenario. All scenarios have had one before any has its second.
        parallel: Calls on the line at once.
        budget: Seconds after which no call begins and those on the line are hung up, or None.
    """

    repeat: int = 1
    parallel: int = 1
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("repeat", 1), ("parallel", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget: expected more than 0 seconds, got {self.budget:g}")


class SuiteWatcher(Protocol):
    """Is told about a run while it goes on."""

    def call_begins(self, script: Script, number: int) -> Watcher:
        """A call is about to be placed; what is returned is told about it."""
        ...

    def call_ends(self, script: Script, attempt: Attempt) -> None:
        """A call is over, or will not be made."""
        ...


class QuietSuite:
    """A watcher that does not care."""

    def call_begins(self, script: Script, number: int) -> Watcher:
        """Nothing."""
        return Quiet()

    def call_ends(self, script: Script, attempt: Attempt) -> None:
        """Nothing."""


def collect(paths: Sequence[Path]) -> list[Script]:
    """Read the scenarios to run.

    Args:
        paths: Files, and directories in which every YAML file, however deep, that has ``turns``,
            ``goal`` or ``format`` at its top is a scenario (others are settings or lists of
            recordings; what begins with a dot is passed over). What is given twice is taken once.

    Returns:
        The scenarios in the order of the paths, below a directory in the order of their names.

    Raises:
        ValueError: A file, a field or a recording cannot be used, or a directory holds no scenario;
            the message has a line for each of them.
    """
    files: dict[Path, Path] = {}
    problems: list[str] = []
    for path in paths:
        try:
            found = _scenario_files(path) if path.is_dir() else [path]
            files |= {file.resolve(): file for file in found if file.resolve() not in files}
        except ValueError as error:
            problems.append(str(error))
    scripts = []
    for file in files.values():
        try:
            scripts += _read(file)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return scripts


def _read(file: Path) -> list[Script]:
    """The scenarios of a file, with a look at their recordings: now rather than in the last call.

    Raises:
        ValueError: Something cannot be used; the message names it.
    """
    scripts = [Script(file, scenario) for scenario in load_scenarios(file)]
    for script in scripts:
        new_caller(script.scenario)
    return scripts


def _scenario_files(directory: Path) -> list[Path]:
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix in (".yaml", ".yml")
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        and path.is_file()
        and _looks_like_a_scenario(path)
    ]
    if not files:
        raise ValueError(f"{directory}: no scenario in it (a YAML file with turns)")
    return files


def _looks_like_a_scenario(path: Path) -> bool:
    """Whether a file claims to be one. What cannot be read is left to who reads it in earnest."""
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return True
    return isinstance(content, dict) and not _OF_A_SCENARIO.isdisjoint(content)


async def run_suite(
    scripts: Sequence[Script],
    target: Target,
    out_dir: Path | None,
    *,
    plan: Plan | None = None,
    records: str | Path | None = None,
    watcher: SuiteWatcher | None = None,
    clock: Clock | None = None,
) -> SuiteReport:
    """Make all calls of a run.

    Args:
        scripts: What is called, and about what.
        target: Whom to call.
        out_dir: Receives what each call leaves: a single call's files go into it, those of several
            into a directory for each. None writes nothing.
        plan: How often, how many at once, how long; once, one by one and without end by default.
        records: As for ``run_scenario``.
        watcher: Is told what happens while it happens.
        clock: Paces the calls and measures the budget; the machine's own if not given.

    Returns:
        The report, with every call that was asked for: made, or skipped and why.
    """
    plan = plan or Plan()
    clock = clock or UnixClock()
    run = _Run(plan, target, out_dir, records, watcher or QuietSuite(), clock)
    started_at = clock.time()
    attempts = await run.calls(scripts)
    return SuiteReport(
        target=target.voice_url,
        started_at=started_at,
        seconds=clock.time() - started_at,
        budget=plan.budget,
        repeat=plan.repeat,
        parallel=plan.parallel,
        scenarios=[
            ScenarioReport(
                name=script.scenario.name,
                file=str(script.file),
                description=script.scenario.description,
                attempts=attempts[place],
            )
            for place, script in enumerate(scripts)
        ],
    )


class _Run:
    """What all calls of a run have in common."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        out_dir: Path | None,
        records: str | Path | None,
        watcher: SuiteWatcher,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._target = target
        self._out_dir = out_dir
        self._records = records
        self._watcher = watcher
        self._clock = clock
        self._over = False
        self._on_the_line: set[asyncio.Task[CallReport]] = set()

    async def calls(self, scripts: Sequence[Script]) -> list[list[Attempt]]:
        """Make the calls; the attempts of each script."""
        attempts: list[list[Attempt]] = [[] for _ in scripts]
        numbers = range(1, self._plan.repeat + 1)
        waiting = iter([(number, place) for number in numbers for place in range(len(scripts))])
        several = len(scripts) * self._plan.repeat > 1

        async def line() -> None:
            for number, place in waiting:
                script = scripts[place]
                name = self._directory(place, number, script) if several else "."
                attempt = await self._attempt(script, number, name)
                attempts[place].append(attempt)
                self._watcher.call_ends(script, attempt)

        timer = asyncio.create_task(self._watch_the_time())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.parallel):
                    group.create_task(line())
        finally:
            timer.cancel()
        for made in attempts:
            made.sort(key=lambda attempt: attempt.number)
        return attempts

    async def _watch_the_time(self) -> None:
        if self._plan.budget is None:
            return
        await self._clock.sleep(self._plan.budget)
        self._over = True
        for call in self._on_the_line:
            call.cancel()

    async def _attempt(self, script: Script, number: int, name: str) -> Attempt:
        if self._over:
            return Attempt(number=number, skipped=_NO_CALL)
        directory = None if self._out_dir is None else self._out_dir / name
        call = asyncio.create_task(
            run_scenario(
                script.scenario,
                self._target,
                directory,
                records=self._records,
                watcher=self._watcher.call_begins(script, number),
                clock=self._clock,
                # Drawing one takes long enough to make the other calls stutter.
                picture=name == ".",
            )
        )
        self._on_the_line.add(call)
        left = None if directory is None else name
        try:
            return Attempt(number=number, directory=left, call=await call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._over or (task is not None and task.cancelling()):
                raise
            return Attempt(number=number, directory=left, skipped=_HALF_A_CALL)
        except Exception as error:
            # One call that cannot be made or judged must not cost the others theirs.
            logger.opt(exception=error).debug("call broke")
            if directory is None or not directory.exists():
                left = None
            reason = f"{type(error).__name__}: {error}"
            return Attempt(number=number, directory=left, error=reason)
        finally:
            self._on_the_line.discard(call)

    def _directory(self, place: int, number: int, script: Script) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", script.scenario.name.lower()).strip("-")
        name = f"{place + 1:03}-{words[:40].strip('-')}".rstrip("-")
        return name if self._plan.repeat == 1 else f"{name}.{number}"
