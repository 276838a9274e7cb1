"""An agent that only echoes: what a phone sends comes back, message by message.

``python -m telephony.simulator.echo_agent`` prints the address of its voice webhook and serves
until it is stopped. It checks no signatures and does next to nothing, so what a load run measures
against it is the tool itself and the network in between.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

_TWIML = '<Response><Connect><Stream url="{url}"/></Connect></Response>'


def create_app() -> web.Application:
    """The agent: ``POST /voice``, ``GET /media`` and ``POST /status``."""
    app = web.Application()
    app.router.add_post("/voice", _voice)
    app.router.add_get("/media", _media)
    app.router.add_post("/status", _status)
    return app


@contextlib.asynccontextmanager
async def echoing(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve it.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Yields:
        Its base URL.
    """
    runner = web.AppRunner(create_app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _voice(request: web.Request) -> web.Response:
    twiml = _TWIML.format(url=f"ws://{request.host}/media")
    return web.Response(text=twiml, content_type="text/xml")


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def _media(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, timeout=1.0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        event = json.loads(message.data)
        if event["event"] == "media":
            payload = event["media"]["payload"]
            await socket.send_str(
                f'{{"event":"media","streamSid":"{event["streamSid"]}",'
                f'"media":{{"payload":"{payload}"}}}}'
            )
        elif event["event"] == "stop":
            break
    return socket


async def _serve(host: str, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with echoing(host, port) as url:
        print(f"{url}/voice", flush=True)
        await stopped.wait()


def main() -> None:
    """Serve from the command line."""
    parser = argparse.ArgumentParser(description="An agent that only echoes.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (a free one)")
    options = parser.parse_args()
    asyncio.run(_serve(options.host, options.port))


if __name__ == "__main__":
    main()
