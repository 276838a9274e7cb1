"""Verdicts on how a call ended."""

import pytest

from telephony.simulator.checks.call import check_ending
from telephony.simulator.expectation import CallExpectation
from telephony.simulator.trace import CallTrace, Cause, DialTrace

DESK = "+15550100003"


def dialled(number: str, answered: bool) -> DialTrace:
    by = number if answered else None
    return DialTrace((number,), False, "+15550100001", 0.0, answered_by=by)


@pytest.mark.parametrize(
    ("dials", "expected", "found"),
    [
        ([], "nobody", "nobody"),
        ([dialled(DESK, False)], "nobody", "nobody"),
        ([dialled(DESK, True)], "+1 555 010 0003", DESK),
        ([dialled("+15550100004", True), dialled(DESK, True)], DESK, DESK),
        # In vain at last; the caller was with the first before.
        ([dialled(DESK, True), dialled("+15550100004", False)], DESK, DESK),
    ],
)
def test_a_transfer_is_judged_by_who_answered_last(
    dials: list[DialTrace], expected: str, found: str
) -> None:
    trace = CallTrace("CA0", 0.0, dials=dials, cause=Cause.TRANSFERRED)
    expect = CallExpectation(cause=Cause.TRANSFERRED, transferred_to=expected)
    (check,) = [check for check in check_ending(expect, trace) if check.name == "transferred_to"]
    assert (check.passed, check.found) == (True, found)
    wrong = expect.model_copy(update={"transferred_to": "+15550100009"})
    assert not check_ending(wrong, trace)[-1].passed
