"""The scripted caller, tick by tick, without any clock."""

import numpy as np
import pytest

from telephony import mulaw
from telephony.simulator.caller import FRAME, Caller, Line, State

SILENCE = np.zeros(FRAME, np.int16)


@pytest.fixture
def call(scenario, tone):
    """Runs a caller against what an agent says: pairs (from second, to second)."""

    def run(turns, agent, seconds=30.0, **fields):
        line = Line.of(
            np.concatenate([np.zeros(800, np.int16), tone(1.0), np.zeros(1600, np.int16)])
        )
        caller = Caller(scenario(turns, **fields), [line] * len(turns))
        sound = tone(0.02)
        for tick in range(round(seconds * 50)):
            talks = any(begin <= tick * 0.02 < end for begin, end in agent)
            if caller.tick(sound if talks else SILENCE) is None:
                break
        return caller

    return run


def starts(caller):
    return [line.start / 8000 for line in caller.spoken]


def test_after_agent_waits_until_the_agent_has_been_silent_for_the_given_time(call):
    when = {"after_agent": {"silence_ms": 500}}

    caller = call([{"when": when}], agent=[(0.4, 1.0), (1.3, 2.0), (6.0, 7.0)], greeting=True)

    assert starts(caller) == [pytest.approx(2.0 + 0.5 + 0.1, abs=0.021)]
    assert not caller.spoken[0].waited_in_vain
    assert caller.state is State.HUNG_UP
    assert caller.position / 8000 == pytest.approx(7.0 + 0.9, abs=0.021)


def test_without_a_greeting_the_caller_speaks_first(call):
    assert starts(call([{}], agent=[]))[0] == pytest.approx(0.9 + 0.1, abs=0.021)


def test_patience_ends_when_nobody_answers(call):
    caller = call([{}, {}], agent=[], patience_ms=2000, greeting=True)

    first, second = caller.spoken
    assert first.waited_in_vain
    assert second.waited_in_vain
    assert first.start / 8000 == pytest.approx(2.0 + 0.1, abs=0.021)
    assert (second.start - first.end) / 8000 == pytest.approx(2.0 + 0.1, abs=0.021)


def test_a_barge_in_starts_so_long_after_the_answer_became_audible(call):
    when = {"during_agent": {"after_ms": 1500}}

    caller = call([{"when": when}], agent=[(1.0, 9.0)], greeting=True)

    assert starts(caller) == [pytest.approx(1.0 + 1.5 + 0.1, abs=0.021)]
    assert caller.spoken[0].over_agent


def test_an_answer_that_is_too_short_to_interrupt_is_noticed(call):
    when = {"during_agent": {"after_ms": 5000}}

    caller = call([{"when": when}], agent=[(1.0, 2.0)], greeting=True)

    assert caller.spoken[0].waited_in_vain
    assert not caller.spoken[0].over_agent
    assert starts(caller)[0] < 4


def test_at_ms_speaks_at_its_time_whatever_the_agent_does(call):
    assert starts(call([{"when": {"at_ms": 3000}}], agent=[(0.0, 9.0)])) == [pytest.approx(3.1)]


def test_the_caller_hangs_up_when_the_call_takes_too_long(call):
    caller = call([{}], agent=[(0.0, 99.0)], greeting=True, longest_ms=4000)

    assert caller.spoken == []
    assert caller.state is State.HUNG_UP
    assert caller.position == 4 * 8000


def test_an_answer_during_the_recordings_trailing_silence_counts(call):
    # The line ends at 2.0 s, its recording at 2.2 s; the answer is over before that.
    caller = call([{}, {}], agent=[(2.02, 2.12)])

    assert not caller.spoken[1].waited_in_vain


def test_after_caller_goes_on_after_a_pause_whatever_the_agent_does(call):
    turns = [{}, {"when": {"after_caller": {"after_ms": 1500}}}]

    caller = call(turns, agent=[(2.5, 9.0)])

    first, second = caller.spoken
    assert (second.start - first.end) / 8000 == pytest.approx(1.5 + 0.1, abs=0.021)


def test_a_murmur_leaves_the_caller_listening_to_the_same_answer(call):
    murmur = {"when": {"during_agent": {"after_ms": 500}}, "backchannel": True}

    caller = call([murmur, {}], agent=[(1.0, 6.0)], greeting=True)

    first, second = caller.spoken
    assert first.start / 8000 == pytest.approx(1.0 + 0.5 + 0.1, abs=0.021)
    assert first.over_agent
    assert second.start / 8000 == pytest.approx(6.0 + 0.9 + 0.1, abs=0.021)
    assert not second.waited_in_vain


def test_without_being_a_murmur_the_same_line_waits_for_another_answer(call):
    line = {"when": {"during_agent": {"after_ms": 500}}}

    caller = call([line, {}], agent=[(1.0, 2.0), (4.0, 5.0)], greeting=True)

    assert caller.spoken[1].start / 8000 == pytest.approx(5.0 + 0.9 + 0.1, abs=0.021)


def test_what_is_heard_as_bytes_leads_to_the_same_call(scenario, tone):
    line = Line.of(np.concatenate([np.zeros(800, np.int16), tone(0.51), np.zeros(170, np.int16)]))
    whens = [
        {"after_agent": {"silence_ms": 500}},
        {"during_agent": {"after_ms": 300}},
        {"at_ms": 4000},
    ]
    script = scenario([{"when": when} for when in whens], greeting=True)
    callers = Caller(script, [line] * 3), Caller(script, [line] * 3)
    rng = np.random.default_rng(3)
    for tick in range(400):
        loud = tick % 90 < 40
        heard = mulaw.encode((rng.standard_normal(160) * (900 if loud else 60)).astype(np.int16))
        said = callers[0].tick(mulaw.decode(heard))
        coded = callers[1].tick_coded(heard)
        assert (said is None) == (coded is None)
        if said is None or coded is None:
            break
        assert np.array_equal(said, coded)
    assert len(callers[0].spoken) == 3
    assert callers[0].spoken == callers[1].spoken
