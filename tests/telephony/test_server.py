"""The gateway over real sockets: who is let in, what a bad caller gets, that no other notices."""

import asyncio
import base64
import contextlib
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner
from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from telephony import mulaw, server, webhooks
from telephony.media_streams import Connected, Media, Start, Stop
from telephony.records import CallRecords
from telephony.sentences import ENGLISH
from telephony.simulator.record_tail import tail_of_call

PUBLIC = "https://phone.example"
AUTH_TOKEN = "the account's secret"
ACCOUNT_SID = "AC" + "0" * 32
SIGN = RequestValidator(AUTH_TOKEN).compute_signature
FRAMES = 10


class HurriedClock:
    """Whoever sleeps for less than a second is woken at once; time has passed nonetheless."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    async def sleep(self, seconds):
        if seconds > 1:
            await asyncio.Event().wait()
        self.now += seconds
        await asyncio.sleep(0)


class Echo(FrameProcessor):
    async def process_frame(self, frame: Frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


class EchoAgent:
    """Answers calls with a pipeline that says back what it hears; `fails` lists calls it fails."""

    def __init__(self):
        self.fails = {}
        self.calls = []

    async def __call__(self, transport, call):
        self.calls.append(call)
        if call.sid in self.fails:
            raise self.fails[call.sid]
        worker = PipelineWorker(
            Pipeline([transport.input(), Echo(), transport.output()]), enable_rtvi=False
        )
        runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
        await runner.add_workers(worker)
        await runner.run()


class Engine:
    def __init__(self):
        self.error = None

    async def ready(self):
        if self.error is not None:
            raise self.error


@dataclass
class Stream:
    """A call's media stream, from Twilio's side."""

    socket: object
    sid: str
    stream_sid: str
    chunk: int = 0

    async def send(self, event):
        await self.socket.send_str(event.to_json())

    async def start(self, token):
        await self.send(Connected())
        await self.send(self.start_event(token))

    def start_event(self, token):
        parameters = {webhooks.TOKEN_PARAMETER: token}
        return Start(self.stream_sid, self.sid, ACCOUNT_SID, parameters)

    async def say(self, payload):
        self.chunk += 1
        await self.send(
            Media(self.stream_sid, payload, self.chunk * 20, self.chunk, self.chunk + 1)
        )

    async def closed(self):
        """Read to the end; the code and the reason of the close frame."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), 5)
            if message.type is WSMsgType.CLOSE:
                return message.data, message.extra
            if message.type in (WSMsgType.CLOSED, WSMsgType.ERROR):
                return self.socket.close_code, None

    async def talks(self):
        """Whether the call still hears its own voice back."""
        loud = mulaw.encode(np.full(160, 8000, np.int16))
        for _ in range(FRAMES):
            await self.say(loud)
        heard = 0
        while heard < FRAMES - 4:
            message = json.loads((await asyncio.wait_for(self.socket.receive(), 5)).data)
            if message["event"] == "media":
                heard += len(base64.b64decode(message["media"]["payload"])) // len(SILENT_FRAME)
        return True


class Twilio:
    """Calls the gateway as Twilio does."""

    def __init__(self, client):
        self.client = client

    async def post(self, path, fields, signature=None):
        if signature is None:
            signature = SIGN(PUBLIC + path, fields)
        headers = {"X-Twilio-Signature": signature} if signature else {}
        return await self.client.post(path, data=fields, headers=headers)

    async def voice(self, sid):
        response = await self.post("/voice", {"CallSid": sid, "From": "+15550100"})
        assert response.status == 200, await response.text()
        assert response.content_type == "text/xml"
        return ElementTree.fromstring(await response.text())

    async def connect(self, sid):
        url = PUBLIC.replace("https", "wss") + "/media"
        socket = await self.client.ws_connect(
            "/media", headers={"X-Twilio-Signature": SIGN(url, {})}, autoclose=False
        )
        return Stream(socket, sid, "MZ" + sid)

    async def call(self, sid):
        twiml = await self.voice(sid)
        stream = await self.connect(sid)
        await stream.start(token_of(twiml))
        return stream


def token_of(twiml):
    values = {
        parameter.get("name"): parameter.get("value") for parameter in twiml.iter("Parameter")
    }
    return values[webhooks.TOKEN_PARAMETER]


