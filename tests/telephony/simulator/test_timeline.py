"""The picture of a call."""

import matplotlib.image
import numpy as np
import pytest

from telephony.simulator.report import BargeIn, CallReport, Latency, TurnReport
from telephony.simulator.timeline import draw_timeline


@pytest.fixture
def report():
    def build(turns, duration, **fields):
        return CallReport(
            scenario="a call",
            call_sid="CA0",
            dialled_at=0.0,
            stream_started_at=0.0,
            webhook_ms=1.0,
            connect_ms=1.0,
            duration=duration,
            cause="the caller hung up",
            said=[],
            turns=turns,
            checks=[],
            marks=[],
            clears=[],
            gaps=[(3.0, 3.1)],
            unplayed=0.0,
            errors=[],
            lateness=None,
            agent_events=[],
            **fields,
        )

    return build


def turn(index, begin, **fields):
    return TurnReport(
        index=index,
        caller="Words. " * 20,
        speech=(begin, begin + 2.0),
        answer=(begin + 3.0, begin + 6.0),
        latency=Latency(voice_to_voice=1000.0),
        **fields,
    )


def test_a_call_of_any_length_is_1600_pixels_wide_and_long_calls_get_more_rows(
    report, tone, tmp_path
):
    heights = []
    for seconds in (0.02, 50.0, 150.0):
        audio = tone(seconds)
        draw_timeline(tmp_path / "t.png", report([turn(0, 1.0)], seconds), audio, audio)
        height, width, _ = matplotlib.image.imread(tmp_path / "t.png").shape
        assert width == 1600
        heights.append(height)
    assert heights[0] == heights[1] < heights[2]


def test_what_a_model_may_say_can_be_drawn_whatever_it_is(report, tone, tmp_path):
    texts = [
        "$x_1$ is no mathematics, nor is \\frac",
        "你好",
        "\N{REPLACEMENT CHARACTER}" * 200,
        "",
    ]
    turns = [turn(n, 8.0 * n, agent=text) for n, text in enumerate(texts)]
    turns[1].barge_in = BargeIn(after_ms=1, silent_after_ms=300, generated="$", kept="$\\frac$")
    turns[2].caller = "$\\frac$"

    draw_timeline(tmp_path / "t.png", report(turns, 40.0), tone(40.0), tone(40.0))

    assert np.ptp(matplotlib.image.imread(tmp_path / "t.png")) > 0.5
