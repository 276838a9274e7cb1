"""A clock that runs as fast as it can, tones instead of speech, and an agent on loopback."""

import asyncio
import dataclasses
import heapq
import itertools
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from aiohttp import web
from twilio.request_validator import RequestValidator

from telephony import mulaw
from telephony.media_streams import (
    FRAME_BYTES,
    Clear,
    FromTwilio,
    Mark,
    MarkReturned,
    Media,
    Play,
    Start,
    Stop,
)
from telephony.simulator.audible import audible_windows
from telephony.simulator.report import CallReport, Check, Latency, MarkReport, TurnReport
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target

PUBLIC = "https://phone.example"
TOKEN = "a secret"
_SETTLING_ROUNDS = 25
_LONG_ROUNDS = 50


class FastClock:
    """Virtual time: whoever sleeps is woken in order, once the sockets have nothing left to do.

    Attributes:
        long: Before more than so many seconds pass at once, sockets are given a moment.
    """

    def __init__(self):
        self.long = math.inf
        self.now = 1_700_000_000.0
        self._sleepers = []
        self._order = itertools.count()
        self._threads = 0
        self._in_thread = asyncio.to_thread

    def time(self):
        return self.now

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def to_thread(self, work, *args, **kwargs):
        """As asyncio's, but no time passes: it would run on without end while a thread works."""
        self._threads += 1
        try:
            return await self._in_thread(work, *args, **kwargs)
        finally:
            self._threads -= 1

    async def drive(self):
        while True:
            for _ in range(_SETTLING_ROUNDS):
                await asyncio.sleep(0)
            if self._sleepers and not self._threads and await self._is_due():
                deadline, _, future = heapq.heappop(self._sleepers)
                # Who has been woken otherwise, or given up, moves no time.
                if not future.done():
                    self.now = max(self.now, deadline)
                    future.set_result(None)

    async def _is_due(self):
        """Whether nothing comes up before a sleeper for whom much time would pass."""
        deadline, _, future = self._sleepers[0]
        for _ in range(_LONG_ROUNDS if deadline - self.now > self.long else 0):
            if future.done():
                break
            await asyncio.sleep(0.001)
            if self._sleepers[0][2] is not future or self._threads:
                return False
        return True


@pytest.fixture
async def clock(monkeypatch) -> AsyncIterator[FastClock]:
    clock = FastClock()
    monkeypatch.setattr(asyncio, "to_thread", clock.to_thread)
    driver = asyncio.create_task(clock.drive())
    yield clock
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)


