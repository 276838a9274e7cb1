"""What became of a line that was meant to interrupt."""

from agent.evaluation.wording import plain_words
from telephony.simulator.checks.verdict import NO_RECORDS, at_most
from telephony.simulator.expectation import Expectation
from telephony.simulator.report import BargeIn, Check

_DOUBT_MS = 500
"""An agent may fall silent to hear what the caller wants, so long after a murmur at most. Whoever
answers a murmur needs longer, since the turn's end must be noticed and the answer be made."""


def check_barge_in(expectation: Expectation, barge_in: BargeIn | None) -> list[Check]:
    """Judge a turn that was meant to interrupt.

    Args:
        expectation: What the scenario asks for.
        barge_in: What happened; None if the agent was not talking.

    Returns:
        A check that the agent was interrupted at all, and one for each field that is given.
    """
    checks = [
        Check(
            name="over_agent",
            expected="the line is spoken over the agent",
            found="the agent was not talking"
            if barge_in is None
            else f"{barge_in.after_ms:.0f} ms into its answer",
            passed=barge_in is not None,
        )
    ]
    if expectation.silent_within_ms is not None:
        silent = None if barge_in is None else barge_in.silent_after_ms
        checks.append(
            at_most("silent_within_ms", expectation.silent_within_ms, silent, "no interruption")
        )
    if expectation.history_cut:
        checks.append(_history(barge_in))
    return checks


def check_backchannel(barge_in: BargeIn | None, milliseconds: float) -> list[Check]:
    """Judge a murmur: the agent must talk on, as if nothing had been said, or soon go on.

    Args:
        barge_in: What happened; None if the agent was not talking.
        milliseconds: How long the murmur was audible.
    """
    if barge_in is None:
        found, passed = "the agent was not talking", False
    else:
        found = f"it was heard for {barge_in.silent_after_ms:.0f} ms from the murmur's beginning"
        passed = barge_in.silent_after_ms > milliseconds
        if barge_in.resumed_after_ms is not None and not passed:
            found += f", and again {barge_in.resumed_after_ms:.0f} ms after its end"
            passed = barge_in.resumed_after_ms <= _DOUBT_MS
        if barge_in.decided_after_ms is not None:
            found, passed = f"{found}, and took it for an interruption", False
    return [
        Check(
            name="backchannel",
            expected=f"the agent talks on past the murmur of {milliseconds:.0f} ms, or goes on "
            f"within {_DOUBT_MS} ms of its end",
            found=found,
            passed=passed,
        )
    ]


def is_cut(generated: str, kept: str) -> bool:
    """Whether ``kept`` is a beginning of ``generated`` and not all of it."""
    said, held = plain_words(generated), plain_words(kept)
    if not held:
        return bool(said)
    whole, last = held[:-1], held[-1]
    if said[: len(whole)] != whole or len(said) <= len(whole):
        return False
    return said[len(whole)].startswith(last) and "".join(held) != "".join(said)


def _history(barge_in: BargeIn | None) -> Check:
    found = "no interruption"
    passed: bool | None = False
    if barge_in is not None:
        generated, kept = barge_in.generated, barge_in.kept
        known = generated is not None and kept is not None
        found = f"“{kept}” of “{generated}”" if known else NO_RECORDS.reason
        passed = None if generated is None or kept is None else is_cut(generated, kept)
    return Check(
        name="history_cut",
        expected="the history holds only the beginning of the answer",
        found=found,
        passed=passed,
    )
