"""Tools on whole calls: the gateway and a real pipeline on a loopback Twilio, a scripted model."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
from aiohttp import web
from pydantic import SecretStr

from agent.conversation import AGENT_RATE
from agent.pipeline import SharedModels
from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from agent.speech.request import TurnRequest
from agent.voice_session import AnswerChunk
from telephony.agents import Agent, Agents
from telephony.answering import Answering
from telephony.records import CallRecords
from telephony.sentences import ENGLISH
from telephony.server import create_app, listening
from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.callee import Callee, Listener, PhoneBook
from telephony.simulator.loopback import Loopback, running_twilio
from telephony.simulator.record_tail import RecordTail, tail_of_call
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace, Cause

TOKEN = "a secret"
NURSE = "+15550100004"
ENGAGED = "+15550100005"
SILENCE = np.zeros(0, dtype=np.int16)
DATA = Path(__file__).parents[2] / "data"


@dataclass
class Says:
    """An answer of the scripted model: seconds of tone, the tool it calls, and the words."""

    seconds: float = 0.0
    calls: str = ""
    text: str = "words"


class Session:
    """The model: gives the answers of a script, and says what it must say."""

    def __init__(self, script: list[Says], tone: Callable[..., np.ndarray]) -> None:
        self.requests: list[TurnRequest] = []
        self.retracted = asyncio.Event()
        self._script = deque(script)
        self._tone = tone
        self._heard = 0

    def push(self, audio, expected=None):
        self._heard += len(audio)

    def discard(self):
        self._heard = 0

    async def answer(self, request=None):
        assert request is not None
        self.requests.append(request)
        says = Says(1.0) if request.say else self._script.popleft()
        yield AnswerChunk(0, says.text, SILENCE, False, {})
        audio = self._tone(says.seconds, AGENT_RATE, 440.0) if says.seconds else SILENCE
        yield AnswerChunk(1, "", audio, True, {}, says.calls)

    def confirm(self):
        pass

    async def retract(self):
        self.retracted.set()

    async def transcribe(self):
        return ""

    async def stop(self):
        pass

    async def close(self):
        pass


class Speaker(Listener):
    """A listener who says something and hangs up, when told to."""

    def __init__(self, speech: np.ndarray) -> None:
        super().__init__(seconds=600.0)
        self.speaks = asyncio.Event()
        self._speech = deque(speech[: len(speech) // 160 * 160].reshape(-1, 160))

    def tick(self, heard):
        said = super().tick(heard)
        return self._speech.popleft() if self.speaks.is_set() and self._speech else said

    def hang_up(self) -> None:
        self._left = 0


@dataclass
class Line:
    """A gateway and a Twilio that calls it."""

    twilio: Loopback
    session: Session
    records: Path
    tail: RecordTail | None = None

    async def call(self, person: Listener | None = None, seconds: float = 20.0) -> CallTrace:
        """Call, let the agent do what its script has, and read the record."""
        trace = self.twilio.twilio.new_call()
        self.tail = tail_of_call(self.records, trace.call_sid)
        person = person or Listener(seconds)
        await self.twilio.twilio.place(trace, person, "+15550100001", "+15550100002")
        await self.wait("call_ended")
        assert not trace.errors, trace.errors
        return trace

    async def wait(self, name: str, count: int = 1) -> None:
        """Wait for an event in the record."""
        async with asyncio.timeout(60):
            while len(self.of(name)) < count:
                await asyncio.sleep(0.01)
                if self.tail is not None:
                    self.tail.read()

    def of(self, name: str) -> list[dict]:
        events = self.tail.events if self.tail is not None else []
        return [event.fields for event in events if event.name == name]


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture
async def answering(clock, tmp_path, models, tone, unused_tcp_port):
    """Starts a gateway with tools and a script, and a Twilio that knows a nurse."""
    address = f"http://127.0.0.1:{unused_tcp_port}"
    # The gateway gives up on a socket that does not come.
    clock.long = 5.0

    async def ready() -> None:
        pass

    async with AsyncExitStack() as stack:

        async def start(script: list[Says], tools: list[dict], **settled: str) -> Line:
            agents = Agents({"desk": Agent.model_validate({"tools": tools})})
            session = Session(script, tone)
            answering = Answering(lambda: session, models)
            target = Target(f"{address}/voice", TOKEN, status_url=f"{address}/status")
            book = PhoneBook(
                numbers={NURSE: Callee(stays_ms=1000), ENGAGED: Callee(outcome="busy")}
            )
            twilio = await stack.enter_async_context(
                running_twilio(target, clock=clock, phone_book=book)
            )
            gateway = GatewaySettings.model_validate(
                {"auth_token": SecretStr(TOKEN), "rest_url": twilio.url, **settled}
            )
            records = CallRecords(RecordSettings(directory=tmp_path), clock.time)
            app = create_app(
                gateway,
                answering.answer,
                records,
                engine_ready=ready,
                agents=agents,
                prepare=answering.prepare,
                clock=clock,
            )
            await stack.enter_async_context(listening(app, "127.0.0.1", unused_tcp_port))
            return Line(twilio, session, tmp_path / "calls.db")

        yield start


def heard(trace: CallTrace) -> float:
    """Seconds in which the agent could be heard, whatever the gaps on a busy machine."""
    assert trace.stream is not None
    spans = audible_spans(trace.stream.agent_audio, 15.0)
    return round(sum(end - begin for begin, end in spans) / SAMPLE_RATE, 1)


async def test_the_goodbye_is_heard_and_then_the_agent_hangs_up(answering):
    line = await answering([Says(2.0, "hang_up\n{}")], [{"kind": "hang_up"}])
    trace = await line.call()
    assert heard(trace) == 2.0
    assert trace.cause is Cause.AGENT_HUNG_UP
    assert line.of("call_ended") == [{"cause": "agent_hung_up"}]
    assert line.of("tool_call") == [
        {"turn": 0, "name": "hang_up", "arguments": {}, "call_id": "call-0"}
    ]
    assert line.of("tool_result") == [{"turn": 0, "call_id": "call-0", "result": "ended"}]


async def test_a_goodbye_to_the_result_is_heard_too(answering):
    line = await answering([Says(0.0, "hang_up\n{}"), Says(1.5)], [{"kind": "hang_up"}])
    trace = await line.call()
    assert heard(trace) == 1.5
    assert trace.cause is Cause.AGENT_HUNG_UP
    assert line.session.requests[1].result == "ended"


TRANSFER = {"kind": "transfer", "destinations": {"nurse": NURSE}}


@pytest.mark.parametrize("way", ["twiml", "rest"])
async def test_a_caller_is_put_through(answering, way):
    script = [Says(0.5, 'transfer\n{"to": "nurse"}'), Says(1.0)]
    line = await answering(script, [TRANSFER], transfer=way)
    trace = await line.call()
    assert heard(trace) == 0.5
    (dial,) = trace.dials
    assert (dial.to, dial.outcome, dial.answered_by) == ((NURSE,), "completed", NURSE)
    assert line.of("call_transferred") == [{"to": NURSE}]
    assert line.of("call_ended") == [{"cause": "transferred"}]
    assert line.of("tool_result") == [{"turn": 0, "call_id": "call-0", "result": "connected"}]
    assert line.twilio.api.faults == []


async def test_please_hold_the_line_is_heard_before_a_transfer(answering):
    script = [Says(0.0, 'transfer\n{"to": "nurse"}'), Says(1.0)]
    line = await answering(script, [TRANSFER])
    trace = await line.call()
    assert heard(trace) == 1.0
    assert len(trace.dials) == 1
    assert line.session.requests[1].result == "connected"


async def test_a_transfer_that_fails_is_told_to_the_model(answering):
    script = [Says(0.5, 'transfer\n{"to": "nurse"}'), Says(1.0)]
    line = await answering(script, [TRANSFER], transfer="rest", rest_url="http://127.0.0.1:9")
    trace = await line.call(seconds=6.0)
    assert trace.dials == []
    assert heard(trace) == 1.5
    assert line.session.requests[1].result == '{"error": "not connected"}'
    assert "cannot be reached" in line.of("error")[0]["message"]
    assert line.of("call_ended") == [{"cause": "caller_hung_up"}]


async def test_a_caller_who_is_put_through_in_vain_is_told(answering):
    nobody = {"kind": "transfer", "destinations": {"nurse": ENGAGED}}
    line = await answering([Says(0.5, 'transfer\n{"to": "nurse"}')], [nobody])
    trace = await line.call()
    assert len(trace.dials) == 1
    assert trace.said == [ENGLISH.apology]
    await line.wait("forward_failed")
    assert line.of("forward_failed") == [{"status": "busy"}]
    assert line.of("call_ended") == [{"cause": "transferred"}]


async def test_an_agent_that_hangs_up_rings_nobody(answering):
    """Twilio asks what comes next after every call that the agent leaves."""
    line = await answering([Says(0.5, "hang_up\n{}")], [{"kind": "hang_up"}, TRANSFER])
    trace = await line.call()
    assert trace.dials == []
    asked = [request for request in trace.requests if request.url.endswith("/next")]
    assert [request.status for request in asked] == [200]


async def test_twilio_is_not_asked_to_ask_where_nobody_is_ever_rung(answering):
    line = await answering([Says(0.5, "hang_up\n{}")], [{"kind": "hang_up"}])
    trace = await line.call()
    assert not [request for request in trace.requests if request.url.endswith("/next")]
    assert trace.cause is Cause.AGENT_HUNG_UP


async def test_digits_are_touch_tones_on_the_line(answering):
    line = await answering([Says(0.0, 'send_digits\n{"digits": "15"}')], [{"kind": "send_digits"}])
    trace = await line.call(seconds=4.0)
    assert trace.stream is not None
    audio = trace.stream.agent_audio
    spans = audible_spans(audio, 20.0)
    assert len(spans) == 2
    first = audio[spans[0][0] :][:800] * np.hanning(800)
    spectrum = np.abs(np.fft.rfft(first))
    loudest = sorted(np.argsort(spectrum)[-6:] * SAMPLE_RATE / 800)
    assert any(abs(tone - 697) < 15 for tone in loudest), loudest
    assert any(abs(tone - 1209) < 15 for tone in loudest), loudest


async def test_a_message_is_in_the_record(answering):
    call = 'take_message\n{"text": "Please call back.", "number": "555 0100"}'
    line = await answering([Says(0.0, call), Says(0.5)], [{"kind": "take_message"}])
    await line.call(seconds=4.0)
    assert line.of("message_taken") == [
        {"turn": 0, "text": "Please call back.", "name": None, "number": "555 0100"}
    ]
    assert line.session.requests[1].result == "kept"


async def test_a_fact_is_looked_up_and_told(answering):
    table = {
        "kind": "look_up",
        "description": "Looks up when a doctor is here.",
        "parameter": "doctor",
        "facts": {"Smith": "Monday"},
    }
    script = [Says(0.5, 'look_up\n{"doctor": "smith"}'), Says(1.0)]
    line = await answering(script, [table])
    trace = await line.call(seconds=5.0)
    assert heard(trace) == 1.5
    assert line.session.requests[1].result == "Monday"
    assert line.of("tool_result") == [{"turn": 0, "call_id": "call-0", "result": "Monday"}]


async def visit(day: Literal["Monday", "Friday"], time: str) -> dict[str, str]:
    """Books a visit."""
    return {"booked": f"{day} at {time}"}


async def test_a_python_function_is_called_with_its_types(answering):
    tool = {"kind": "function", "name": "visit", "function": f"{__name__}:visit"}
    script = [
        Says(0.0, 'visit\n{"day": "Sunday", "time": "ten"}'),
        Says(0.0, 'visit\n{"day": "Friday", "time": "ten"}'),
        Says(1.0),
    ]
    line = await answering(script, [tool])
    trace = await line.call(seconds=5.0)
    assert heard(trace) == 1.0
    assert [call["arguments"]["day"] for call in line.of("tool_call")] == ["Sunday", "Friday"]
    wrong, right = line.of("tool_result")
    assert "'Monday' or 'Friday'" in wrong["error"]
    assert right == {"turn": 1, "call_id": "call-1", "result": {"booked": "Friday at ten"}}
    assert line.session.requests[2].result == '{"booked": "Friday at ten"}'


@pytest.fixture
async def desk(aiohttp_server):
    """A booking desk on the web that answers when it may."""
    may, asked = asyncio.Event(), []

    async def book(request):
        asked.append(await request.json())
        await may.wait()
        return web.json_response({"booked": True})

    app = web.Application()
    app.router.add_post("/book", book)
    server = await aiohttp_server(app)
    return str(server.make_url("/book")), may, asked


def booking(url: str, **fields) -> dict:
    day = {"day": {"type": "string"}}
    return {
        "kind": "webhook",
        "name": "book",
        "description": "Books an appointment.",
        "parameters": {"type": "object", "properties": day, "required": ["day"]},
        "url": url,
        **fields,
    }


BOOK = 'book\n{"day": "Monday"}'


async def test_a_slow_webhook_is_covered_by_a_filler(answering, desk):
    url, may, asked = desk
    tools = [booking(url, filler="One moment please.", filler_after=0)]
    line = await answering([Says(0.5, BOOK), Says(1.5)], tools)

    async def answers_after_the_filler():
        await line.session.retracted.wait()
        may.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(answers_after_the_filler())
        call = group.create_task(line.call(seconds=8.0))
    assert heard(call.result()) == 3.0
    assert asked == [{"day": "Monday"}]
    requests = line.session.requests
    assert [(r.say, r.result) for r in requests[1:]] == [
        ("One moment please.", None),
        (None, '{"booked": true}'),
    ]


async def test_a_webhook_that_never_answers_is_given_up_and_told(answering, desk):
    url, _, _ = desk
    tools = [booking(url, timeout=0.05, on_failure="The calendar is down.")]
    line = await answering([Says(0.5, BOOK), Says(1.0)], tools)
    trace = await line.call(seconds=5.0)
    assert heard(trace) == 1.5
    assert line.session.requests[1].result == '{"error": "The calendar is down."}'
    assert line.of("tool_result") == [
        {"turn": 0, "call_id": "call-0", "error": "The calendar is down."}
    ]


@pytest.fixture
def question() -> np.ndarray:
    """int16 at 8 kHz: "What are your opening hours?"."""
    speech, rate = soundfile.read(DATA / "opening_hours.wav", dtype="int16")
    return speech[:: rate // SAMPLE_RATE]


async def test_a_caller_who_speaks_while_a_tool_runs_is_answered_with_its_result(
    answering, desk, question
):
    url, may, _ = desk
    line = await answering([Says(0.5, BOOK), Says(1.5)], [booking(url)])
    person = Speaker(question)

    async def speaks_and_then_the_desk_answers():
        await line.wait("heard")
        person.speaks.set()
        await line.wait("turn_decided")
        may.set()
        await line.wait("heard", 2)
        person.hang_up()

    async with asyncio.TaskGroup() as group:
        group.create_task(speaks_and_then_the_desk_answers())
        call = group.create_task(line.call(person))
    assert heard(call.result()) == 2.0
    assert [(r.result, r.result_before) for r in line.session.requests] == [
        (None, None),
        (None, '{"booked": true}'),
    ]


async def test_a_call_that_was_made_outlives_the_words_that_were_interrupted(
    answering, desk, question
):
    url, may, asked = desk
    may.set()
    line = await answering([Says(30.0, BOOK), Says(1.5)], [booking(url)])
    person = Speaker(question)

    async def interrupts():
        await line.wait("tool_result")
        person.speaks.set()
        await line.wait("heard", 2)
        person.hang_up()

    async with asyncio.TaskGroup() as group:
        group.create_task(interrupts())
        call = group.create_task(line.call(person))
    assert call.result().stream.clears
    assert asked == [{"day": "Monday"}]
    (interrupted,) = line.of("interrupted")
    _, then = line.session.requests
    assert (then.result, then.result_before) == (None, '{"booked": true}')
    assert then.heard_seconds == interrupted["heard_seconds"]
    assert 0.0 < then.heard_seconds < 30.0
