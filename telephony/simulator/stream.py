"""One media stream, from Twilio's side of the WebSocket."""

import asyncio
import socket as sockets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import numpy as np
from numpy.typing import NDArray

from telephony import mulaw
from telephony.clock import Clock
from telephony.media_streams import (
    FRAME_SECONDS,
    Clear,
    Connected,
    Dtmf,
    Mark,
    MarkReturned,
    Media,
    Play,
    ProtocolError,
    Start,
    Stop,
    ToTwilio,
    TwilioEvent,
)
from telephony.simulator import trace
from telephony.simulator.agent_http import reason
from telephony.simulator.callee import Person
from telephony.simulator.network import LossyLine, Network, Way
from telephony.simulator.playback import PlaybackBuffer

OUTBOX = 250
"""Messages that may wait for a server that does not read: five seconds of audio (error 31930)."""
CLOSE_SECONDS = 5.0
"""How long a server may take to read the last messages and close its side."""

Tap = Callable[[NDArray[np.int16], NDArray[np.int16]], None]
"""Is handed every frame of both sides: int16 [160] said, int16 [160] heard."""
_GARBAGE = '{"event": "media", "media": {"payload": \ufffd'


class MediaStream:
    """Runs one stream: a tick every 20 ms, in step with the clock.

    At tick k, which is due ``k * 20 ms`` after the start: what the caller said since tick k-1 is
    sent, marks whose audio has been played are returned, and the buffer hands out what the phone
    plays until tick k+1. A late tick delays none of the following ones.
    """

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        clock: Clock,
        call: trace.CallTrace,
        stream: trace.StreamTrace,
        start: Start,
        *,
        network: Network | None = None,
        tap: Tap | None = None,
        ending: asyncio.Event | None = None,
    ) -> None:
        """Prepare a stream on an open socket.

        Args:
            socket: Connected to the server.
            clock: Tells the time and waits.
            call: Receives errors.
            stream: Receives everything else.
            start: The start event to send.
            network: What the network does to it.
            tap: Is handed both sides of the call.
            ending: When it is set, the call goes elsewhere and the stream ends.
        """
        self._socket = socket
        self._clock = clock
        self._call = call
        self._trace = stream
        self._start = start
        self._reader = ToTwilio(start.stream_sid)
        self._buffer = PlaybackBuffer()
        self._pending: list[trace.Mark] = []
        self._network = network or Network()
        self._tap = tap
        self._ending = ending or asyncio.Event()
        self._outbox: asyncio.Queue[tuple[str, float]] = asyncio.Queue(OUTBOX)
        self._inbox: asyncio.Queue[tuple[str | bytes, float]] = asyncio.Queue()
        self._sequence = start.sequence
        self._overflow = False

    async def run(self, caller: Person) -> trace.Cause:
        """Talk until one side ends it.

        Args:
            caller: Who speaks and listens.

        Returns:
            Who ended it.
        """
        self._started_at = self._clock.time()
        self._trace.begin(self._started_at)
        self._to_server = Way(self._network, self._started_at, "to the server")
        self._from_server = Way(self._network, self._started_at, "from the server")
        receiving = asyncio.create_task(self._receive())
        delivering = asyncio.create_task(self._deliver())
        sending = asyncio.create_task(self._send())
        try:
            self._put(Connected())
            self._put(self._start)
            ended = await self._talk(caller, receiving)
            if ended in (trace.Cause.CALLER_HUNG_UP, trace.Cause.REDIRECTED):
                self._put(self._stop())
                await self._at_most(CLOSE_SECONDS, self._flush(sending))
            return ended
        finally:
            self._trace.unplayed = self._buffer.waiting
            await self._close()
            tasks = (receiving, delivering, sending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        if self._network.slow_close_ms:
            await self._clock.sleep(self._network.slow_close_ms / 1000)
        # Cancelled in the middle, close() drops the connection.
        await self._at_most(CLOSE_SECONDS, self._socket.close())

    async def _talk(self, caller: Person, receiving: asyncio.Task[None]) -> trace.Cause:
        away = LossyLine(self._network, "said")
        back = LossyLine(self._network, "heard")
        torn, garbage = self._network.torn_at_ms, self._network.garbage_at_ms
        said = None
        tick = 0
        while True:
            due = self._started_at + tick * FRAME_SECONDS
            await self._clock.sleep(max(0.0, due - self._clock.time()))
            self._trace.lateness.append(max(0.0, self._clock.time() - due))
            if torn is not None and tick * FRAME_SECONDS * 1000 >= torn:
                return self._tear()
            if garbage is not None and tick * FRAME_SECONDS * 1000 >= garbage:
                self._put_text(_GARBAGE)
                garbage = None
            if receiving.done():
                receiving.result()
                return self._server_closed()
            if said is not None:
                self._put(self._media(mulaw.encode(away.carry(said)), tick))
            if caller.keys:
                self._press(caller.keys.popleft())
            if self._overflow:
                self._error(31930, "the server does not read what is sent")
                return trace.Cause.STREAM_FAILED
            if self._ending.is_set():
                return trace.Cause.REDIRECTED
            played = self._buffer.tick()
            self._return_marks(played.marks, cleared=False)
            heard = back.carry(mulaw.decode(played.audio))
            said = caller.tick(heard)
            if said is None:
                return trace.Cause.CALLER_HUNG_UP
            self._trace.add(said, heard, played.samples)
            if self._tap is not None:
                self._tap(said, heard)
            tick += 1

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                break
            if self._network.on_time:
                self._read(message.data)
            else:
                arrival = self._from_server.arrival(self._clock.time())
                self._inbox.put_nowait((message.data, arrival))
        # What was sent before the close arrives before it.
        await self._inbox.join()

    async def _deliver(self) -> None:
        while True:
            message, due = await self._inbox.get()
            await self._clock.sleep(max(0.0, due - self._clock.time()))
            self._read(message)
            self._inbox.task_done()

    def _read(self, message: str | bytes) -> None:
        try:
            self._take(self._reader.receive(message))
        except ProtocolError as error:
            # Twilio logs what it cannot use and goes on.
            self._error(31951, error.reason)

    def _take(self, event: Play | Mark | Clear) -> None:
        match event:
            case Play(payload=payload):
                discarded = self._buffer.media(payload)
                if discarded and not self._trace.discarded:
                    self._error(31931, "more than ten minutes of audio were waiting to be played")
                self._trace.discarded += discarded
            case Mark(mark=name):
                self._buffer.mark(name)
                mark = trace.Mark(name, self._position)
                self._trace.marks.append(mark)
                self._pending.append(mark)
            case Clear():
                self._trace.clears.append(self._position)
                self._return_marks(self._buffer.clear(), cleared=True)

    async def _send(self) -> None:
        while True:
            message, due = await self._outbox.get()
            try:
                if not self._network.on_time:
                    await self._clock.sleep(max(0.0, due - self._clock.time()))
                await self._socket.send_str(message)
            except (ConnectionError, aiohttp.ClientError):
                return
            finally:
                self._outbox.task_done()

    async def _at_most(self, seconds: float, work: Coroutine[Any, Any, object]) -> None:
        tasks = {asyncio.ensure_future(work), asyncio.ensure_future(self._clock.sleep(seconds))}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _flush(self, sending: asyncio.Task[None]) -> None:
        flushed = asyncio.create_task(self._outbox.join())
        await asyncio.wait({flushed, sending}, return_when=asyncio.FIRST_COMPLETED)
        flushed.cancel()

    def _return_marks(self, names: tuple[str, ...], *, cleared: bool) -> None:
        for name in names:
            mark = self._pending.pop(0)
            mark.returned, mark.cleared = self._position, cleared
            self._put(MarkReturned(self._start.stream_sid, name, self._next()))

    def _put(self, event: TwilioEvent) -> None:
        self._put_text(event.to_json())

    def _put_text(self, message: str) -> None:
        try:
            self._outbox.put_nowait((message, self._to_server.arrival(self._clock.time())))
        except asyncio.QueueFull:
            self._overflow = True

    def _press(self, digit: str) -> None:
        self._trace.keys.append(trace.Key(digit, self._position))
        self._put(Dtmf(self._start.stream_sid, digit, self._next()))

    def _tear(self) -> trace.Cause:
        socket = self._socket.get_extra_info("socket")
        if socket is not None:
            socket.shutdown(sockets.SHUT_RDWR)
        self._error(31903, "the connection broke")
        return trace.Cause.STREAM_FAILED

    def _media(self, payload: bytes, tick: int) -> Media:
        return Media(
            stream_sid=self._start.stream_sid,
            payload=payload,
            timestamp=round((tick - 1) * FRAME_SECONDS * 1000),
            chunk=tick,
            sequence=self._next(),
        )

    def _stop(self) -> Stop:
        start = self._start
        return Stop(start.stream_sid, start.account_sid, start.call_sid, self._next())

    def _server_closed(self) -> trace.Cause:
        if self._socket.close_code in (1000, 1001):
            return trace.Cause.AGENT_HUNG_UP
        self._error(31921, f"the server closed the socket with code {self._socket.close_code}")
        return trace.Cause.STREAM_FAILED

    def _error(self, code: int, detail: str) -> None:
        self._call.errors.append(trace.TwilioError(code, self._clock.time(), detail))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def _position(self) -> int:
        return self._trace.position


class NotConnected(Exception):
    """A WebSocket could not be opened; ``code`` is the error that Twilio logs."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Talking(Protocol):
    """A media stream that somebody can talk through."""

    async def run(self, caller: Person) -> trace.Cause:
        """Talk until one side ends it."""
        ...


class Streams(Protocol):
    """Opens media streams."""

    async def open(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        call: trace.CallTrace,
    ) -> "OpenSocket":
        """Connect to a server.

        Raises:
            NotConnected: The WebSocket was not opened.
        """
        ...


class OpenSocket(Protocol):
    """A WebSocket to a server, on which a stream is about to begin."""

    def stream(
        self,
        clock: Clock,
        call: trace.CallTrace,
        stream: trace.StreamTrace,
        start: Start,
        *,
        network: Network,
        tap: Tap,
        ending: asyncio.Event,
    ) -> Talking:
        """The stream; arguments are those of :class:`MediaStream`."""
        ...


@dataclass(frozen=True)
class _Socket:
    socket: aiohttp.ClientWebSocketResponse

    def stream(
        self,
        clock: Clock,
        call: trace.CallTrace,
        stream: trace.StreamTrace,
        start: Start,
        *,
        network: Network,
        tap: Tap,
        ending: asyncio.Event,
    ) -> Talking:
        return MediaStream(
            self.socket, clock, call, stream, start, network=network, tap=tap, ending=ending
        )


class MediaStreams:
    """Opens streams of :class:`MediaStream`."""

    async def open(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        call: trace.CallTrace,
    ) -> OpenSocket:
        """Connect to a server."""
        try:
            socket = await session.ws_connect(url, headers=headers, autoclose=False)
        except aiohttp.WSServerHandshakeError as error:
            detail = f"the WebSocket was not opened: HTTP {error.status}"
            raise NotConnected(31920, detail) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            detail = f"the WebSocket cannot be reached: {reason(error)}"
            raise NotConnected(31901, detail) from error
        return _Socket(socket)