@pytest.fixture
def agent():
    return EchoAgent()


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def clock():
    return HurriedClock()


@pytest.fixture
async def twilio(agent, engine, clock, tmp_path):
    settings = GatewaySettings(
        public_base_url=PUBLIC, auth_token=SecretStr(AUTH_TOKEN), max_calls=3
    )
    app = server.create_app(
        settings,
        agent,
        records_in(tmp_path),
        engine_ready=engine.ready,
        clock=clock,
    )
    async with TestClient(TestServer(app)) as client:
        yield Twilio(client)


def records_in(directory):
    return CallRecords(RecordSettings(directory=directory))


async def record(tmp_path, sid):
    """A call's events, once it has ended."""
    with contextlib.closing(tail_of_call(tmp_path / "calls.db", sid)) as tail:
        for _ in range(5000):
            tail.read()
            if tail.events and tail.events[-1].name == "call_ended":
                return [{"event": event.name, **event.fields} for event in tail.events]
            await asyncio.sleep(0.001)
    raise AssertionError(f"the record of {sid} has no end")


# ---- a call as it should be


async def test_twiml_connects_the_call_to_the_public_address(twilio):
    twiml = await twilio.voice("CA1")
    (stream,) = twiml.findall("Connect/Stream")
    assert stream.get("url") == "wss://phone.example/media"
    assert "?" not in stream.get("url")
    assert stream.get("statusCallback") == "https://phone.example/status"
    assert len(token_of(twiml)) >= 32


async def test_a_call_is_heard_answered_and_recorded(twilio, agent, tmp_path):
    stream = await twilio.call("CA1")
    assert await stream.talks()
    await stream.send(Stop(stream.stream_sid, ACCOUNT_SID, "CA1", 99))
    events = await record(tmp_path, "CA1")
    assert [event["event"] for event in events] == ["call_offered", "call_started", "call_ended"]
    assert events[0]["call_sid"] == "CA1"
    assert events[0]["caller"] == "+15550100"
    assert events[2]["cause"] == "caller_hung_up"
    (call,) = agent.calls
    assert (call.sid, call.stream_sid, call.account_sid) == ("CA1", "MZCA1", ACCOUNT_SID)


async def test_a_call_that_is_refused_or_leaves_before_its_stream_is_recorded_too(
    twilio, engine, clock, tmp_path
):
    engine.error = RuntimeError("away")
    await twilio.voice("CA1")
    _, refused, ended = await record(tmp_path, "CA1")
    assert (refused["event"], refused["reason"]) == ("call_refused", "engine")
    assert ended["cause"] == "refused"
    engine.error = None
    clock.now += 60
    await twilio.voice("CA2")
    await twilio.post("/status", {"CallSid": "CA2", "CallStatus": "completed"})
    assert (await record(tmp_path, "CA2"))[-1]["cause"] == "caller_hung_up"


async def test_a_torn_socket_leaves_a_whole_record(twilio, tmp_path):
    stream = await twilio.call("CA1")
    await stream.talks()
    stream.socket._response.connection.transport.abort()
    events = await record(tmp_path, "CA1")
    assert events[-1]["cause"] == "socket_closed"


# ---- who is let in


@pytest.mark.parametrize("path", ["/voice", "/status"])
@pytest.mark.parametrize(("signature", "reason"), [("", "missing"), ("bm90IGl0", "does not match")])
async def test_an_unsigned_or_wrongly_signed_webhook_gets_403(twilio, path, signature, reason):
    response = await twilio.post(path, {"CallSid": "CA1"}, signature)
    assert response.status == 403
    body = await response.text()
    assert reason in body
    assert "X-Twilio-Signature" in body
    assert SIGN(PUBLIC + path, {"CallSid": "CA1"}) not in body
    assert AUTH_TOKEN not in body


async def test_a_signature_for_other_fields_or_another_host_gets_403(twilio):
    fields = {"CallSid": "CA1"}
    for wrong in (
        SIGN(PUBLIC + "/voice", {"CallSid": "CA2"}),
        SIGN("http://127.0.0.1/voice", fields),
        SIGN(PUBLIC + "/status", fields),
    ):
        assert (await twilio.post("/voice", fields, wrong)).status == 403


