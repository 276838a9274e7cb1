"""Verdicts on what was said: in which reading, in which answer, and what silence proves."""

import pytest

from telephony.simulator.checks.said import check_said
from telephony.simulator.checks.verdict import NO_RECORDS
from telephony.simulator.expectation import Said


@pytest.mark.parametrize(
    ("expect", "text", "passed"),
    [
        ({"words": ("six in the evening",)}, "From eight, to SIX in the evening!", True),
        ({"words": ("six", "eight")}, "Six o'clock.", False),
        ({"words": ("port",)}, "A passport, please.", False),
        ({"words": ("6 pm",)}, "We close at six in the evening.", True),
        ({"words": ("six",)}, "We close at 6.", True),
        ({"matches": r"\bten\b|10"}, "At ten.", True),
        ({"matches": r"\bten\b"}, "Often.", False),
        # A regular expression sees the text as it is, or a forbidden word would hide in a digit.
        ({"matches": r"^(?!.*\bten\b)"}, "At ten.", False),
        ({"exact": "At  ten."}, " At ten.\n", True),
        ({"exact": "At ten."}, "at ten.", False),
        ({"similar_to": "We are open on Monday."}, "we are open Mondays, on Monday", True),
        ({"similar_to": "We are open on Monday."}, "I do not know that.", False),
        ({"never": ("ten o'clock",)}, "At 10:00 pm.", False),
        ({"never": ("port",)}, "A passport, please.", True),
        ({"never_matches": "pass(word|port)"}, "A Passport.", False),
        ({"never_matches": "password"}, "A Passport.", True),
    ],
)
def test_a_text_says_what_it_must_and_nothing_it_must_not(expect, text, passed):
    checks = check_said(Said.model_validate(expect), [text])

    assert all(check.passed for check in checks) is passed


def test_one_of_several_answers_is_enough_and_none_may_say_the_forbidden():
    texts = ["We open at eight.", "It is free."]
    expect = Said(words=("free", "eight. It"), never=("open",), similar_to="it is free")

    checks = {check.expected: check for check in check_said(expect, texts)}

    assert checks["“free”"].passed
    # Two answers do not make one sentence.
    assert checks["“eight. It”"].passed is False
    assert checks["not “open”"].passed is False
    assert checks["not “open”"].found == "“We open at eight.”"
    assert checks["at least 0.70 like “it is free”"].found == "1.00: “It is free.”"


def test_where_nothing_was_said_nothing_forbidden_was():
    checks = check_said(Said(words=("a",), never=("b",), similar_to="c"), [])

    assert [check.passed for check in checks] == [False, True, False]


def test_what_nobody_wrote_down_is_unknown_even_what_must_not_be_said():
    expect = Said(words=("a",), matches="a", exact="a", similar_to="a", never=("b",))

    checks = check_said(expect, NO_RECORDS, "heard.")

    assert {check.passed for check in checks} == {None}
    assert "heard.never" in {check.name for check in checks}
    assert {check.found for check in checks} == {NO_RECORDS.reason}
