"""A WebSocket whose messages are sent and read without a task or a queue: picows.

aiohttp's takes a task's turn for every message either way, which is most of what a caller costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from telephony.clock import Clock
from telephony.simulator.stream import NotConnected

_TEXT = WSMsgType.TEXT
_NO_CODE = 1005
_LOST = 1006
"""What the WebSocket protocol calls a connection that ended without a close."""


class LoadSocket(WSListener):
    """The client's side of a WebSocket.

    Attributes:
        closed: The server has closed it, or it broke.
        close_code: With which code; 1006 if it broke.
        held_since: Since when the server has not read what waits to be sent, in seconds of the
            clock; None if it has.
    """

    def __init__(self, clock: Clock) -> None:
        """Prepare a connection."""
        self.closed = False
        self.close_code = _LOST
        self.held_since: float | None = None
        self._clock = clock
        self._transport: WSTransport | None = None
        self._receive: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []

    @classmethod
    async def open(cls, url: str, headers: Mapping[str, str], clock: Clock) -> LoadSocket:
        """Connect to a server.

        Args:
            url: ws or wss.
            headers: Sent with the upgrade.
            clock: Tells since when a server has not read.

        Raises:
            NotConnected: The server cannot be reached or did not upgrade.
        """
        try:
            _, listener = await ws_connect(
                lambda: cls(clock), url, extra_headers=dict(headers), max_redirects=0
            )
        except WSHandshakeError as error:
            status = error.response.status.value if error.response is not None else "none"
            detail = f"the WebSocket was not opened: HTTP {status}"
            raise NotConnected(31920, detail) from error
        except (WSError, OSError, TimeoutError) as error:
            detail = f"the WebSocket cannot be reached: {error or type(error).__name__}"
            raise NotConnected(31901, detail) from error
        assert isinstance(listener, cls)
        return listener

    def receive(self, take: Callable[[bytes], None]) -> None:
        """Have every text message handed over, those first that have come already."""
        self._receive = take
        for message in self._early:
            take(message)
        self._early.clear()

    def send(self, message: str) -> None:
        """Send a text message, or nothing if the socket is closed."""
        if not self.closed and self._transport is not None:
            self._transport.send(_TEXT, message.encode())

    async def close(self, seconds: float) -> None:
        """Close it, and wait no longer than this for the server to do so too."""
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return
        if not self.closed:
            transport.send_close(WSCloseCode.OK)
        try:
            await asyncio.wait_for(transport.wait_disconnected(), seconds)
        except TimeoutError:
            transport.disconnect(graceful=False)

    # ---- what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has come."""
        if frame.msg_type == _TEXT:
            if self._receive is not None:
                self._receive(frame.get_payload_as_bytes())
            else:
                # Here and not later: what is not UTF-8 ends the connection.
                self._early.append(frame.get_payload_as_utf8_text().encode())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.closed = True
            self.close_code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big") or _NO_CODE
            if not transport.is_close_frame_sent:
                transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The connection is over."""
        self.closed = True

    def pause_writing(self) -> None:
        """The server does not read."""
        self.held_since = self._clock.time()

    def resume_writing(self) -> None:
        """It reads again."""
        self.held_since = None