async def test_a_field_that_is_given_twice_is_part_of_the_signature(twilio):
    fields = [("CallSid", "CA1"), ("SipHeader", "b"), ("SipHeader", "a")]
    signature = SIGN(PUBLIC + "/voice", {"CallSid": "CA1", "SipHeader": "ab"})
    # Twilio's rule: each value with its name, sorted; not one name with joined values.
    assert (await twilio.post("/voice", fields, signature)).status == 403
    signature = SIGN(PUBLIC + "/voiceCallSidCA1SipHeaderaSipHeaderb", {})
    assert (await twilio.post("/voice", fields, signature)).status == 200


async def test_a_signed_webhook_without_a_call_gets_400(twilio):
    response = await twilio.post("/voice", {"From": "+15550100"})
    assert response.status == 400
    assert "CallSid" in await response.text()


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "bm90IGl0"}])
async def test_an_unsigned_socket_gets_403_and_no_upgrade(twilio, headers):
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    response = await twilio.client.get("/media", headers={**upgrade, **headers})
    assert response.status == 403


async def test_a_token_is_good_for_its_call_and_once(twilio, agent):
    token = token_of(await twilio.voice("CA1"))
    for sid, offered in (("CA2", token), ("CA1", "guessed")):
        stream = await twilio.connect(sid)
        await stream.start(offered)
        assert await stream.closed() == (1008, "start: no valid token for this call")
    stream = await twilio.connect("CA1")
    await stream.start(token)
    assert await stream.talks()
    again = await twilio.connect("CA1")
    await again.start(token)
    assert (await again.closed())[0] == 1008
    assert await stream.talks()
    assert len(agent.calls) == 1


# ---- callers who cannot be answered hear why


async def test_a_call_over_capacity_hears_a_sentence_and_takes_no_place(twilio, tmp_path):
    streams = [await twilio.call(f"CA{number}") for number in range(3)]
    for _ in range(5):
        twiml = await twilio.voice("CA9")
        assert [child.tag for child in twiml] == ["Say", "Hangup"]
        assert twiml[0].text == ENGLISH.busy
    response = await twilio.post("/status", {"CallSid": "CA0", "CallStatus": "completed"})
    assert response.status == 204
    assert (await streams[0].closed())[0] == 1000
    await record(tmp_path, "CA0")
    assert (await twilio.voice("CA9")).find("Connect") is not None


async def test_a_caller_hears_an_apology_when_the_engine_is_not_reachable(twilio, engine):
    engine.error = RuntimeError("secret-host:8001: connection refused")
    for number in range(5):
        twiml = await twilio.voice(f"CA{number}")
        assert [child.tag for child in twiml] == ["Say", "Hangup"]
        assert twiml[0].text == ENGLISH.apology
        assert "secret-host" not in twiml[0].text


async def test_a_call_that_ended_before_its_socket_opened_frees_its_place(twilio):
    for number in range(3):
        await twilio.voice(f"CA{number}")
    await twilio.post("/status", {"CallSid": "CA0", "CallStatus": "canceled"})
    assert (await twilio.voice("CA3")).find("Connect") is not None


async def test_health_tells_a_load_balancer_whether_calls_can_be_answered(twilio, engine):
    stream = await twilio.call("CA1")
    await stream.talks()
    response = await twilio.client.get("/health")
    assert response.status == 200
    assert await response.json() == {
        "engine": "reachable",
        "active_calls": 1,
        "workers": 1,
        "draining": False,
    }


async def test_health_is_503_without_an_engine_and_does_not_say_where_it_is(twilio, engine):
    engine.error = RuntimeError("secret-host:8001: connection refused")
    response = await twilio.client.get("/health")
    assert response.status == 503
    assert (await response.json())["engine"] == "unreachable"
    assert "secret-host" not in await response.text()


# ---- bad callers: each gets a clear close, and no other call notices

SILENT_FRAME = bytes([mulaw.SILENCE] * 160)


async def garbage(stream):
    await stream.socket.send_str("garbage")


async def binary(stream):
    await stream.socket.send_bytes(b"\x00" * 160)


async def second_start(stream):
    await stream.send(stream.start_event("again"))


async def not_base64(stream):
    message = Media(stream.stream_sid, SILENT_FRAME, 20, 1, 2).to_json()
    await stream.socket.send_str(message.replace("//", "!!"))


async def wrong_multiple(stream):
    await stream.say(SILENT_FRAME[:-1])


