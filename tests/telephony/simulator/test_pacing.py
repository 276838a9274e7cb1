"""One timer for many callers, on a clock that moves by hand."""

import asyncio

import pytest

from telephony.simulator.pacing import Pacer


@pytest.fixture
async def pacer(manual_clock):
    pacer = Pacer(manual_clock)
    running = asyncio.create_task(pacer.run())
    yield pacer
    running.cancel()


def ticks(clock, log, name, first, count=3):
    """A tick that notes when it was called, 20 ms apart, so many times."""
    begun = clock.now
    called = []

    def tick():
        called.append(clock.now)
        log.append((name, round(clock.now - begun, 4)))
        return begun + first + len(called) * 0.02 if len(called) < count else None

    return tick


async def test_everybody_is_called_when_due_and_in_that_order(pacer, manual_clock):
    log = []
    begun = manual_clock.now
    for name, first in (("b", 0.013), ("a", 0.005)):
        pacer.join(begun + first, ticks(manual_clock, log, name, first))
    await manual_clock.advance(0.1)
    assert [name for name, _ in log] == ["a", "b"] * 3
    for (_, at), due in zip(log, (0.005, 0.013, 0.025, 0.033, 0.045, 0.053), strict=True):
        assert due - 0.001 <= at <= due + 0.0011
    assert len(pacer.lateness) == 6
    assert pacer.percentiles().worst < 1.1


async def test_who_comes_later_and_is_due_sooner_is_not_slept_past(pacer, manual_clock):
    log = []
    begun = manual_clock.now
    pacer.join(begun + 0.02, ticks(manual_clock, log, "far", 0.02, 1))
    await manual_clock.advance(0.001)
    pacer.join(begun + 0.004, ticks(manual_clock, log, "near", 0.004, 1))
    await manual_clock.advance(0.0055)
    assert [name for name, _ in log] == ["near"]
    await manual_clock.advance(0.02)
    assert [name for name, _ in log] == ["near", "far"]


async def test_a_late_tick_delays_none_of_the_following_and_is_told(pacer, manual_clock):
    log = []
    pacer.join(manual_clock.now - 0.03, ticks(manual_clock, log, "late", -0.03, 4))
    await manual_clock.advance(0.05)
    # Due at -30, -10, 10 and 30 ms: two at once, then in time again.
    assert [at for _, at in log] == pytest.approx([0, 0, 0.01, 0.03], abs=0.0011)
    assert list(pacer.lateness)[:2] == pytest.approx([30, 10], abs=1e-2)
    assert pacer.percentiles().worst == pytest.approx(30, abs=1e-2)
    assert pacer.percentiles(since=1).worst == pytest.approx(10, abs=1e-2)
    assert pacer.percentiles(since=2).worst < 1.1


async def test_who_is_behind_does_not_keep_the_loop_from_the_others(pacer, manual_clock):
    """A caller hours late has much to make up; messages must be read meanwhile."""
    begun = manual_clock.now - 3600
    count = 0
    turns = 0

    def tick():
        nonlocal count
        count += 1
        return begun + count * 0.02

    pacer.join(begun, tick)
    while count < 200:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5


@pytest.mark.parametrize("apart", [0.0, 0.02, 0.04, 0.013])
async def test_callers_are_due_together(pacer, manual_clock, apart):
    """However regularly they come, and however many have left between them."""
    places = []
    for _ in range(50):
        begin = pacer.place(0.02)
        assert 0 <= begin - manual_clock.now < 0.02
        places.append(begin % 0.02)
        await manual_clock.advance(apart)
    for some in (places, places[20:]):
        ordered = sorted(some)
        gaps = [b - a for a, b in zip(ordered, [*ordered[1:], ordered[0] + 0.02], strict=True)]
        assert max(gaps) < 3 * 0.02 / len(some)
        assert min(gaps) > 0.2 * 0.02 / len(some)
