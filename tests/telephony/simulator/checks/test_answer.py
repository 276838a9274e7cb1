"""Verdicts on one turn's answer and on what was cut off."""

import pytest

from telephony.simulator.checks.answer import check_answer
from telephony.simulator.checks.barge_in import check_barge_in, is_cut
from telephony.simulator.checks.verdict import NO_RECORDS, Unknown
from telephony.simulator.evidence import Answer
from telephony.simulator.expectation import Expectation
from telephony.simulator.report import BargeIn, Latency

SILENCE = Answer(span=None, text=NO_RECORDS, heard=NO_RECORDS, tools=NO_RECORDS)


def answer(**fields):
    return Answer(**{"span": (0, 8000), "text": "", "heard": "", "tools": (), **fields})


def test_an_unexpected_answer_fails_and_so_does_a_missing_one():
    for expected, found in [(True, SILENCE), (False, answer())]:
        (check,) = check_answer(Expectation(answered=expected), found)
        assert check.passed is False


def test_times_are_compared_with_their_limits():
    expect = Expectation(answer_within_ms=500, longest_pause_ms=400, longest_gap_ms=0)
    measured = answer(latency=Latency(voice_to_voice=501), pause_ms=400.0, gap_ms=0.5)

    assert [check.passed for check in check_answer(expect, measured)] == [True, False, True, False]
    assert [check.passed for check in check_answer(expect, SILENCE)] == [False] * 4


def test_what_was_said_and_what_was_heard_are_two_things():
    expect = Expectation(words=("plans",), heard={"never": ["plans"]})

    checks = check_answer(expect, answer(text="We take most plans.", heard="We take"))
    unknown = check_answer(expect, answer(text="We take most plans.", heard=Unknown("not told")))

    assert [check.passed for check in checks] == [True, True, True]
    assert [(check.name, check.passed) for check in unknown[1:]] == [
        ("words", True),
        ("heard.never", None),
    ]


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
