"""Runs the records beside a server: the writer's thread, and the delivery of notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from telephony.records import CallRecords
from telephony.records.delivery import Delivery


async def keeping(records: CallRecords) -> AsyncIterator[None]:
    """Keep records until the generator goes on: an aiohttp ``cleanup_ctx``.

    Raises:
        ValueError: The database is of a newer version, or a webhook's secret is missing.
    """
    webhooks = records.settings.webhooks
    delivery = Delivery(records.engine, webhooks) if webhooks else None
    await asyncio.to_thread(records.start)
    delivering: asyncio.Task[None] | None = None
    if delivery is not None:
        loop, wake = asyncio.get_running_loop(), delivery.wake

        def noticed() -> None:
            loop.call_soon_threadsafe(wake)

        records.noticed = noticed
        delivering = asyncio.create_task(delivery.run())
    try:
        yield
    finally:
        if delivering is not None:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            records.noticed = lambda: None
        await asyncio.to_thread(records.stop)
