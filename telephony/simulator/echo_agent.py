"""An agent that only echoes: what a phone sends comes back, message by message.

``python -m telephony.simulator.echo_agent`` prints the address of its voice webhook and serves
until it is stopped; the streams come to a port of their own. It checks no signatures and does next
to nothing, so what a load run measures against it is the tool itself and the network in between.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
from collections.abc import AsyncIterator

from aiohttp import web
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from telephony.simulator import load_loop

_TEXT = WSMsgType.TEXT
_TWIML = '<Response><Connect><Stream url="{url}"/></Connect></Response>'
_MEDIA = re.compile(
    rb'\{"event":"media","sequenceNumber":"\d+","media":\{"track":"inbound","chunk":"\d+",'
    rb'"timestamp":"\d+","payload":"([^"\\]*)"\},"streamSid":"([^"\\]*)"\}'
)
"""A media message as the load tool writes it; others are read as JSON."""


@contextlib.asynccontextmanager
async def echoing(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve it.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Yields:
        Its base URL.
    """
    echoes = await ws_create_server(_Echo.of, host, 0)
    media_port = echoes.sockets[0].getsockname()[1]

    async def voice(request: web.Request) -> web.Response:
        url = request.url.with_scheme("ws").with_port(media_port).with_path("/media")
        return web.Response(text=_TWIML.format(url=url), content_type="text/xml")

    app = web.Application()
    app.router.add_post("/voice", voice)
    app.router.add_post("/status", _status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        echoes.close()
        await runner.cleanup()


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=204)


class _Echo(WSListener):
    """The server's side of one media stream: as load_socket.py, without a task or a queue."""

    @classmethod
    def of(cls, request: WSUpgradeRequest) -> _Echo | None:
        """One for each stream; nothing else is here."""
        return cls() if request.path == b"/media" else None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has come."""
        kind = frame.msg_type
        if kind != _TEXT:
            if kind == WSMsgType.CLOSE:
                if not transport.is_close_frame_sent:
                    transport.send_close(WSCloseCode.OK)
                transport.disconnect()
            return
        message = frame.get_payload_as_bytes()
        media = _MEDIA.fullmatch(message)
        if media is not None:
            payload, stream_sid = media.groups()
        else:
            event = json.loads(message)
            if event["event"] == "stop":
                transport.send_close(WSCloseCode.OK)
            if event["event"] != "media":
                return
            payload, stream_sid = event["media"]["payload"].encode(), event["streamSid"].encode()
        transport.send(
            _TEXT,
            b'{"event":"media","streamSid":"%b","media":{"payload":"%b"}}' % (stream_sid, payload),
        )


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
    load_loop.run(_serve(options.host, options.port))


if __name__ == "__main__":
    main()
