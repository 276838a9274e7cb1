"""The search for the number of calls, without calls."""

import pytest

from telephony.simulator.capacity import find_capacity
from telephony.simulator.load_report import LoadReport, Percentiles, judge


def flat(value):
    return Percentiles(count=20, p50=value, p90=value, p95=value, p99=value, worst=value)


def report(calls, **changes):
    fields = {
        "target": "http://127.0.0.1/voice",
        "scenarios": ("s",),
        "callers": calls,
        "ramp_s": 0.0,
        "seconds": 10.0,
        "started_at": 0.0,
        "calls": calls,
        "refused": 0,
        "broken": 0,
        "cut_short": 0,
        "passed": calls,
        "unanswered": 0,
        "answers": calls,
        "most_at_once": calls,
        "audio_s": 1.0,
        "voice_to_voice_ms": flat(600),
        "gap_ms": None,
        "gaps": 0,
        "webhook_ms": None,
        "connect_ms": None,
        "errors": {},
        "lateness_ms": flat(1),
        "over_time": (),
        "by_calls": (),
    }
    return LoadReport(**fields | changes)


class Agent:
    """Answers so many calls in time."""

    def __init__(self, carries):
        self.carries = carries
        self.asked = []

    async def __call__(self, calls):
        self.asked.append(calls)
        return report(calls, voice_to_voice_ms=flat(700 if calls <= self.carries else 2100))


@pytest.mark.parametrize("carries", [0, 1, 2, 3, 11, 16, 17])
async def test_the_largest_number_within_bounds_is_found(carries):
    agent = Agent(carries)
    found = await find_capacity(agent, 1000, most=64)
    assert found.largest == carries
    assert found.limit == f"{carries + 1} calls: voice to voice is 2100 ms at p95, over 1000 ms"
    assert len(agent.asked) == len(set(agent.asked)) < 12


async def test_of_hundreds_it_is_found_to_a_twentieth():
    found = await find_capacity(Agent(333), 1000, most=1000)
    assert 333 * 0.95 <= found.largest <= 333


async def test_more_than_allowed_are_not_tried():
    agent = Agent(10_000)
    found = await find_capacity(agent, 1000, most=24)
    assert (found.largest, max(agent.asked)) == (24, 24)
    assert found.limit == "24 calls were the most to try"


async def test_a_number_has_to_stand_every_repetition():
    agent = Agent(4)

    async def moody(calls):
        agent.asked.append(calls)
        return report(calls, gaps=1 if agent.asked.count(2) == 3 else 0)

    found = await find_capacity(moody, 1000, most=2, repeat=3)
    assert found.largest == 1
    assert [one.held for one in found.tries] == [True, True, True, True, True, False]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"lateness_ms": flat(5)}, "ticks were late"),
        ({"refused": 3}, "3 of 20 calls were refused"),
        ({"broken": 2}, "2 of 20 calls broke"),
        ({"voice_to_voice_ms": None, "answers": 0}, "nothing was answered"),
        ({"unanswered": 4}, "4 lines were not answered"),
        ({"voice_to_voice_ms": flat(1500.0)}, "1500 ms at p95, over 1000 ms"),
        ({"gaps": 1}, "1 gaps over 60 ms"),
    ],
)
def test_whatever_is_not_well_has_a_reason(changes, reason):
    found = judge(report(20, **changes), 1000)
    assert found is None if reason is None else reason in found


def test_passing_together_is_estimated_from_all_choices():
    assert report(10, passed=9).pass_hat[:3] == pytest.approx([0.9, 0.8, 0.7])
    assert report(2, passed=2, cut_short=1).judged == 1


def test_percentiles_are_values_that_were_measured():
    found = Percentiles.of(range(1, 101))
    assert (found.p50, found.p90, found.p95, found.p99, found.worst) == (50, 90, 95, 99, 100)
    assert Percentiles.of([]) is None
