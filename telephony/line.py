"""One call's WebSocket: events in, events out, and why it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

from aiohttp import WebSocketError, WSMsgType, web
from loguru import logger

from telephony.media_streams import (
    Clear,
    CloseCode,
    FromTwilio,
    Media,
    Play,
    ProtocolError,
    ServerEvent,
    Start,
    Stop,
    TwilioEvent,
)

_CLOSE_SECONDS = 2.0


class EndCause(StrEnum):
    """Why a call ended, as its record says."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    TIME_LIMIT = "time_limit"
    SILENCE = "silence"
    NOT_ANSWERED = "not_answered"
    TRANSFERRED = "transferred"
    SOCKET_CLOSED = "socket_closed"
    PROTOCOL_ERROR = "protocol_error"
    SHUTDOWN = "shutdown"
    ENGINE = "engine"
    ERROR = "error"


class Tap(Protocol):
    """Listens in on a line."""

    def caller(self, payload: bytes, timestamp: int) -> None:
        """Hear the caller: mu-law, and its place in the stream in milliseconds."""

    def agent(self, payload: bytes) -> None:
        """Hear what is sent to the phone: mu-law."""

    def cleared(self) -> None:
        """The phone was told to forget what it has not played."""


class PhoneLine:
    """The WebSocket of one call, past its ``start`` event.

    Attributes:
        start: who calls.
        ended: set once nothing more can pass.
        cause: why it ended; None while it is open.
        tap: listens in; None: nobody does.
        can_transfer: its carrier can be told to connect the caller with somebody else.
    """

    can_transfer = True

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        stream: FromTwilio,
        start: Start,
        allows: Callable[[], bool] = lambda: True,
    ):
        self._allows = allows
        self._websocket = websocket
        self._stream = stream
        self.start = start
        self.ended = asyncio.Event()
        self.cause: EndCause | None = None
        self.tap: Tap | None = None

    @classmethod
    async def answer(
        cls,
        websocket: web.WebSocketResponse,
        start_within: float = 10.0,
        *,
        allows: Callable[[], bool] = lambda: True,
    ) -> PhoneLine:
        """Wait for ``connected`` and ``start``.

        Args:
            websocket: prepared, nothing read from it yet.
            start_within: seconds until ``start`` must have come.
            allows: asked for each message whether one more may come now.

        Raises:
            ProtocolError: if something else comes, or nothing in time.
        """
        stream = FromTwilio()
        try:
            async with asyncio.timeout(start_within):
                while True:
                    event = stream.receive(await next_message(websocket, allows))
                    if isinstance(event, Start):
                        return cls(websocket, stream, event, allows)
        except TimeoutError:
            raise ProtocolError(CloseCode.POLICY_VIOLATION, "no start event in time") from None
        except ClosedError:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "closed before start") from None

    async def receive(self) -> TwilioEvent | None:
        """The next event; None once the call is over, however it ended.

        A protocol error closes the socket with its code and reason.
        """
        while not self.ended.is_set():
            try:
                event = await self._read(await next_message(self._websocket, self._allows))
            except ClosedError:
                self._end(self._cause_of_close())
                return None
            except ProtocolError as error:
                logger.bind(code=error.code, reason=error.reason).warning("Call broke the protocol")
                await self.hang_up(EndCause.PROTOCOL_ERROR, error.code, error.reason)
                return None
            if isinstance(event, Stop):
                self._end(EndCause.CALLER_HUNG_UP)
                return None
            if isinstance(event, Media) and self.tap is not None:
                self.tap.caller(event.payload, event.timestamp)
            if event is not None:
                return event
        return None

    async def send(self, event: ServerEvent) -> bool:
        """Send an event; False if the call is over."""
        if self.ended.is_set():
            return False
        try:
            for message in await self._written(event):
                if isinstance(message, str):
                    await self._websocket.send_str(message)
                else:
                    await self._websocket.send_bytes(message)
        except (ConnectionError, RuntimeError):
            self._end(EndCause.SOCKET_CLOSED)
            return False
        if self.tap is not None:
            if isinstance(event, Play):
                self.tap.agent(event.payload)
            elif isinstance(event, Clear):
                self.tap.cleared()
        return True

    async def hang_up(
        self, cause: EndCause, code: int = CloseCode.NORMAL, reason: str = ""
    ) -> None:
        """Close the socket, on which Twilio ends the call; takes two seconds at most."""
        self._end(cause)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._websocket.close(code=code, message=reason.encode())
        except (ConnectionError, TimeoutError, RuntimeError):
            logger.debug("Socket did not close in order")

    # ---- what another carrier's wire does otherwise

    async def _read(self, message: str | bytes) -> TwilioEvent | None:
        """What a message tells; None: nothing that matters."""
        return self._stream.receive(message)

    async def _written(self, event: ServerEvent) -> Sequence[str | bytes]:
        """The messages that tell the carrier of an event."""
        return (event.to_json(),)

    def _cause_of_close(self) -> EndCause:
        """Why the call ended, where the socket was closed without a word."""
        return EndCause.SOCKET_CLOSED

    def _end(self, cause: EndCause) -> None:
        if self.cause is None:
            self.cause = cause
        self.ended.set()


class ClosedError(Exception):
    """The socket is closed."""


async def next_message(websocket: web.WebSocketResponse, allows: Callable[[], bool]) -> str | bytes:
    """The next message of a socket.

    Raises:
        ProtocolError: it breaks WebSocket's rules, or is one too many.
        ClosedError: none will come.
    """
    message = await websocket.receive()
    if not allows():
        raise ProtocolError(CloseCode.POLICY_VIOLATION, "too many messages")
    if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
        data: str | bytes = message.data
        return data
    if isinstance(message.data, WebSocketError):
        # Too big, text that is not UTF-8, broken framing: aiohttp has answered with its code.
        raise ProtocolError(message.data.code, "a message that breaks WebSocket's own rules")
    raise ClosedError
