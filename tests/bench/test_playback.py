"""What the benchmark counts as a gap, and whom it counts it for."""

import pytest

from agent.bench.playback import Listened, carried, summarise, table


def listened(*pieces, asked=0.0):
    answer = Listened(asked)
    for now, seconds in pieces:
        answer.hear(now, seconds)
    return answer


def test_audio_in_time_leaves_no_gap_however_it_bunches():
    answer = listened((1.0, 0.5), (1.1, 1.0), (1.2, 1.0), (3.4, 1.0))
    assert answer.gaps == []
    assert answer.runs_out == 4.5
    assert answer.seconds == 3.5


def test_late_audio_is_a_gap_that_puts_off_all_that_follows():
    answer = listened((1.0, 0.5), (1.7, 1.0), (2.8, 1.0))
    assert answer.gaps == pytest.approx([0.2, 0.1])
    assert answer.runs_out == pytest.approx(3.8)


def test_a_gap_that_a_phone_line_covers_is_none_but_moves_playback():
    answer = listened((1.0, 0.5), (1.55, 1.0))
    assert answer.gaps == []
    assert answer.runs_out == 2.55


def test_a_piece_without_audio_starts_no_playback():
    answer = listened((1.0, 0.0), (2.0, 0.5))
    assert answer.begun == 2.0
    assert answer.wait(9.0) == 2.0


def test_an_answer_that_has_run_dry_at_the_end_has_a_gap():
    dry, over, silent = listened((1.0, 0.5)), listened((1.0, 0.5)), listened()
    over.complete = True
    for answer in (dry, over, silent):
        answer.end(4.0)
    assert dry.gaps == [2.5]
    assert over.gaps == silent.gaps == []
    assert silent.wait(4.0) == 4.0


def test_the_machine_carries_the_most_audio_a_second_that_came_out():
    fast, slow = [listened((0.0, 12.0)), listened((0.0, 10.5))], [listened((0.0, 9.0))]
    assert carried([[slow], [fast]], 10.0) == 2
    assert carried([[slow]], 10.0) == 1


def test_calls_that_came_when_the_machine_was_full_are_counted_apart():
    first = [listened((0.5, 1.0), (2.0, 29.0))]
    later = [listened((3.0, 30.0), asked=1.0), listened(asked=4.0)]
    rows = summarise("turns", [first, later], carries=1, end=10.0)
    assert [(row.group, row.calls, row.sessions) for row in rows] == [
        ("first", 1, 2),
        ("later", 1, 2),
    ]
    assert (rows[0].gaps_per_minute, rows[0].gap_seconds, rows[0].longest_gap) == (2.0, 0.5, 0.5)
    assert (rows[1].first_audio_p50, rows[1].silent) == (4.0, 1)
    (row,) = summarise("turns", [first, later], carries=2, end=10.0)
    assert (row.group, row.calls, row.heard_seconds) == ("all", 2, 60.0)


def test_calls_that_never_got_to_ask_are_a_row_all_the_same():
    (row,) = summarise("turns", [[]], carries=1, end=10.0)
    assert table([row], 10.0).rows[0][:5] == ("1", "turns", "all 1", "0", "0.0")
