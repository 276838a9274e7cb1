"""The schedules, and what listeners would hear of them in a simulated decoder."""

import math
from dataclasses import dataclass, field

import pytest

from agent.serving.schedule import (
    PIECE_SECONDS,
    Candidate,
    Choice,
    DeadlineSchedule,
    TurnSchedule,
    create_schedule,
    extended,
)

LEAD = 3.0


def deadline(cost=None, max_batch=1):
    schedule = DeadlineSchedule(LEAD, max_batch)
    if cost is not None:
        for _ in range(20):
            schedule.measured(1, cost)
    return schedule


def playing(runs_out, pieces=math.inf, waiting=True):
    return Candidate(0.0, waiting, pieces, runs_out)


def new(joined=0.0, pieces=math.inf):
    return Candidate(joined, True, pieces, None)


def test_playback_ends_after_what_was_sent_and_a_gap_puts_it_off():
    runs_out = extended(None, 10.0, 0.5)
    assert runs_out == 10.5
    assert extended(runs_out, 10.2, 1.0) == 11.5
    assert extended(runs_out, 12.0, 1.0) == 13.0


@pytest.mark.parametrize("schedule", [deadline(0.2), deadline(), TurnSchedule()])
def test_nothing_to_decode_is_no_choice(schedule):
    assert schedule.choose([], 0.0) == Choice([])
    assert schedule.choose([playing(-1.0, waiting=False)], 0.0) == Choice([])


def test_the_answer_that_runs_out_first_goes_first():
    answers = [playing(2.0), playing(1.0), playing(0.5, waiting=False), playing(1.5)]
    assert deadline(0.2).choose(answers, 0.0).take == [1]


def test_an_answer_far_ahead_of_its_playback_is_left_until_it_is_due():
    schedule = deadline(0.2)
    answers = [playing(105.0), playing(104.0)]
    assert schedule.choose(answers, 100.0) == Choice([], wake=101.0)
    assert schedule.choose(answers, 101.0).take == [1]


def test_a_first_piece_goes_before_answers_that_can_wait():
    answers = [playing(2.0), playing(2.5), new()]
    assert deadline(0.2).choose(answers, 0.0).take == [2]


def test_before_anything_was_measured_a_first_piece_goes_first():
    assert deadline().choose([playing(0.1), new()], 0.0).take == [1]


def test_an_answer_that_cannot_wait_goes_before_a_first_piece():
    assert deadline(0.2).choose([playing(0.3), new()], 0.0).take == [0]
    assert deadline(0.2).choose([playing(-0.3), new()], 0.0).take == [0]


def test_a_first_piece_waits_while_endless_answers_need_all_there_is():
    # A quarter of the time each: three and the new one are more than the machine is trusted with.
    answers = [playing(103.5), playing(103.6), playing(103.7), new()]
    assert deadline(0.2).choose(answers, 100.0) == Choice([], wake=100.5)
    assert deadline(0.2).choose(answers[1:], 100.0).take == [2]


def test_ends_in_sight_let_in_what_endless_answers_would_not():
    answers = [playing(2.0, pieces=2), playing(2.5, pieces=1), playing(3.0, pieces=3), new()]
    assert deadline(0.2).choose(answers, 0.0).take == [3]


def test_a_short_answer_is_let_in_where_a_long_one_is_not():
    answers = [playing(2.0), playing(2.5), playing(2.9)]
    assert deadline(0.2).choose([*answers, new(pieces=2)], 0.0).take == [3]
    assert deadline(0.2).choose([*answers, new(pieces=60)], 0.0).take == [0]


def test_an_answer_without_anything_to_decode_holds_a_first_piece_back_until_it_has_run_dry():
    answers = [playing(0.1, waiting=False), new()]
    assert deadline(0.2).choose(answers, 0.0) == Choice([], wake=0.1)
    assert deadline(0.2).choose(answers, 0.1).take == [1]


def test_a_slow_machine_still_answers_one():
    assert deadline(5.0).choose([new()], 0.0).take == [0]


def test_of_new_answers_that_of_the_longest_call_goes_first():
    assert deadline(0.2).choose([new(joined=7.0), new(joined=3.0), new(joined=5.0)], 9.0).take == [
        1
    ]


def test_pieces_are_decoded_together_as_far_as_the_most_urgent_can_wait():
    answers = [playing(0.5), playing(0.6), playing(0.7), playing(0.8), playing(9.0)]
    assert deadline(0.2, max_batch=4).choose(answers, 0.0).take == [0, 1]
    assert deadline(0.1, max_batch=4).choose(answers, 0.0).take == [0, 1, 2, 3]
    assert deadline(0.1, max_batch=3).choose(answers, 0.0).take == [0, 1, 2]
    assert deadline(max_batch=4).choose(answers, 0.0).take == [0]


