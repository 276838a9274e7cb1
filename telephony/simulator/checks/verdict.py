"""Verdicts that several checks have in common."""

from dataclasses import dataclass

from telephony.simulator.report import Check


@dataclass(frozen=True)
class Unknown:
    """In the place of what a check would look at: nothing allows to tell, and why."""

    reason: str


NO_RECORDS = Unknown("the agent's records of this call would be needed to tell")


def unknown(name: str, expected: str, why: Unknown) -> Check:
    """A check that nothing allows to make."""
    return Check(name=name, expected=expected, found=why.reason, passed=None)


def at_most(name: str, limit: float, value: float | None, missing: str) -> Check:
    """Judge a time in milliseconds; where there is none it fails, for the reason given."""
    return Check(
        name=name,
        expected=f"at most {limit:.0f} ms",
        found=missing if value is None else f"{value:.0f} ms",
        passed=value is not None and value <= limit,
    )
