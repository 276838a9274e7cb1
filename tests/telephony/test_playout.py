"""The accounts of what was heard, where the network and pauses would lead them astray."""

import pytest

from telephony.playout import Playout

FRAME = 160


def answering(seconds, answer_id="a1"):
    playout = Playout()
    playout.announce(answer_id)
    playout.feed(answer_id, seconds)
    playout.begin(answer_id)
    return playout


def send(playout, frames, at, every=0.02):
    """Send frames in time; the names of the marks that were due, with the seconds before them."""
    marks = []
    for number in range(frames):
        playout.sent(FRAME, at + number * every, of_answer=True)
        name = playout.due_mark()
        if name is not None:
            marks.append((name, (number + 1) * 0.02))
    return marks


def test_a_slow_network_is_learned_from_the_marks():
    playout = answering(2.0)
    marks = send(playout, 60, at=10.0)
    name, position = marks[0]
    # Played by the clock at 10 + position; the mark took 300 ms there and back.
    heard = playout.returned(name, 10.0 + position + 0.3)
    assert heard.seconds == pytest.approx(position)
    (cut,) = playout.cleared(11.0)
    assert cut.seconds == pytest.approx(0.7, abs=0.021)


def test_a_pause_in_the_audio_is_not_counted_as_heard():
    playout = answering(0.2)
    marks = send(playout, 10, at=10.0)
    playout.returned(marks[-1][0], 10.2)
    playout.feed("a1", 1.0)
    send(playout, 10, at=15.0, every=0.0)
    (cut,) = playout.cleared(15.1)
    assert cut.seconds == pytest.approx(0.3, abs=0.021)


def test_other_sound_between_two_halves_of_an_answer_is_not_the_answer():
    playout = answering(1.0)
    send(playout, 10, at=10.0, every=0.0)
    for _ in range(10):
        playout.sent(FRAME, 10.0, of_answer=False)
    send(playout, 10, at=10.0, every=0.0)
    (cut,) = playout.cleared(10.3)
    assert cut.seconds == pytest.approx(0.2, abs=0.001)


def test_a_mark_that_returns_late_never_takes_back_what_was_heard():
    playout = answering(2.0)
    marks = send(playout, 60, at=10.0)
    first = playout.returned(marks[1][0], 11.1)
    late = playout.returned(marks[0][0], 11.2)
    assert late.seconds == first.seconds


def test_padding_of_the_last_frame_is_not_heard_audio():
    playout = answering(0.105)
    playout.end("a1")
    marks = send(playout, 6, at=10.0)
    heard = playout.returned(marks[-1][0], 10.2)
    assert heard.completed
    assert heard.seconds == pytest.approx(0.105)


def test_a_call_of_a_thousand_answers_keeps_accounts_of_none():
    playout = Playout()
    for number in range(1000):
        answer_id = f"a{number}"
        playout.announce(answer_id)
        playout.feed(answer_id, 0.02)
        playout.begin(answer_id)
        playout.end(answer_id)
        ((name, _),) = send(playout, 1, at=float(number))
        assert playout.returned(name, number + 0.1).completed
    assert not playout._answers
    assert not playout._pending


def test_what_a_held_phone_has_not_played_counts_as_not_sent():
    playout = answering(2.0)
    send(playout, 10, at=10.0, every=0.0)
    unplayed = playout.held(10.07)
    # In whole frames: the one that was being played is sent again.
    assert unplayed.runs == (("a1", FRAME),) * 7
    (cut,) = playout.cleared(10.5)
    assert cut.seconds == pytest.approx(0.06)


def test_a_held_phone_repeats_rather_than_loses_what_no_mark_has_confirmed():
    playout = answering(0.2)
    playout.end("a1")
    marks = send(playout, 10, at=10.0, every=0.0)
    # By the clock all of it was played, but the mark before the last frames has not come back.
    unplayed = playout.held(11.0)
    assert not unplayed.runs
    (renewed,) = unplayed.marks
    assert playout.returned(marks[-1][0], 11.0) is None
    heard = playout.returned(renewed, 11.1)
    assert (heard.seconds, heard.completed) == (pytest.approx(0.2), True)


def test_an_interruption_before_any_sound_cuts_nothing_that_was_heard():
    playout = answering(1.0)
    (cut,) = playout.cleared(10.0)
    assert cut.seconds == 0