def test_pieces_too_late_anyway_are_decoded_together():
    answers = [playing(-0.5), playing(-0.4), playing(0.3)]
    assert deadline(0.2, max_batch=4).choose(answers, 0.0).take == [0, 1, 2]


@pytest.mark.parametrize("schedule", [deadline(0.1, max_batch=4), TurnSchedule(max_batch=4)])
def test_a_first_piece_is_not_delayed_by_a_batch(schedule):
    assert schedule.choose([playing(2.0), new(), playing(2.0), new()], 0.0).take == [1]


def test_a_slow_piece_now_and_then_shuts_nobody_out():
    schedule = deadline(0.2)
    schedule.measured(1, 0.5)
    assert schedule.choose([playing(2.0), new()], 0.0).take == [1]


def test_a_slow_start_is_soon_forgotten():
    schedule = deadline()
    for seconds in (1.0, 0.2, 0.2, 0.2):
        schedule.measured(1, seconds)
    assert schedule.choose([playing(2.9, pieces=2), new()], 0.0).take == [1]


def test_lasting_slowness_is_learnt():
    schedule = deadline(0.1)
    for _ in range(30):
        schedule.measured(2, 1.0)
    assert schedule.choose([playing(2.0), new()], 0.0).take == [0]


def test_turns_go_round_and_know_no_lead():
    answers = [playing(50.0), playing(1.0, waiting=False), playing(0.1)]
    assert TurnSchedule().choose(answers, 0.0).take == [0]
    assert TurnSchedule(max_batch=2).choose(answers, 0.0).take == [0, 2]


def test_the_parameter_names_a_schedule():
    assert isinstance(create_schedule("turns", LEAD, 1), TurnSchedule)
    schedule = create_schedule("deadline", 5.0, 1)
    assert isinstance(schedule, DeadlineSchedule)
    assert schedule.choose([playing(9.0)], 0.0) == Choice([], wake=4.0)


@dataclass
class Listener:
    """Asks once; keeps what it heard."""

    asked: float
    pieces: int
    first: float | None = None
    runs_out: float | None = None
    gaps: list[float] = field(default_factory=list)

    def candidate(self):
        return Candidate(self.asked, self.pieces > 0, self.pieces, self.runs_out)

    def hear(self, now):
        self.pieces -= 1
        if self.runs_out is None:
            self.first = now - self.asked
            self.runs_out = extended(None, now, PIECE_SECONDS - 0.23)
            return
        if now > self.runs_out + 1e-9:
            self.gaps.append(now - self.runs_out)
        self.runs_out = extended(self.runs_out, now, PIECE_SECONDS)


def simulate(schedule, calls, cost=0.2, pieces=12, every=0.1):
    """So many calls, one after the other, to a decoder that takes `cost` seconds a piece."""
    listeners = [Listener(every * index, pieces) for index in range(calls)]
    turns = list(listeners)
    now = 0.0
    while any(listener.pieces for listener in listeners):
        here = [listener for listener in turns if listener.asked <= now]
        choice = schedule.choose([listener.candidate() for listener in here], now)
        if not choice.take:
            coming = [listener.asked for listener in listeners if listener.asked > now]
            now = min(coming + ([] if choice.wake is None else [choice.wake]))
            continue
        known = all(here[index].runs_out is not None for index in choice.take)
        now += cost * len(choice.take)
        if known:
            schedule.measured(len(choice.take), cost * len(choice.take))
        for index in choice.take:
            here[index].hear(now)
            turns.remove(here[index])
            turns.append(here[index])
    return listeners


@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("calls", [1, 2, 3, 8, 16])
def test_more_calls_than_the_machine_can_carry_wait_instead_of_stuttering(calls, max_batch):
    listeners = simulate(deadline(0.2, max_batch), calls)
    assert sum(listener.gaps != [] for listener in listeners) == 0
    # In the order in which they came, and without wasting the machine's time.
    begun = [listener.asked + listener.first for listener in listeners]
    assert begun == sorted(begun)
    assert max(listener.runs_out for listener in listeners) < calls * 12 * 0.2 + 12 * PIECE_SECONDS


def test_a_machine_that_can_carry_them_lets_nobody_wait():
    for listener in simulate(deadline(0.05), 8, cost=0.05):
        assert listener.first < 0.2


def test_with_turns_everybody_stutters():
    listeners = simulate(TurnSchedule(), 8)
    assert all(listener.gaps for listener in listeners)


def test_what_a_piece_costs_says_how_many_answers_can_be_carried():
    assert deadline().carries() is None
    assert deadline(0.24).carries() == pytest.approx(3.0)
    assert TurnSchedule().carries() is None
    # As many answers without end as that are let in, and no more.
    schedule = deadline(PIECE_SECONDS / 4)
    most = int(schedule.carries())
    far = [playing(100.0) for _ in range(most)]
    assert schedule.choose([*far[1:], new()], 0.0).take == [most - 1]
    assert schedule.choose([*far, new()], 0.0).take == []
