"""One worker of a gateway: ``python -m telephony.worker``, started by telephony.workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from loguru import logger
from pydantic import SecretStr

from agent.settings import AUTH_TOKEN_VARIABLE, Settings
from telephony.clock import SystemClock
from telephony.serve import serving_here
from telephony.shared_switchboard import SharedSwitchboard
from telephony.workers import READY, WorkerOrder


async def work(order: WorkerOrder, settings: Settings) -> None:
    """Answer calls until told to stop, or until the parent is gone."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    # The parent writes nothing more; it ends when the parent does, however that comes about.
    loop.add_reader(sys.stdin.fileno(), stopped.set)
    clock = SystemClock()
    switchboard = SharedSwitchboard(order.switchboard, settings.gateway.max_calls, clock)
    async with serving_here(settings, _say, switchboard=switchboard, clock=clock):
        _say(READY)
        await stopped.wait()
    loop.remove_reader(sys.stdin.fileno())


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Read the order and work."""
    # Unbuffered, so that the end of the input is seen by whoever waits for it.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        order = WorkerOrder.model_validate_json(stdin.readline())
    token = SecretStr(os.environ[AUTH_TOKEN_VARIABLE])
    gateway = order.settings.gateway.model_copy(update={"auth_token": token})
    logger.remove()
    logger.add(sys.stderr, level="INFO")
    asyncio.run(work(order, order.settings.model_copy(update={"gateway": gateway})))


if __name__ == "__main__":
    main()
