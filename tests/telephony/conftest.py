"""A clock that moves when told to, a phone that plays by it, a pipeline around the transport."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiohttp import WSMessage, WSMsgType
from pipecat.frames.frames import Frame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from telephony import mulaw
from telephony.line import PhoneLine
from telephony.media_streams import (
    Clear,
    Connected,
    FromTwilio,
    Mark,
    MarkReturned,
    Media,
    Play,
    Start,
    Stop,
    ToTwilio,
)
from telephony.simulator.playback import PlaybackBuffer
from telephony.transport import PhoneTransport

CALL_SID = "CA" + "0" * 32
STREAM_SID = "MZ" + "0" * 32
ACCOUNT_SID = "AC" + "0" * 32
_SETTLING_ROUNDS = 60


class ManualClock:
    """Time stands still until ``advance``; sleepers wake in order, once all else has settled."""

    def __init__(self):
        self.now = 1000.0
        self._sleepers = []
        self._order = itertools.count()

    def time(self):
        return self.now

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def settle(self):
        for _ in range(_SETTLING_ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds):
        end = self.now + seconds + 1e-9
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self.now = end


class Phone:
    """The other end of a line: an aiohttp WebSocketResponse as far as the gateway uses one.

    Plays what it is sent by the clock and returns marks, as Twilio does.
    """

    def __init__(self, clock):
        self.clock = clock
        self.sent = []
        """(time, event) for everything the gateway sent."""
        self.played = bytearray()
        """mu-law that came from the buffer."""
        self.gaps = 0
        """Ticks between the first and the last sound at which nothing was there to play."""
        self.returns_marks = True
        self.closed_with = None
        self._buffer = PlaybackBuffer()
        self._reads = ToTwilio(STREAM_SID)
        self._messages = asyncio.Queue()
        self._sequence = itertools.count(2)
        self._torn = False
        self._silent_ticks = 0

    # what the gateway calls

    async def receive(self):
        return await self._messages.get()

    async def send_str(self, text):
        if self._torn:
            raise ConnectionResetError("torn")
        assert self.closed_with is None, "sent after close"
        event = self._reads.receive(text)
        self.sent.append((self.clock.now, event))
        match event:
            case Play():
                self._buffer.media(event.payload)
            case Mark():
                self._buffer.mark(event.mark)
            case Clear():
                self._return_marks(self._buffer.clear())

    async def close(self, *, code, message):
        if self.closed_with is None:
            self.closed_with = (code, message.decode())
            self._messages.put_nowait(WSMessage(WSMsgType.CLOSED, None, None))

    # what the test calls

    def say(self, samples):
        """Send int16 samples at 8 kHz, whole frames, as the caller's sound."""
        payload = mulaw.encode(samples)
        for chunk, begin in enumerate(range(0, len(payload), 160), 1):
            frame = payload[begin : begin + 160]
            self.hand(Media(STREAM_SID, frame, chunk * 20, chunk, next(self._sequence)))

    def hand(self, event):
        self.hand_text(event.to_json())

    def hand_text(self, text):
        self._messages.put_nowait(WSMessage(WSMsgType.TEXT, text, None))

    def hang_up(self):
        self.hand(Stop(STREAM_SID, ACCOUNT_SID, CALL_SID, next(self._sequence)))

    def tear(self):
        self._torn = True
        self._messages.put_nowait(WSMessage(WSMsgType.ERROR, ConnectionResetError(), None))

    def events(self, kind):
        return [event for _, event in self.sent if isinstance(event, kind)]

    async def play(self):
        while True:
            tick = self._buffer.tick()
            self._return_marks(tick.marks)
            if tick.samples:
                self.gaps += self._silent_ticks
                self._silent_ticks = 0
                self.played += tick.audio[: tick.samples]
            elif self.played:
                self._silent_ticks += 1
            await self.clock.sleep(0.02)

    def _return_marks(self, names):
        if self.returns_marks:
            for name in names:
                self.hand(MarkReturned(STREAM_SID, name, next(self._sequence)))


class Probe(FrameProcessor):
    """Stands where the agent would, keeps what passes, pushes what the test hands it."""

    def __init__(self):
        super().__init__()
        self.down = []
        self.up = []
        self.started = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        (self.down if direction is FrameDirection.DOWNSTREAM else self.up).append(frame)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.started.set()

    def of(self, kind):
        return [frame for frame in (*self.down, *self.up) if isinstance(frame, kind)]


@dataclass
class Call:
    """A running pipeline: phone, transport, and a probe between its two ends."""

    clock: ManualClock
    phone: Phone
    line: PhoneLine
    transport: PhoneTransport
    probe: Probe
    worker: PipelineWorker
    running: asyncio.Task = field(repr=False)

    async def push(self, *frames):
        for frame in frames:
            await self.probe.push_frame(frame, FrameDirection.DOWNSTREAM)
        await self.clock.settle()

    async def ended(self):
        done, _ = await asyncio.wait({self.running}, timeout=5)
        assert done, "the pipeline did not end by itself"


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def call(manual_clock) -> AsyncIterator[Call]:
    phone = Phone(manual_clock)
    stream = FromTwilio()
    stream.receive(Connected().to_json())
    start = Start(STREAM_SID, CALL_SID, ACCOUNT_SID)
    stream.receive(start.to_json())
    line = PhoneLine(phone, stream, start)
    transport = PhoneTransport(line, clock=manual_clock)
    probe = Probe()
    worker = PipelineWorker(
        Pipeline([transport.input(), probe, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=16000, audio_out_sample_rate=22050),
        enable_rtvi=False,
    )
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    playing = asyncio.create_task(phone.play())
    await probe.started.wait()
    await manual_clock.settle()
    yield Call(manual_clock, phone, line, transport, probe, worker, running)
    await worker.cancel()
    await running
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)


@pytest.fixture
def tone():
    """int16 samples of a sine: in the place of speech, where its content does not matter."""

    def make(seconds: float, rate: int, hertz: float = 440.0, amplitude: float = 8000.0):
        t = np.arange(round(seconds * rate)) / rate
        return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16)

    return make
