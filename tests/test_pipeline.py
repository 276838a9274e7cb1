"""One call's pipeline with real turn detection, between a fake model and a fake phone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pipecat.frames.frames import (
    CancelWorkerFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_transport import BaseTransport

from agent.frames import AudioHeardFrame
from agent.pipeline import SharedModels, run_call
from agent.settings import AgentSettings
from agent.speech.request import TurnRequest

RATE = 16_000
FRAME = 320


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
        async with asyncio.timeout(120):
            while len(self.named(name)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.named(name)[count - 1]


class FakeSession:
    """Answers every turn with a sentence of four seconds."""

    TEXT = "We are open from eight in the morning to six in the evening."

    def __init__(self) -> None:
        self.turns: list[NDArray[np.float32]] = []
        self.requests: list[TurnRequest] = []
        self.closed = 0
        self.retracted = 0
        self._audio: list[NDArray[np.float32]] = []
        self._early: NDArray[np.float32] | None = None

    def push(self, audio: NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        self._audio.append(audio)

    def discard(self) -> None:
        self._audio.clear()

    def confirm(self) -> None:
        assert self._early is not None
        self.turns.append(self._early)
        self._audio.clear()

    async def retract(self) -> None:
        self._early = None
        self.retracted += 1

    async def transcribe(self) -> str:
        return ""

    async def answer(self, request: TurnRequest | None = None) -> AsyncIterator[Any]:
        assert request is not None
        self.requests.append(request)
        said = np.concatenate([np.zeros(0, np.float32), *self._audio])
        if request.early:
            self._early = said
        else:
            self.turns.append(said)
            self._audio.clear()
        audio = np.ones(4 * 22_050, dtype=np.int16)
        yield SimpleNamespace(
            sequence=0, text=self.TEXT, audio=audio, last=True, timing={}, tool_call=""
        )

    async def stop(self) -> None:
        pass

    async def close(self) -> None:
        self.closed += 1


class Ear(FrameProcessor):
    """The phone's input: says what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.started.set()


class Mouth(FrameProcessor):
    """The phone's output: reports what was heard, as the test has it."""

    def __init__(self) -> None:
        super().__init__()
        self.plays = False
        self.passed: asyncio.Queue[Frame] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.passed.put_nowait(frame)
        elif isinstance(frame, TTSAudioRawFrame):
            self.current = frame.context_id
        elif isinstance(frame, TTSStoppedFrame) and not self.plays:
            await self._heard(4.0, completed=True)
        elif isinstance(frame, InterruptionFrame) and self.plays:
            await self._heard(2.0, interrupted=True)

    async def _heard(self, seconds: float, **how: bool) -> None:
        flags = {"interrupted": False, "completed": False} | how
        await self.push_frame(
            AudioHeardFrame(self.current, seconds, **flags), FrameDirection.UPSTREAM
        )


class FakePhone(BaseTransport):
    def __init__(self) -> None:
        super().__init__()
        self.ear, self.mouth = Ear(), Mouth()

    def input(self) -> Ear:
        return self.ear

    def output(self) -> Mouth:
        return self.mouth

    async def hears(self, samples: NDArray[np.int16]) -> None:
        for start in range(0, len(samples) - FRAME + 1, FRAME):
            audio = samples[start : start + FRAME].tobytes()
            await self.ear.push_frame(InputAudioRawFrame(audio, RATE, 1))
            await self.mouth.passed.get()

    async def hangs_up(self) -> None:
        await self.ear.push_frame(CancelWorkerFrame(), FrameDirection.UPSTREAM)


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture(scope="module")
def question() -> NDArray[np.int16]:
    """ "What are your opening hours?", and the silence in which it is answered."""
    path = Path(__file__).parent / "data" / "opening_hours.wav"
    speech, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return np.concatenate([np.zeros(RATE // 2, np.int16), speech, np.zeros(2 * RATE, np.int16)])


class Line:
    def __init__(self, models: SharedModels) -> None:
        self.phone, self.session, self.events = FakePhone(), FakeSession(), Events()
        self._models = models

    async def call(self, settings: AgentSettings) -> None:
        await run_call(self.phone, self.session, self._models, settings, self.events)


@pytest.fixture
def line(models: SharedModels) -> Line:
    return Line(models)


async def during(line: Line, settings: AgentSettings, script: Callable[[], Any]) -> None:
    call = asyncio.create_task(line.call(settings))
    try:
        await script()
    finally:
        await line.phone.hangs_up()
        async with asyncio.timeout(120):
            await call


async def test_a_spoken_question_reaches_the_model_whole_and_once(
    line: Line, question: NDArray[np.int16]
) -> None:
    async def script() -> None:
        await line.events.wait("heard")
        await line.phone.hears(question)
        await line.events.wait("heard", 2)

    await during(line, AgentSettings(), script)
    assert [request.instruction for request in line.session.requests] == [
        "Greet the caller.",
        None,
    ]
    heard = np.round(line.session.turns[1] * 32768).astype(np.int16)
    loud = np.flatnonzero(np.abs(question) > 500)
    speech = question[loud[0] : loud[-1] + 1].tobytes()
    assert speech in heard.tobytes()
    assert len(heard) < len(speech) / 2 + 1.2 * RATE
    names = [name for name, _ in line.events.all]
    order = ("caller_speech_started", "caller_speech_stopped", "turn_decided", "first_audio")
    places = [names.index(name, names.index("heard")) for name in order]
    assert places == sorted(places)


async def test_a_barge_in_leaves_only_what_was_heard(
    line: Line, question: NDArray[np.int16]
) -> None:
    async def script() -> None:
        await line.events.wait("heard")
        line.phone.mouth.plays = True
        await line.phone.hears(question)
        await line.events.wait("answer_finished", 2)
        await line.phone.hears(question)
        await line.events.wait("answer_finished", 3)

    await during(line, AgentSettings(), script)
    assert line.events.named("interrupted") == [
        {"turn": 1, "heard_seconds": 2.0, "heard_text": "We are open from eight in the"}
    ]
    assert line.session.requests[2].heard_seconds == 2.0


async def test_words_for_the_greeting_are_said_as_they_are(line: Line) -> None:
    async def script() -> None:
        await line.events.wait("heard")

    await during(line, AgentSettings(greeting_text="Oak Street Clinic."), script)
    assert [request.say for request in line.session.requests] == ["Oak Street Clinic."]


async def test_a_call_that_ends_frees_its_session_and_its_tasks(line: Line) -> None:
    before = asyncio.all_tasks()

    async def script() -> None:
        await line.events.wait("answer_started")

    await during(line, AgentSettings(), script)
    assert line.session.closed >= 1
    assert asyncio.all_tasks() <= before


async def test_silence_is_neither_sent_nor_answered(line: Line) -> None:
    settings = AgentSettings(greeting=None)

    async def script() -> None:
        await line.phone.ear.started.wait()
        noise = np.random.default_rng(0).normal(0, 3, 3 * RATE).astype(np.int16)
        await line.phone.hears(noise)

    await during(line, settings, script)
    assert line.session.requests == []
    assert line.events.all == []
