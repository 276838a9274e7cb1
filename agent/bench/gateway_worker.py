"""A gateway in a process of its own, with an engine that costs nothing: ours, or Pipecat's stock.

``python -m agent.bench.gateway_worker ours|stock`` prints its port. For every line that it reads it
prints a line: for an empty one the seconds of CPU that all its threads have used, and those of the
event loop's; for ``memory`` the bytes that it holds; for ``profile`` where the time of its event
loop went since it began, as JSON. It ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import gc
import importlib
import json
import os
import pstats
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
from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings

TOKEN = "price"
"""The auth token that calls are signed with."""
HANGING = "+15550100003"
"""The number of an agent with a tool that does not come to an end."""
MAX_CALLS = 256
KINDS = ("ours", "stock")


@contextlib.asynccontextmanager
async def ours(models: SharedModels, records: Path) -> AsyncIterator[int]:
    """The gateway as it serves, but for the engine; yields its port."""
    from telephony.agents import Agent, Agents
    from telephony.records import CallRecords
    from telephony.server import PhoneCall, create_app, listening
    from telephony.transport import PhoneTransport

    audio = answer_audio()
    hangs = {"kind": "function", "name": "hang", "function": "agent.bench.stand_in:hang"}
    agents = {
        "agent": Agent(greeting=None),
        "hanging": Agent.model_validate({"numbers": [HANGING], "tools": [hangs]}),
    }

    async def answer_call(transport: PhoneTransport, call: PhoneCall) -> None:
        tools = call.agent.toolbox
        session = StandInSession(audio, "hang\n{}" if tools else "")
        await run_call(transport, session, models, call.agent, call.observer, tools=tools)

    async def ready() -> None:
        return

    gateway = GatewaySettings(
        auth_token=SecretStr(TOKEN), max_calls=MAX_CALLS, connections_per_address=MAX_CALLS
    )
    app = create_app(
        gateway,
        answer_call,
        CallRecords(RecordSettings(directory=records)),
        engine_ready=ready,
        agents=Agents(agents),
    )
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
    while True:
        await asyncio.sleep(0.05)
        if server.started:
            break
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def main(kind: str) -> None:
    """Serve until the input ends."""
    models = SharedModels.load()
    loop = asyncio.get_running_loop()
    gateway = {"ours": ours, "stock": stock}[kind]
    profile: cProfile.Profile | None = None
    with tempfile.TemporaryDirectory() as records:
        async with gateway(models, Path(records)) as port:
            print(port, flush=True)
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                if not line.strip():
                    print(time.process_time(), time.thread_time(), flush=True)
                elif line.strip() == "memory":
                    gc.collect()
                    print(_resident(), flush=True)
                elif profile is None:
                    profile = cProfile.Profile()
                    profile.enable()
                    print("{}", flush=True)
                else:
                    profile.disable()
                    print(json.dumps(shares(profile)), flush=True)
                    profile = None


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds by part of the program, most first; what the event loop waited is left out.

    A profile makes every call of a function dearer: what consists of many small ones looks larger
    than it is.
    """
    statistics: dict[tuple[str, int, str], tuple[Any, ...]]
    statistics = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    parts: dict[str, float] = {}
    for (path, _, name), (_, _, own, *_) in statistics.items():
        if "epoll" in name:
            continue
        part = next((part for sign, part in _PARTS if sign in path or sign in name), "other")
        parts[part] = parts.get(part, 0.0) + own
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


_PARTS = (
    ("onnxruntime", "Silero (and waiting for the threads of smart-turn)"),
    ("loudness", "loudness"),
    ("voice_activity", "Silero (and waiting for the threads of smart-turn)"),
    ("/vad/", "turn detection"),
    ("turn_models", "turn detection"),
    ("/turns/", "turn detection"),
    ("/audio/turn/", "turn detection"),
    ("soxr", "resampling and mu-law"),
    ("resampl", "resampling and mu-law"),
    ("mulaw", "resampling and mu-law"),
    ("hearing", "resampling and mu-law"),
    ("numpy", "resampling and mu-law"),
    ("_socket", "sockets"),
    ("/aiohttp/", "WebSocket"),
    ("websockets", "WebSocket"),
    ("uvicorn", "WebSocket"),
    ("starlette", "WebSocket"),
    ("fastapi", "WebSocket"),
    ("json", "JSON and base64"),
    ("base64", "JSON and base64"),
    ("binascii", "JSON and base64"),
    ("wire_", "JSON and base64"),
    ("media_streams", "JSON and base64"),
    ("serializers", "JSON and base64"),
    ("/asyncio/", "event loop"),
    ("_asyncio", "event loop"),
    ("selectors", "event loop"),
    ("/pipecat/", "Pipecat's frames"),
    ("/loguru/", "Pipecat's frames"),
    ("/telephony/", "our transport"),
    ("/agent/", "our service"),
)


if __name__ == "__main__":
    logger.remove()
    asyncio.run(main(sys.argv[1]))
