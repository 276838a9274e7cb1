"""A gateway in a process of its own, with an engine that costs nothing: ours, or Pipecat's stock.

``python -m agent.bench.gateway_worker ours|stock`` prints its port, then for every line that it
reads the seconds of CPU that it has used, all threads together; it ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import importlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loguru import logger
from pydantic import SecretStr

from agent.bench.stand_in import StandInSession, answer_audio
from agent.pipeline import SharedModels, run_call
from agent.settings import AgentSettings, GatewaySettings

TOKEN = "price"
"""The auth token that calls are signed with."""
MAX_CALLS = 256
KINDS = ("ours", "stock")


@contextlib.asynccontextmanager
async def ours(models: SharedModels, records: Path) -> AsyncIterator[int]:
    """The gateway as it serves, but for the engine; yields its port."""
    from telephony.records import CallRecords
    from telephony.server import PhoneCall, create_app, listening
    from telephony.transport import PhoneTransport

    audio, settings = answer_audio(), AgentSettings(greeting=None)

    async def answer_call(transport: PhoneTransport, call: PhoneCall) -> None:
        await run_call(transport, StandInSession(audio), models, settings, call.observer)

    async def ready() -> None:
        return

    gateway = GatewaySettings(auth_token=SecretStr(TOKEN), max_calls=MAX_CALLS)
    app = create_app(gateway, answer_call, CallRecords(records), engine_ready=ready)
    async with listening(app, "127.0.0.1", 0) as url:
        yield int(url.rpartition(":")[2])


@contextlib.asynccontextmanager
async def stock(models: SharedModels, records: Path) -> AsyncIterator[int]:
    """Pipecat's FastAPI transport with its Twilio serializer; yields its port."""
    app = importlib.import_module("agent.bench.stock_gateway").create_app(models)
    uvicorn: Any = importlib.import_module("uvicorn")
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def main(kind: str, profile: Path | None) -> None:
    """Serve until the input ends."""
    models = SharedModels.load()
    loop = asyncio.get_running_loop()
    profiler = cProfile.Profile() if profile else None
    gateway = {"ours": ours, "stock": stock}[kind]
    with tempfile.TemporaryDirectory() as records:
        async with gateway(models, Path(records)) as port:
            print(port, flush=True)
            if profiler is not None:
                profiler.enable()
            while await loop.run_in_executor(None, sys.stdin.readline):
                print(time.process_time(), flush=True)
            if profiler is not None and profile is not None:
                profiler.disable()
                profiler.dump_stats(profile)


if __name__ == "__main__":
    logger.remove()
    import os
    if os.environ.get("UVLOOP"):
        import uvloop
        uvloop.install()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None))
