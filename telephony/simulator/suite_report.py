"""What a run of several calls found: the content of report.json."""

import math
import statistics
from collections.abc import Sequence
from enum import IntEnum, StrEnum

from pydantic import computed_field

from telephony.simulator.report import CallReport, Part


class Outcome(StrEnum):
    """What became of a call, or of several."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


class ExitStatus(IntEnum):
    """What the process says to whoever started it. Wrong input, 2, never gets as far as a run."""

    PASSED = 0
    FAILED = 1
    OUT_OF_BUDGET = 3


class Spread(Part):
    """How long answers took: voice-to-voice times in milliseconds, nearest rank."""

    answers: int
    median: float
    p95: float
    worst: float


class Attempt(Part):
    """One call of a scenario.

    Attributes:
        number: Counts the calls of this scenario from 1.
        directory: Holds the call's own files; relative to the run's directory, None without any.
        call: What was found; None where there was no call, or none that could be judged.
        skipped: Why it was not made or not finished, None where it was.
        error: What went wrong with the rehearsal itself, None where nothing did.
    """

    number: int
    directory: str | None = None
    call: CallReport | None = None
    skipped: str | None = None
    error: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> Outcome:
        """Derived from the rest."""
        if self.error is not None:
            return Outcome.ERROR
        if self.call is None:
            return Outcome.SKIPPED
        return Outcome.PASSED if self.call.passed else Outcome.FAILED


class ScenarioReport(Part):
    """All calls of one scenario.

    Attributes:
        name: The scenario's.
        file: Where it was read from.
        description: The scenario's.
        attempts: In order of their numbers.
    """

    name: str
    file: str
    description: str = ""
    attempts: list[Attempt]

    @property
    def made(self) -> int:
        """Calls that were made."""
        return sum(attempt.outcome is not Outcome.SKIPPED for attempt in self.attempts)

    @property
    def passed(self) -> int:
        """Calls in which every check holds."""
        return sum(attempt.outcome is Outcome.PASSED for attempt in self.attempts)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> Outcome:
        """The worst of the attempts'."""
        return worst([attempt.outcome for attempt in self.attempts])

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pass_hat(self) -> list[float]:
        """pass^1, pass^2, ... as far as there are calls; see ``pass_hat``."""
        return pass_hat(self.passed, self.made)


class SuiteReport(Part):
    """A run.

    Attributes:
        target: The voice webhook that was called.
        started_at: Unix seconds.
        seconds: How long the calls took together, by the clock on the wall.
        budget: How many seconds they were allowed, or None.
        repeat: How many calls each scenario was to have.
        parallel: How many calls were on the line at once.
        scenarios: In the order in which they were given.
    """

    target: str
    started_at: float
    seconds: float
    budget: float | None = None
    repeat: int = 1
    parallel: int = 1
    scenarios: list[ScenarioReport]

    @property
    def attempts(self) -> list[Attempt]:
        """All of them, scenario by scenario."""
        return [attempt for scenario in self.scenarios for attempt in scenario.attempts]

    @property
    def made(self) -> int:
        """Calls that were made."""
        return sum(attempt.outcome is not Outcome.SKIPPED for attempt in self.attempts)

    @property
    def passed(self) -> int:
        """Calls in which every check holds."""
        return sum(attempt.outcome is Outcome.PASSED for attempt in self.attempts)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> Outcome:
        """The worst of the scenarios'."""
        return worst([scenario.outcome for scenario in self.scenarios])

    @computed_field  # type: ignore[prop-decorator]
    @property
    def counts(self) -> dict[Outcome, int]:
        """How many calls came to which end."""
        outcomes = [attempt.outcome for attempt in self.attempts]
        return {outcome: outcomes.count(outcome) for outcome in Outcome}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pass_hat(self) -> list[float]:
        """The mean over the scenarios, up to the k that all scenarios with calls have."""
        rows = [scenario.pass_hat for scenario in self.scenarios if scenario.pass_hat]
        return [statistics.fmean(column) for column in zip(*rows, strict=False)]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def voice_to_voice(self) -> Spread | None:
        """Of all answers in all calls; None without any."""
        return spread([a.call for a in self.attempts if a.call is not None])

    @property
    def exit_status(self) -> ExitStatus:
        """A call that failed says more than one that was not made."""
        match self.outcome:
            case Outcome.PASSED:
                return ExitStatus.PASSED
            case Outcome.SKIPPED:
                return ExitStatus.OUT_OF_BUDGET
            case _:
                return ExitStatus.FAILED


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome for several: error before failed before skipped before passed."""
    order = (Outcome.ERROR, Outcome.FAILED, Outcome.SKIPPED)
    return next((outcome for outcome in order if outcome in outcomes), Outcome.PASSED)


def spread(calls: Sequence[CallReport]) -> Spread | None:
    """How long the answers of some calls took; None without any."""
    times = sorted(t.latency.voice_to_voice for c in calls for t in c.turns if t.latency)
    if not times:
        return None
    median, p95 = (times[math.ceil(share * len(times)) - 1] for share in (0.5, 0.95))
    return Spread(answers=len(times), median=median, p95=p95, worst=times[-1])


def pass_hat(passed: int, made: int) -> list[float]:
    """Chances that k calls in a row all pass, for k from 1 to ``made``.

    The unbiased estimate: of all ways to choose k of the calls that were made, the share in which
    each one passed.

    Args:
        passed: How many calls passed.
        made: How many there were.
    """
    return [math.comb(passed, k) / math.comb(made, k) for k in range(1, made + 1)]