def tone(seconds: float, rate: int = 8000, hertz: float = 440.0) -> np.ndarray:
    """int16: a tone in the place of speech."""
    t = np.arange(round(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


@pytest.fixture(name="tone")
def tone_fixture() -> Callable[..., np.ndarray]:
    return tone


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a WAV file with silence, a tone and silence."""

    def write(name="line.wav", before=0.1, seconds=1.0, after=0.2, rate=16000, channels=1) -> Path:
        silences = (np.zeros(round(s * rate), np.int16) for s in (before, after))
        audio = np.concatenate([next(silences), tone(seconds, rate), next(silences)])
        path = tmp_path / name
        soundfile.write(path, np.stack([audio] * channels, axis=1), rate)
        return path

    return write


@pytest.fixture
def scenario(wav) -> Callable[..., Scenario]:
    """Builds a scenario whose lines are one second of tone each, unless they say otherwise."""

    def build(turns: list[dict], **fields) -> Scenario:
        path = wav()
        turns = [{"say": f"line {n}", "wav": path, **turn} for n, turn in enumerate(turns, 1)]
        return Scenario.model_validate({"name": "test", "turns": turns, **fields})

    return build


@dataclass
class Line:
    """The agent's end of one media stream, and a log of what came over it."""

    socket: web.WebSocketResponse
    clock: FastClock
    records: Path | None
    start: Start | None = None
    frames: list[Media] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    stopped: bool = False
    reader: FromTwilio = field(default_factory=FromTwilio)

    async def events(self):
        async for message in self.socket:
            event = self.reader.receive(message.data)
            match event:
                case Start():
                    self.start = event
                case Media():
                    self.frames.append(event)
                case MarkReturned(mark=name):
                    self.marks.append(name)
                case Stop():
                    self.stopped = True
            yield event

    async def say(self, seconds: float, mark: str | None = None) -> None:
        """Send a tone all at once."""
        audio = mulaw.encode(tone(seconds))
        for at in range(0, len(audio), FRAME_BYTES):
            await self.send(Play(self.sid, audio[at : at + FRAME_BYTES]))
        if mark:
            await self.send(Mark(self.sid, mark))

    async def clear(self) -> None:
        await self.send(Clear(self.sid))

    async def send(self, event) -> None:
        await self.socket.send_str(event.to_json())

    @property
    def sid(self) -> str:
        assert self.start is not None
        return self.start.stream_sid

    def record(self, name: str, /, **fields) -> None:
        assert self.records is not None
        assert self.start is not None
        event = {"at": self.clock.time(), "event": name, "call_sid": self.start.call_sid}
        with self.records.open("a") as file:
            file.write(json.dumps({**event, **fields}) + "\n")


class Agent:
    """A server that speaks Media Streams: its behaviour is a coroutine over a ``Line``."""

    def __init__(self, clock: FastClock, records: Path):
        self.clock = clock
        self.records = records
        self.behave: Callable[[Line], Awaitable[None]] = polite
        self.twiml = (
            "<Response><Connect><Stream url='wss://phone.example/media'>"
            "<Parameter name='caller' value='somebody'/></Stream></Connect></Response>"
        )
        self.status = 200
        self.lines: list[Line] = []
        self.webhooks: list[dict[str, str]] = []
        self.callbacks: list[dict[str, str]] = []
        self.forged: list[str] = []
        self.target = Target(f"{PUBLIC}/voice", TOKEN)

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/voice", self._voice),
                web.post("/status", self._status),
                web.get("/media", self._media),
            ]
        )
        return app

    def _check(self, url: str, form: dict[str, str], request: web.Request) -> None:
        signature = request.headers.get("X-Twilio-Signature", "")
        if not RequestValidator(TOKEN).validate(url, form, signature):
            self.forged.append(url)

    async def _voice(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self._check(f"{PUBLIC}/voice", form, request)
        self.webhooks.append(form)
        return web.Response(text=self.twiml, content_type="text/xml", status=self.status)

    async def _status(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self._check(f"{PUBLIC}/status", form, request)
        self.callbacks.append(form)
        return web.Response(status=204)

    async def _media(self, request: web.Request) -> web.WebSocketResponse:
        self._check("wss://phone.example/media", {}, request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        line = Line(socket, self.clock, self.records)
        self.lines.append(line)
        await self.behave(line)
        return socket


async def polite(line: Line) -> None:
    """Greets, answers two seconds of tone after half a second of silence, yields to the caller."""
    turn, silent, speaking, playing = 0, 0, False, 0.0
    async for event in line.events():
        if isinstance(event, Start):
            line.record("call_started")
            line.record("answer_started", turn=0)
            line.record("agent_text", turn=0, text="Hello, this is the test.")
            await line.say(1.0, "greeting")
            playing = line.clock.time() + 1.0
        if isinstance(event, Stop):
            line.record("call_ended", cause="stop")
        if not isinstance(event, Media):
            continue
        if audible_windows(mulaw.decode(event.payload)).any():
            silent = 0
            if not speaking and line.clock.time() < playing:
                await line.clear()
                line.record("interrupted", turn=turn, heard_seconds=0.5, heard_text="You have said")
            speaking = True
            continue
        silent += 1
        if speaking and silent == 25:
            speaking = False
            turn += 1
            line.record("early_answer_dropped", seconds=0.25)
            line.record("turn_decided", turn=turn)
            line.record("answer_started", turn=turn, ahead=0.015)
            line.record("first_token", turn=turn, tokenise=0.01, first_token=0.02)
            line.record("first_audio", turn=turn, first_audio=0.03, saved=0.015)
            line.record("caller_text", turn=turn, text=f"line {turn}")
            line.record("agent_text", turn=turn, text="You have said ")
            line.record("agent_text", turn=turn, text=f"thing {turn}.")
            line.record("answer_finished", turn=turn, text=f"You have said thing {turn}.")
            await line.say(2.0, f"answer {turn}")
            playing = line.clock.time() + 2.0


@pytest.fixture
async def agent(clock, tmp_path, aiohttp_server) -> Agent:
    agent = Agent(clock, tmp_path / "agent.jsonl")
    server = await aiohttp_server(agent.app())
    agent.target = Target(
        f"{PUBLIC}/voice",
        TOKEN,
        via=f"http://127.0.0.1:{server.port}",
        status_url=f"{PUBLIC}/status",
    )
    return agent


@pytest.fixture
def call_report() -> Callable[..., CallReport]:
    """Builds the report of a call of eight seconds: one line, one answer."""

    def build(holds: bool = True, **fields) -> CallReport:
        words = Check(name="words", expected="“soon”", found="“later”", passed=holds)
        turn = TurnReport(
            index=0,
            caller="Words.",
            speech=(1.0, 3.0),
            answer=(4.0, 7.0),
            agent="An answer.",
            latency=Latency(voice_to_voice=1000.0),
            checks=[words],
        )
        call = {
            "scenario": "a call",
            "call_sid": "CA0",
            "dialled_at": 0.0,
            "stream_started_at": 0.0,
            "webhook_ms": 1.0,
            "connect_ms": 1.0,
            "duration": 8.0,
            "cause": "the caller hung up",
            "said": [],
            "turns": [turn],
            "checks": [],
            "marks": [MarkReport(name="m", sent=4.0, returned=6.0, cleared=True)],
            "clears": [],
            "gaps": [],
            "unplayed": 0.0,
            "errors": [],
            "lateness": None,
            "agent_events": [],
        }
        return CallReport(**{**call, **fields})

    return build


@dataclass
class Outside:
    """The agent's web server beside its voice webhook.

    Attributes:
        documents: TwiML by path, or what makes it of the form; any other path has no content.
        files: Content and its type by path.
        asked: Path and form (or query) of every request, in order.
        forged: Addresses whose signature was wrong.
    """

    documents: dict[str, str | Callable[[dict[str, str]], str]] = field(default_factory=dict)
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)

    def of(self, path: str) -> list[dict[str, str]]:
        """The forms that came to a path."""
        return [form for asked, form in self.asked if asked == path]

    async def answer(self, request: web.Request) -> web.Response:
        """Answer anything."""
        form = dict(await request.post())
        signature = request.headers.get("X-Twilio-Signature", "")
        if not RequestValidator(TOKEN).validate(PUBLIC + request.path_qs, form, signature):
            self.forged.append(request.path)
        self.asked.append((request.path, form or dict(request.query)))
        if request.path in self.status:
            return web.Response(status=self.status[request.path])
        if request.path in self.files:
            content, kind = self.files[request.path]
            return web.Response(body=content, content_type=kind)
        if request.path in self.documents:
            document = self.documents[request.path]
            text = document if isinstance(document, str) else document(form)
            return web.Response(text=text, content_type="text/xml")
        return web.Response(status=204)


@pytest.fixture
async def outside(agent, aiohttp_server) -> Outside:
    """The agent's server, answering any address; ``agent.target`` leads to it."""
    outside = Outside()
    app = agent.app()
    app.router.add_route("*", "/{path:.*}", outside.answer)
    server = await aiohttp_server(app)
    agent.target = dataclasses.replace(agent.target, via=f"http://127.0.0.1:{server.port}")
    return outside