async def another_stream(stream):
    await stream.send(Media("MZ2", SILENT_FRAME, 20, 1, 2))


async def too_big(stream):
    await stream.socket.send_str("x" * 100_000)


@pytest.mark.parametrize(
    ("misbehave", "code", "reason"),
    [
        (garbage, 1007, "a message that is not JSON"),
        (binary, 1003, "a binary message: expected JSON in a text message"),
        (second_start, 1002, "a second start"),
        (not_base64, 1007, "media.payload: expected base64 text"),
        (wrong_multiple, 1007, "media.payload: expected whole frames of 160 bytes"),
        (another_stream, 1002, "media: streamSid is not that of the start event"),
        (too_big, 1009, None),
    ],
)
async def test_a_running_call_that_breaks_the_protocol_is_closed_alone(
    twilio, tmp_path, misbehave, code, reason
):
    good, bad = await twilio.call("CA1"), await twilio.call("CA2")
    assert await good.talks()
    assert await bad.talks()
    await misbehave(bad)
    closed = await bad.closed()
    assert closed[0] == code
    assert reason is None or closed[1].startswith(reason)
    assert (await record(tmp_path, "CA2"))[-1]["cause"] == "protocol_error"
    assert await good.talks()


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        ([Media("MZCA2", SILENT_FRAME, 20, 1, 2)], 1002, "media before start"),
        ([Connected(), Media("MZCA2", SILENT_FRAME, 20, 1, 2)], 1002, "media before start"),
        ([Connected(), Connected()], 1002, "a second connected"),
        ([Stop("MZCA2", "AC", "CA2", 1)], 1002, "stop before start"),
    ],
)
async def test_a_socket_that_begins_wrongly_is_closed_with_the_reason(
    twilio, agent, first, code, reason
):
    good = await twilio.call("CA1")
    assert await good.talks()
    bad = await twilio.connect("CA2")
    for event in first:
        await bad.send(event)
    assert await bad.closed() == (code, reason)
    assert await good.talks()
    assert len(agent.calls) == 1


async def test_an_agent_that_fails_ends_its_own_call_alone(twilio, agent, tmp_path):
    agent.fails["CA2"] = RuntimeError("the model went away")
    good, bad = await twilio.call("CA1"), await twilio.call("CA2")
    assert await bad.closed() == (1011, "internal error")
    events = await record(tmp_path, "CA2")
    assert [event["event"] for event in events[1:]] == ["call_started", "error", "call_ended"]
    assert events[2]["message"] == "RuntimeError: the model went away"
    assert events[3]["cause"] == "error"
    assert await good.talks()
    assert (await twilio.voice("CA3")).find("Connect") is not None


# ---- the end of the gateway


async def test_shutdown_closes_the_calls_and_their_records(twilio, tmp_path):
    streams = [await twilio.call(f"CA{number}") for number in range(3)]
    for stream in streams:
        await stream.talks()
    closing = asyncio.create_task(twilio.client.server.close())
    assert [(await stream.closed())[0] for stream in streams] == [1001] * 3
    await closing
    for number in range(3):
        assert (await record(tmp_path, f"CA{number}"))[-1]["cause"] == "shutdown"


async def test_listening_on_a_free_port_is_its_own_public_address(agent, engine, tmp_path):
    settings = GatewaySettings(auth_token=SecretStr(AUTH_TOKEN))
    app = server.create_app(settings, agent, records_in(tmp_path), engine_ready=engine.ready)
    async with server.listening(app, "127.0.0.1", 0) as url, ClientSession() as session:
        assert url.startswith("http://127.0.0.1:")
        fields = {"CallSid": "CA1"}
        headers = {"X-Twilio-Signature": SIGN(url + "/voice", fields)}
        async with session.post(url + "/voice", data=fields, headers=headers) as response:
            twiml = ElementTree.fromstring(await response.text())
        assert twiml.find("Connect/Stream").get("url") == url.replace("http", "ws") + "/media"
    assert (await record(tmp_path, "CA1"))[-1]["cause"] == "shutdown"


def test_a_gateway_without_an_auth_token_does_not_start(agent, engine, tmp_path):
    with pytest.raises(ValueError, match="auth token"):
        server.create_app(GatewaySettings(), agent, records_in(tmp_path), engine_ready=engine.ready)
    with pytest.raises(ValueError, match="auth token"):
        webhooks.SignatureCheck("")
