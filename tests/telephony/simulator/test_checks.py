"""Verdicts on what the agent said and what its history keeps."""

import pytest

from telephony.simulator.checks import check_answer, check_barge_in, is_cut, similarity
from telephony.simulator.report import BargeIn
from telephony.simulator.scenario import Expectation


@pytest.mark.parametrize(
    ("expectation", "text", "passed"),
    [
        ({"words": ("six in the evening",)}, "From eight, to SIX in the evening!", True),
        ({"words": ("six", "eight")}, "Six o'clock.", False),
        ({"words": ("port",)}, "A passport, please.", False),
        ({"matches": r"\bten\b|10"}, "At ten.", True),
        ({"matches": r"\bten\b"}, "Often.", False),
        ({"similar_to": "We are open on Monday."}, "we are open Mondays, on Monday", True),
        ({"similar_to": "We are open on Monday."}, "I do not know that.", False),
    ],
)
def test_text_is_compared_word_by_word_whatever_its_case(expectation, text, passed):
    checks = check_answer(Expectation(**expectation), True, text, None)

    assert all(check.passed for check in checks) is passed


def test_an_unexpected_answer_fails_and_so_does_a_missing_one():
    for expected, found in [(True, False), (False, True)]:
        (check,) = check_answer(Expectation(answered=expected), found, None, None)
        assert check.passed is False


@pytest.mark.parametrize(
    ("generated", "kept", "cut"),
    [
        ("We take most plans.", "We take", True),
        ("We take most plans.", "We take mo", True),
        ("We take most plans.", "", True),
        ("We take most plans.", "We take most plans.", False),
        ("We take most plans.", "We take most plans. And more", False),
        ("We take most plans.", "Please bring", False),
        ("", "", False),
    ],
)
def test_a_history_is_cut_when_it_keeps_the_beginning_and_not_all(generated, kept, cut):
    assert is_cut(generated, kept) is cut


def test_similarity_is_one_for_the_same_words_and_zero_for_others():
    assert similarity("Hello, there!", "hello there") == 1
    assert similarity("hello there", "good bye") == 0


def test_a_history_that_kept_everything_fails_the_barge_in():
    barge_in = BargeIn(after_ms=900, silent_after_ms=300, generated="All of it.", kept="All of it.")

    checks = check_barge_in(Expectation(silent_within_ms=200, history_cut=True), barge_in)

    assert [(check.name, check.passed) for check in checks] == [
        ("over_agent", True),
        ("silent_within_ms", False),
        ("history_cut", False),
    ]


def test_without_an_interruption_nothing_about_it_holds():
    checks = check_barge_in(Expectation(silent_within_ms=200, history_cut=True), None)

    assert [check.passed for check in checks] == [False, False, False]


def test_a_history_that_nobody_wrote_down_is_unknown():
    barge_in = BargeIn(after_ms=900, silent_after_ms=100)

    checks = check_barge_in(Expectation(history_cut=True), barge_in)

    assert [check.passed for check in checks] == [True, None]
