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


async def test_everybody_is_woken_when_due_and_in_that_order(pacer, manual_clock):
    begun = manual_clock.now
    woken = []

    async def caller(name, first):
        for tick in range(3):
            await pacer.until(begun + first + tick * 0.02)
            woken.append((name, round(manual_clock.now - begun, 4)))

    callers = [asyncio.create_task(caller(n, f)) for n, f in (("b", 0.013), ("a", 0.005))]
    await manual_clock.advance(0.06)
    assert [name for name, _ in woken] == ["a", "b"] * 3
    for (_, at), due in zip(woken, (0.005, 0.013, 0.025, 0.033, 0.045, 0.053), strict=True):
        assert due - 0.001 <= at <= due + 0.0011
    assert all(task.done() for task in callers)


async def test_who_comes_later_and_is_due_sooner_is_not_slept_past(pacer, manual_clock):
    begun = manual_clock.now
    far = asyncio.create_task(pacer.until(begun + 0.02))
    await manual_clock.advance(0.001)
    near = asyncio.create_task(pacer.until(begun + 0.004))
    await manual_clock.advance(0.0055)
    assert near.done()
    assert not far.done()
    await manual_clock.advance(0.02)
    assert far.done()


async def test_lateness_is_told_and_what_the_server_held_up_is_not(pacer, manual_clock):
    now = manual_clock.now
    await pacer.until(now - 0.03)
    await pacer.until(now - 0.03, held_until=now - 0.01)
    await pacer.until(now - 0.03, held_until=now)
    assert list(pacer.lateness) == pytest.approx([30, 10, 0], abs=1e-3)
    assert pacer.percentiles().worst == pytest.approx(30)


async def test_one_who_gave_up_keeps_nobody_from_being_woken(pacer, manual_clock):
    gone = asyncio.create_task(pacer.until(manual_clock.now + 0.01))
    stays = asyncio.create_task(pacer.until(manual_clock.now + 0.01))
    await manual_clock.advance(0.001)
    gone.cancel()
    await manual_clock.advance(0.02)
    assert stays.done()
