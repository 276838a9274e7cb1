"""One media stream of a load run: as simulator/stream.py, but hundreds fit into one process.

Ticks come from the run's one pacer, sound is encoded once for all callers who say the same, and
nothing is kept but what the call's meter measures. Network faults are not for load runs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from functools import lru_cache

import aiohttp
import numpy as np

from telephony import mulaw
from telephony.clock import Clock
from telephony.media_streams import (
    FRAME_SECONDS,
    Clear,
    Connected,
    Dtmf,
    Mark,
    MarkReturned,
    Play,
    ProtocolError,
    Start,
    Stop,
    ToTwilio,
)
from telephony.simulator import trace
from telephony.simulator.callee import Person
from telephony.simulator.load_meter import CallMeter
from telephony.simulator.network import Network
from telephony.simulator.pacing import Pacer
from telephony.simulator.playback import PlaybackBuffer
from telephony.simulator.stream import CLOSE_SECONDS, Tap

_NOT_READ_SECONDS = 5.0
"""So far a server may fall behind in reading (error 31930)."""
_HELD_SECONDS = 0.002
"""A message that takes so long to leave waits for the server to read others first."""
_SILENCE = np.zeros(160, np.int16)


class LoadStream:
    """Runs one stream; a tick does what it does in :class:`telephony.simulator.MediaStream`."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        clock: Clock,
        call: trace.CallTrace,
        stream: trace.StreamTrace,
        start: Start,
        *,
        pacer: Pacer,
        meters: dict[str, CallMeter],
        network: Network | None = None,
        tap: Tap | None = None,
        ending: asyncio.Event | None = None,
    ) -> None:
        """Prepare a stream on an open socket.

        Args:
            socket: Connected to the server.
            clock: Tells the time.
            call: Receives errors.
            stream: Receives when it began.
            start: The start event to send.
            pacer: Wakes it.
            meters: By call; this call's is told what the phone plays.
            network: Not used.
            tap: Not used.
            ending: When it is set, the call goes elsewhere and the stream ends.
        """
        self._socket = socket
        self._clock = clock
        self._call = call
        self._trace = stream
        self._start = start
        self._pacer = pacer
        self._meter = meters[call.call_sid]
        self._ending = ending or asyncio.Event()
        self._reader = ToTwilio(start.stream_sid)
        self._buffer = PlaybackBuffer()
        self._sequence = start.sequence
        self._cleared: list[str] = []

    async def run(self, caller: Person) -> trace.Cause:
        """Talk until one side ends it.

        Args:
            caller: Who speaks and listens.

        Returns:
            Who ended it.
        """
        receiving = asyncio.create_task(self._receive())
        try:
            await self._socket.send_str(Connected().to_json())
            await self._socket.send_str(self._start.to_json())
            ended = await self._talk(caller, receiving)
            if ended in (trace.Cause.CALLER_HUNG_UP, trace.Cause.REDIRECTED):
                start = self._start
                stop = Stop(start.stream_sid, start.account_sid, start.call_sid, self._next())
                await self._socket.send_str(stop.to_json())
            return ended
        except (ConnectionError, aiohttp.ClientError):
            return self._server_closed()
        finally:
            closing = asyncio.create_task(self._socket.close())
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            closing.cancel()
            receiving.cancel()
            await asyncio.gather(receiving, closing, return_exceptions=True)

    async def _talk(self, caller: Person, receiving: asyncio.Task[None]) -> trace.Cause:
        begun = self._clock.time()
        self._trace.begin(begun)
        stream_sid = self._start.stream_sid
        send = self._socket.send_str
        said = None
        tick = 0
        held_until = 0.0
        while True:
            due = begun + tick * FRAME_SECONDS
            await self._pacer.until(due, held_until=held_until)
            if receiving.done():
                receiving.result()
                return self._server_closed()
            if said is not None:
                self._sequence += 1
                before = self._clock.time()
                await send(
                    f'{{"event":"media","sequenceNumber":"{self._sequence}","media":'
                    f'{{"track":"inbound","chunk":"{tick}","timestamp":"{20 * tick - 20}",'
                    f'"payload":"{_payload(said.tobytes())}"}},"streamSid":"{stream_sid}"}}'
                )
                after = self._clock.time()
                if after - before > _HELD_SECONDS:
                    held_until = after
            if held_until - due > _NOT_READ_SECONDS:
                self._error(31930, "the server does not read what is sent")
                return trace.Cause.STREAM_FAILED
            if caller.keys:
                await send(Dtmf(stream_sid, caller.keys.popleft(), self._next()).to_json())
            if self._ending.is_set():
                return trace.Cause.REDIRECTED
            played = self._buffer.tick()
            self._meter.played(played)
            for name in (*self._cleared, *played.marks):
                await send(MarkReturned(stream_sid, name, self._next()).to_json())
            self._cleared.clear()
            said = caller.tick(mulaw.decode(played.audio) if played.samples else _SILENCE)
            if said is None:
                return trace.Cause.CALLER_HUNG_UP
            tick += 1

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                return
            self._read(message.data)

    def _read(self, message: str | bytes) -> None:
        try:
            fields = json.loads(message)
            if fields["event"] == "media" and fields["streamSid"] == self._start.stream_sid:
                self._play(binascii.a2b_base64(fields["media"]["payload"]))
                return
        except (ValueError, TypeError, KeyError):
            pass  # the reader below says what is wrong
        try:
            event = self._reader.receive(message)
        except ProtocolError as error:
            # Twilio logs what it cannot use and goes on.
            self._error(31951, error.reason)
            return
        match event:
            case Play(payload=payload):
                self._play(payload)
            case Mark(mark=name):
                self._buffer.mark(name)
            case Clear():
                # They return at the next tick: nothing is sent but from there.
                self._cleared += self._buffer.clear()
                self._meter.cleared()

    def _play(self, payload: bytes) -> None:
        if self._buffer.media(payload):
            self._error(31931, "more than ten minutes of audio were waiting to be played")

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
