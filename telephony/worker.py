"""One worker of a gateway: ``python -m telephony.worker``, started by telephony.workers."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys

from loguru import logger
from pydantic import SecretStr

from agent.settings import SECRETS
from telephony.agents import CallCentre
from telephony.clock import SystemClock
from telephony.serve import Service, serving_here
from telephony.shared_switchboard import SharedSwitchboard
from telephony.workers import READY, WorkerOrder


async def work(order: WorkerOrder, settings: CallCentre) -> None:
    """Answer calls until SIGINT, or until SIGTERM and their end, or until the parent is gone."""
    stopped, drains = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    loop.add_signal_handler(signal.SIGTERM, drains.set)
    # The parent writes nothing more; it ends when the parent does, however that comes about.
    loop.add_reader(sys.stdin.fileno(), stopped.set)
    clock = SystemClock()
    open_switchboard = functools.partial(SharedSwitchboard, order.switchboard)

    async def drain(service: Service) -> None:
        await drains.wait()
        await service.drain()
        stopped.set()

    async with serving_here(
        settings, _say, open_switchboard=open_switchboard, clock=clock
    ) as service:
        _say(READY)
        draining = asyncio.create_task(drain(service))
        await stopped.wait()
        draining.cancel()
    loop.remove_reader(sys.stdin.fileno())


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Read the order and work."""
    # Unbuffered, so that the end of the input is seen by whoever waits for it.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        order = WorkerOrder.model_validate_json(stdin.readline())
    tokens = {
        name: SecretStr(os.environ[variable])
        for name, variable in SECRETS.items()
        if variable in os.environ
    }
    gateway = order.settings.gateway.model_copy(update=tokens)
    records = order.settings.records.model_copy(update={"url": SecretStr(order.database)})
    settings = order.settings.model_copy(update={"gateway": gateway, "records": records})
    logger.remove()
    logger.add(sys.stderr, level="INFO")
    asyncio.run(work(order, settings))


if __name__ == "__main__":
    main()
