import asyncio

from telephony.engine_health import EngineHealth


async def test_a_polling_load_balancer_costs_one_question_a_second(manual_clock):
    asked = []

    async def ready():
        asked.append(manual_clock.now)

    health = EngineHealth(ready, manual_clock)
    assert all(await asyncio.gather(*(health.reachable() for _ in range(20))))
    assert len(asked) == 1
    await manual_clock.advance(1)
    assert await health.reachable()
    assert len(asked) == 2


async def test_an_engine_that_raises_or_hangs_is_not_reachable(manual_clock):
    async def refuses():
        raise RuntimeError("127.0.0.1:8001: connection refused")

    async def hangs():
        await asyncio.Event().wait()

    assert not await EngineHealth(refuses, manual_clock).reachable()
    assert not await EngineHealth(hangs, manual_clock, patience=0).reachable()


async def test_an_engine_that_comes_back_is_noticed(manual_clock):
    up = asyncio.Event()

    async def ready():
        if not up.is_set():
            raise RuntimeError

    health = EngineHealth(ready, manual_clock)
    assert not await health.reachable()
    up.set()
    await manual_clock.advance(1)
    assert await health.reachable()
