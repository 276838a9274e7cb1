"""What is measured of a call while it goes on."""

import numpy as np
import pytest

from telephony import mulaw
from telephony.simulator.caller import Spoken
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.playback import Played

TONE = mulaw.encode(np.full(160, 8000, np.int16) * np.resize([1, -1], 160).astype(np.int16))
QUIET = b"\xff" * 160
SOUND, ZEROS, NOTHING = Played(TONE, 160, ()), Played(QUIET, 160, ()), Played(QUIET, 0, ())
HALF = Played(TONE[:80] + QUIET[:80], 80, ())


def play(*frames):
    meter = CallMeter()
    for frame in frames:
        meter.played(frame)
    return meter


def gaps(meter):
    return [round(gap.ms) for gap in meter.gaps]


def line(end, start=0, over_agent=False):
    return Spoken(turn=2, start=start, end=end, over_agent=over_agent, waited_in_vain=False)


def test_what_is_missing_inside_an_answer_is_a_gap():
    assert gaps(play(SOUND, NOTHING, NOTHING, NOTHING, NOTHING, SOUND)) == [80]
    assert gaps(play(SOUND, HALF, SOUND)) == [10]


def test_silence_that_was_sent_and_pauses_between_answers_are_no_gaps():
    assert gaps(play(SOUND, ZEROS, ZEROS, ZEROS, ZEROS, SOUND)) == []
    assert gaps(play(NOTHING, NOTHING, SOUND)) == []
    assert gaps(play(SOUND, *[NOTHING] * 51, SOUND)) == []


def test_a_clear_and_a_line_of_the_caller_end_what_was_being_said():
    cleared = play(SOUND, NOTHING)
    cleared.cleared()
    for frame in (NOTHING, NOTHING, NOTHING, SOUND):
        cleared.played(frame)
    spoken = play(SOUND, NOTHING)
    spoken.spoke(line(end=1000))
    for frame in (NOTHING, NOTHING, NOTHING, SOUND):
        spoken.played(frame)
    assert gaps(cleared) == gaps(spoken) == []


def test_voice_to_voice_runs_from_the_end_of_the_line_to_the_first_sound():
    meter = CallMeter()
    meter.spoke(line(end=400))
    for frame in (SOUND, SOUND, ZEROS, NOTHING, ZEROS, SOUND, SOUND):
        meter.played(frame)
    (answer,) = meter.answers
    # What is heard before the line's end at sample 400 answers something else.
    assert (answer.turn, answer.position) == (2, 800)
    assert answer.ms == pytest.approx((800 - 400) / 8)
    assert meter.unanswered == 0


def test_a_line_that_gets_no_answer_is_counted_and_one_over_the_agent_is_not_timed():
    meter = CallMeter()
    meter.spoke(line(end=100))
    meter.played(NOTHING)
    meter.spoke(line(end=300, over_agent=True))
    meter.played(SOUND)
    meter.played(SOUND)
    meter.over()
    assert (meter.unanswered, meter.answers) == (1, [])
