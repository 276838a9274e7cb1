"""Figures and how sure they are."""

import pytest

from agent.evaluation.results import error_rate, mean, share


def test_all_right_of_few_is_not_certainly_all():
    figure = share("accuracy_text", "x", [1.0] * 4)
    assert figure.value == 100.0
    assert figure.low == pytest.approx(51.0, abs=0.1)  # Wilson, 4 of 4
    assert figure.high == 100.0


def test_long_references_weigh_more():
    figure = error_rate("wer", "x", [0, 2], [8, 2])
    assert figure.value == pytest.approx(20.0)
    assert figure.low <= 20.0 <= figure.high
    assert error_rate("wer", "x", [0, 2], [8, 2]) == figure


def test_a_mean_lies_inside_its_interval():
    figure = mean("quality", "x", [1.0, 2.0, 9.0], "of 10", "higher")
    assert figure.value == pytest.approx(4.0)
    assert figure.low < 4.0 < figure.high
