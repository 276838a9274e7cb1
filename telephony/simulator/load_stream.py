"""One media stream of a load run: as simulator/stream.py, but hundreds fit into one process.

Ticks come from the run's one pacer, a tick waits for nothing, messages are read where they arrive,
sound is encoded once for all callers who say the same, and nothing is kept but what the call's
meter measures. Network faults are not for load runs.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
import numpy as np

from telephony import mulaw
from telephony.clock import Clock
from telephony.media_streams import (
    FRAME_SECONDS,
    Connected,
    Dtmf,
    Mark,
    MarkReturned,
    ProtocolError,
    Start,
    Stop,
)
from telephony.simulator import trace
from telephony.simulator.callee import Person
from telephony.simulator.load_caller import LoadCaller
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.load_reading import ServerReader
from telephony.simulator.load_socket import LoadSocket
from telephony.simulator.network import Network
from telephony.simulator.pacing import Pacer
from telephony.simulator.playback import PlaybackBuffer
from telephony.simulator.stream import CLOSE_SECONDS, OpenSocket, Talking, Tap

_NOT_READ_SECONDS = 5.0
"""So long a server may read nothing (error 31930)."""


class LoadStreams:
    """Opens the streams of a load run."""

    def __init__(self, clock: Clock, pacer: Pacer, meters: Mapping[str, CallMeter]) -> None:
        """Prepare to open streams.

        Args:
            clock: Tells the time.
            pacer: Calls their ticks.
            meters: By call; told what the phone plays.
        """
        self._clock = clock
        self._pacer = pacer
        self._meters = meters

    async def open(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        call: trace.CallTrace,
    ) -> OpenSocket:
        """Connect to a server."""
        socket = await LoadSocket.open(url, headers, self._clock)
        return _Open(socket, self._pacer, self._meters[call.call_sid])


class _Open:
    def __init__(self, socket: LoadSocket, pacer: Pacer, meter: CallMeter) -> None:
        self._socket = socket
        self._pacer = pacer
        self._meter = meter

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
        return LoadStream(
            self._socket, clock, call, stream, start, ending, self._pacer, self._meter
        )


class LoadStream:
    """Runs one stream; a tick does what it does in :class:`telephony.simulator.MediaStream`."""

    def __init__(
        self,
        socket: LoadSocket,
        clock: Clock,
        call: trace.CallTrace,
        stream: trace.StreamTrace,
        start: Start,
        ending: asyncio.Event,
        pacer: Pacer,
        meter: CallMeter,
    ) -> None:
        """Prepare a stream on an open socket.

        Args:
            socket: Connected to the server.
            clock: Tells the time.
            call: Receives errors.
            stream: Receives when it began.
            start: The start event to send.
            ending: When it is set, the call goes elsewhere and the stream ends.
            pacer: Calls its ticks.
            meter: Is told what the phone plays.
        """
        self._socket = socket
        self._clock = clock
        self._call = call
        self._trace = stream
        self._start = start
        self._ending = ending
        self._pacer = pacer
        self._meter = meter
        self._reader = ServerReader(start.stream_sid)
        self._buffer = PlaybackBuffer()
        self._sequence = start.sequence
        self._cleared: list[str] = []
        self._said: bytes | None = None
        self._ticks = 0

    async def run(self, caller: Person) -> trace.Cause:
        """Talk until one side ends it.

        Args:
            caller: Who speaks and listens.

        Returns:
            Who ended it.
        """
        self._caller = caller
        self._hear = (
            caller.tick_coded
            if isinstance(caller, LoadCaller)
            else lambda heard: caller.tick(mulaw.decode(heard))
        )
        self._ended: asyncio.Future[trace.Cause] = asyncio.get_running_loop().create_future()
        self._begun = self._pacer.place(FRAME_SECONDS)
        self._trace.begin(self._begun)
        try:
            self._socket.send(Connected().to_json())
            self._socket.send(self._start.to_json())
            self._socket.receive(self._read)
            self._pacer.join(self._begun, self._tick)
            cause = await self._ended
            if cause in (trace.Cause.CALLER_HUNG_UP, trace.Cause.REDIRECTED):
                start = self._start
                stop = Stop(start.stream_sid, start.account_sid, start.call_sid, self._next())
                self._socket.send(stop.to_json())
            return cause
        finally:
            if not self._ended.done():
                self._ended.cancel()
            await self._socket.close(CLOSE_SECONDS)

    def _tick(self) -> float | None:
        if self._ended.done():
            return None
        try:
            ended = self._live()
        except Exception as error:
            self._ended.set_exception(error)
            return None
        if ended is not None:
            self._ended.set_result(ended)
            return None
        self._ticks += 1
        return self._begun + self._ticks * FRAME_SECONDS

    def _live(self) -> trace.Cause | None:
        """Live through a tick; who ended the stream, if somebody did."""
        socket, caller = self._socket, self._caller
        if socket.closed:
            return self._server_closed()
        if self._said is not None:
            self._sequence += 1
            socket.send(
                f'{{"event":"media","sequenceNumber":"{self._sequence}","media":'
                f'{{"track":"inbound","chunk":"{self._ticks}",'
                f'"timestamp":"{20 * self._ticks - 20}","payload":"{_payload(self._said)}"}},'
                f'"streamSid":"{self._start.stream_sid}"}}'
            )
        held_since = socket.held_since
        if held_since is not None and self._clock.time() - held_since > _NOT_READ_SECONDS:
            self._error(31930, "the server does not read what is sent")
            return trace.Cause.STREAM_FAILED
        if caller.keys:
            key = Dtmf(self._start.stream_sid, caller.keys.popleft(), self._next())
            socket.send(key.to_json())
        if self._ending.is_set():
            return trace.Cause.REDIRECTED
        played = self._buffer.tick()
        self._meter.played(played)
        if played.marks or self._cleared:
            for name in (*self._cleared, *played.marks):
                socket.send(MarkReturned(self._start.stream_sid, name, self._next()).to_json())
            self._cleared.clear()
        said = self._hear(played.audio)
        if said is None:
            return trace.Cause.CALLER_HUNG_UP
        self._said = said.tobytes()
        return None

    def _read(self, message: bytes) -> None:
        try:
            event = self._reader.read(message)
        except ProtocolError as error:
            # Twilio logs what it cannot use and goes on.
            self._error(31951, error.reason)
            return
        if isinstance(event, bytes):
            if self._buffer.media(event):
                self._error(31931, "more than ten minutes of audio were waiting to be played")
        elif isinstance(event, Mark):
            self._buffer.mark(event.mark)
        else:
            # They return at the next tick: nothing is sent but from there.
            self._cleared += self._buffer.clear()
            self._meter.cleared()

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


@lru_cache(maxsize=1 << 16)
def _payload(pcm: bytes) -> str:
    """20 ms of int16 as a message carries them; callers who say the same share it."""
    return base64.b64encode(mulaw.encode(np.frombuffer(pcm, np.int16))).decode("ascii")
