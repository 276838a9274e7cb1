"""A call on paper: the Pipecat service between a fake session and a fake phone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipecat.frames.frames import (
    CancelFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from agent.conversation import AGENT_RATE
from agent.frames import AudioHeardFrame
from agent.service import GLMVoiceService
from agent.settings import AgentSettings, TurnSettings
from agent.speech.request import TurnRequest
from agent.tools.call import Phone
from agent.tools.tool import Tool

FRAME = 320  # samples in 20 ms of the caller's audio
END = object()
PATIENT = TurnSettings(early_secs=None)
"""Answers begin when the turn is over."""


@dataclass
class Chunk:
    sequence: int
    text: str = ""
    audio: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, dtype=np.int16))
    last: bool = False
    timing: dict[str, float] = field(default_factory=dict)
    tool_call: str = ""


class FakeSession:
    """A model at the edge: answers with what the test says, when the test says it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.pushed: list[float] = []
        self.discarded = 0
        self.requests: list[TurnRequest] = []
        self.stopped = 0
        self.closed = 0
        self.running = 0
        self.expected: list[TurnRequest | None] = []
        self.confirmed = 0
        self.retracted = 0
        self.words = ""
        self.asked_words = 0
        self._script: asyncio.Queue[object] = asyncio.Queue()
        self._sequence = 0

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        self.pushed.extend(audio.tolist())
        self.expected.append(expected)

    def discard(self) -> None:
        self.discarded += 1
        self._changed()

    async def answer(self, request: TurnRequest | None = None) -> AsyncIterator[Any]:
        assert request is not None
        assert self.running == 0, "two answers at once"
        self.requests.append(request)
        self.running += 1
        self._changed()
        try:
            while (item := await self._script.get()) is not END:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.running -= 1
            self._changed()

    async def stop(self) -> None:
        self.stopped += 1
        while not self._script.empty():
            self._script.get_nowait()
        self._script.put_nowait(END)

    def confirm(self) -> None:
        self.confirmed += 1

    async def retract(self) -> None:
        self.retracted += 1
        self._changed()
        if self.running:
            await self.stop()
            self.stopped -= 1

    async def transcribe(self) -> str:
        self.asked_words += 1
        return self.words

    async def close(self) -> None:
        self.closed += 1

    def says(self, text: str, seconds: float = 0.0, **timing: float) -> None:
        audio = np.zeros(round(seconds * AGENT_RATE), dtype=np.int16)
        self._script.put_nowait(Chunk(self._sequence, text, audio, timing=timing))
        self._sequence += 1

    def calls(self, written: str) -> None:
        """The answer ends with a call of a tool."""
        self._script.put_nowait(Chunk(self._sequence, last=True, tool_call=written))
        self.ends()

    def ends(self) -> None:
        self._script.put_nowait(END)

    def fails(self, error: Exception) -> None:
        self._script.put_nowait(error)


class Events:
    """An observer that can be waited for."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def event(self, name: str, /, **fields: Any) -> None:
        self.all.append((name, fields))
        self._changed.set()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for other, fields in self.all if other == name]

    async def wait(self, name: str, count: int = 1) -> dict[str, Any]:
        await self.until(lambda: len(self.named(name)) >= count)
        return self.named(name)[count - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Probe(FrameProcessor):
    """Keeps what passes it, and tells the events' waiters."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self._events = events

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        self._events._changed.set()
        await self.push_frame(frame, direction)

    def of(self, *kinds: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kinds)]


class Call:
    """A service in a pipeline, with what is needed to play a call on it."""

    def __init__(
        self,
        settings: AgentSettings,
        tools: Sequence[Tool] = (),
        phone: Phone | None = None,
        context: LLMContext | None = None,
        passes_audio: bool = True,
    ) -> None:
        self.events = Events()
        self.session = FakeSession(self.events._changed.set)
        self.context = context or LLMContext()
        self.service = GLMVoiceService(
            self.session,
            context=self.context,
            settings=settings,
            observer=self.events,
            tools=tools,
            phone=phone,
            passes_audio=passes_audio,
        )
        self._passes_audio = passes_audio
        self.up, self.down = Probe(self.events), Probe(self.events)
        self.worker = PipelineWorker(
            Pipeline([self.up, self.service, self.down]), enable_rtvi=False, idle_timeout_secs=None
        )
        self._sent = 0

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)
            await self.events.until(lambda frame=frame: frame in self.up.frames)

    async def audio(self, frames: int) -> None:
        """Numbered samples, so that a lost or doubled one shows."""
        last = self.down if self._passes_audio else self.up
        for _ in range(frames):
            samples = np.arange(self._sent, self._sent + FRAME).astype("<i2")
            self._sent += FRAME
            frame = InputAudioRawFrame(samples.tobytes(), 16_000, 1)
            await self.worker.queue_frame(frame)
            await self.events.until(lambda frame=frame: frame in last.frames)

    async def speaks(self, frames: int = 25) -> None:
        """A caller's turn from its beginning up to the VAD's finding that it has ended."""
        await self.starts()
        await self.audio(frames)
        await self.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))

    async def starts(self) -> None:
        await self.send(VADUserStartedSpeakingFrame(start_secs=0.2), InterruptionFrame())

    async def asks(self) -> None:
        """A whole turn."""
        turns = len(self.events.named("turn_decided"))
        await self.speaks()
        await self.send(UserStoppedSpeakingFrame())
        await self.events.wait("turn_decided", turns + 1)

    async def spoken(self) -> None:
        """All of an answer has gone down the pipeline."""
        await self.events.wait("answer_finished")
        await self.events.until(lambda: bool(self.down.of(LLMFullResponseEndFrame)))

    async def heard(
        self, answer: int, seconds: float, interrupted: bool = False, completed: bool = False
    ) -> None:
        """What the phone reports; comes from downstream."""
        frame = AudioHeardFrame(f"answer-{answer}", seconds, interrupted, completed)
        await self.down.push_frame(frame, FrameDirection.UPSTREAM)

    @property
    def history(self) -> list[Any]:
        return [message["content"] for message in self.context.get_messages()]  # type: ignore


@asynccontextmanager
async def running(settings: AgentSettings | None = None, **given: Any) -> AsyncIterator[Call]:
    call = Call(settings or AgentSettings(turn=PATIENT), **given)
    started = asyncio.Event()

    async def on_started(*_: object) -> None:
        started.set()

    call.worker.add_event_handler("on_pipeline_started", on_started)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(call.worker)
    run = asyncio.create_task(runner.run())
    async with asyncio.timeout(240):
        await started.wait()
        try:
            yield call
        finally:
            await call.worker.queue_frame(CancelFrame())
            await run
