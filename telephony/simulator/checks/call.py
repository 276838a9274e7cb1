"""What became of a call as a whole."""

from collections.abc import Sequence

from telephony.simulator.checks.said import check_said
from telephony.simulator.checks.tools import check_tools
from telephony.simulator.checks.verdict import at_most
from telephony.simulator.evidence import Evidence
from telephony.simulator.expectation import NOBODY, CallExpectation
from telephony.simulator.report import Check, TurnReport
from telephony.simulator.trace import CallTrace


def check_ending(expect: CallExpectation, trace: CallTrace) -> list[Check]:
    """Judge how a call ended, what Twilio logged, and whom it was transferred to."""
    codes = {error.code for error in trace.errors}
    wanted = ", ".join(map(str, expect.errors))
    checks = [
        Check(
            name="cause",
            expected=str(expect.cause),
            found="; ".join([str(trace.cause), *(f"Twilio said: {text}" for text in trace.said)]),
            passed=trace.cause is expect.cause,
        ),
        Check(
            name="errors",
            expected=f"{wanted or 'nothing'} in Twilio's error log",
            found=", ".join(f"{error.code} {error.detail}" for error in trace.errors) or "nothing",
            passed=codes == set(expect.errors),
        ),
    ]
    if expect.transferred_to is not None:
        connected = [dial.answered_by for dial in trace.dials if dial.answered_by is not None]
        target = connected[-1] if connected else NOBODY
        checks.append(
            Check(
                name="transferred_to",
                expected=expect.transferred_to,
                found=target,
                passed=_same_target(expect.transferred_to, target),
            )
        )
    return checks


def check_course(
    expect: CallExpectation, evidence: Evidence, turns: Sequence[TurnReport], seconds: float
) -> list[Check]:
    """Judge what was said and done at any time in a call, and its times.

    Args:
        expect: What the scenario asks for.
        evidence: What is known about the call.
        turns: Its turns.
        seconds: Its duration.
    """
    checks = check_said(expect, evidence.texts())
    if expect.heard is not None:
        checks += check_said(expect.heard, evidence.heard(), "heard.")
    if expect.tools is not None:
        checks += check_tools(expect.tools, evidence.tools())
    if expect.at_least_ms is not None:
        checks.append(
            Check(
                name="at_least_ms",
                expected=f"at least {expect.at_least_ms:.0f} ms",
                found=f"{seconds * 1000:.0f} ms",
                passed=seconds * 1000 >= expect.at_least_ms,
            )
        )
    times = [turn.latency.voice_to_voice for turn in turns if turn.latency is not None]
    for name, value in (
        ("at_most_ms", seconds * 1000),
        ("answer_within_ms", max(times, default=None)),
        ("longest_gap_ms", evidence.longest_gap()),
        ("longest_silence_ms", evidence.longest_silence()),
    ):
        limit = getattr(expect, name)
        if limit is not None:
            checks.append(at_most(name, limit, value, "no answer"))
    return checks


def _same_target(one: str, other: str) -> bool:
    """Whether two targets are the same; in telephone numbers, blanks and the like do not count."""
    for mark in " -().":
        one, other = one.replace(mark, ""), other.replace(mark, "")
    return one.lower() == other.lower()
