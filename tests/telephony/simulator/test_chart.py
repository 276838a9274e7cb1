"""Where a chart's lines go."""

import pytest

from telephony.simulator.chart import Chart


@pytest.fixture
def chart():
    def build(x, limit=None, **lines):
        return Chart("title", "calls", "ms", x, lines, limit)

    return build


def test_everything_lies_within_the_drawing_and_the_limit_too(chart):
    drawn = chart([1, 2, 8], p50=[500, 600, 700], p99=[600, 1000, 2400], limit=3000)

    assert drawn.y_ticks[0] == 0
    assert drawn.up(2400) < drawn.up(3000) <= 1.0
    assert drawn.points("p50")[0] == (0.0, pytest.approx(500 / drawn.y_ticks[-1]))
    assert [left for left, _ in drawn.points("p50")] == [0.0, pytest.approx(1 / 7), 1.0]


def test_a_missing_value_breaks_the_line_and_is_not_taken_for_nothing(chart):
    drawn = chart([0, 1, 2, 3, 4], p50=[5, 5, None, 5, 5])

    assert drawn.path("p50").count("M") == 2
    assert len(drawn.points("p50")) == 4


def test_few_places_are_named_each_and_many_at_round_ones(chart):
    assert chart([1, 3, 24], p50=[1, 1, 1]).x_ticks == [1, 3, 24]
    many = [2.5 * n for n in range(1, 60)]
    ticks = chart(many, p50=[1] * 59).x_ticks
    assert len(ticks) <= 7
    assert all(tick % 10 == 0 and 2.5 <= tick <= 147.5 for tick in ticks)


@pytest.mark.parametrize(("x", "values"), [([3], [7]), ([], []), ([1, 2], [None, None])])
def test_a_chart_of_one_value_or_none_can_be_drawn(chart, x, values):
    drawn = chart(x, p50=values)

    assert len(drawn.points("p50")) == len([v for v in values if v is not None])
    assert drawn.y_ticks[-1] > 0
    assert len(drawn.x_ticks) == len(x)


def test_a_line_of_another_length_is_named(chart):
    with pytest.raises(ValueError, match="p95: expected 2 values, got 1"):
        chart([1, 2], p50=[1, 1], p95=[1])
