"""EVA's caller on our phone line, in virtual time."""

import base64
import json
import sys
from types import ModuleType, SimpleNamespace

import aiohttp
import numpy as np
import pytest

from agent.settings import AUTH_TOKEN_VARIABLE
from telephony import mulaw
from telephony.simulator.eva import (
    NOT_WRITTEN_DOWN,
    EvaBridge,
    EvaCaller,
    assistant_server_class,
)
from telephony.simulator.trace import CallTrace

SILENCE = np.zeros(160, np.int16)


class EvaSimulator:
    """EVA's end of the socket: what it sends, as it words it."""

    def __init__(self, socket):
        self.socket = socket
        self.heard = b""

    async def send(self, event, **fields):
        message = {"event": event, "conversation_id": "1.2", **fields}
        await self.socket.send_str(json.dumps(message))

    async def begin(self):
        await self.send("connected", protocol="voice-bench-v1")
        await self.send("start")

    async def sound(self, samples):
        payload = mulaw.encode(samples)
        for at in range(0, len(payload), 160):
            frame = base64.b64encode(payload[at : at + 160]).decode()
            await self.send("media", media={"payload": frame})

    async def say(self, samples):
        await self.send("user_speech_start", timestamp_ms="1")
        await self.sound(samples)
        await self.send("user_speech_stop", timestamp_ms="2")

    async def listen(self, seconds):
        """Read until so much more has been heard."""
        until = len(self.heard) + round(seconds * 8000)
        while len(self.heard) < until:
            message = json.loads((await self.socket.receive()).data)
            assert message["event"] == "media"
            self.heard += base64.b64decode(message["media"]["payload"])


@pytest.fixture
async def conversation(agent, clock, aiohttp_server, tone):
    """Places one of EVA's conversations through a bridge: a greeting, a line, its answer."""
    finished = []

    async def keep(conversation):
        finished.append(conversation)

    bridge = EvaBridge(agent.target, keep, records=agent.records, clock=clock)
    server = await aiohttp_server(bridge.app())
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url("/ws")) as socket,
    ):
        eva = EvaSimulator(socket)
        await eva.begin()
        await eva.listen(1.0)
        await eva.say(tone(1.0))
        await eva.listen(2.0)
        await eva.send("stop")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    return finished[0], eva


async def test_eva_hears_the_agent_and_the_agent_hears_eva(conversation, agent):
    call, eva = conversation

    assert agent.forged == []
    assert len(eva.heard) == 3 * 8000
    heard = np.concatenate([mulaw.decode(frame.payload) for frame in agent.lines[0].frames])
    assert np.count_nonzero(np.abs(heard.astype(int)) > 500) == pytest.approx(8000, rel=0.06)
    assert agent.lines[0].stopped
    assert [end - begin for begin, end in call.spoken] == [8000]


async def test_the_answers_time_runs_from_the_end_of_the_speech(conversation):
    assert conversation[0].latencies() == [pytest.approx(0.54, abs=0.03)]


async def test_silence_that_comes_faster_than_time_does_not_delay_speech(tone):
    caller = EvaCaller(CallTrace("CA0", 0.0), lambda sound: None)
    for _ in range(200):
        caller.hear_of(mulaw.encode(SILENCE))
    caller.speaks(True)
    caller.hear_of(mulaw.encode(tone(0.1)))

    frames = [caller.tick(SILENCE) for _ in range(20)]

    assert next(i for i, frame in enumerate(frames) if np.abs(frame).max() > 500) <= 10


async def test_a_caller_that_hangs_up_while_speaking_has_still_spoken(tone):
    caller = EvaCaller(CallTrace("CA0", 0.0), lambda sound: None)
    caller.speaks(True)
    caller.hear_of(mulaw.encode(tone(0.1)))
    for _ in range(3):
        caller.tick(SILENCE)
    caller.over = True

    assert caller.tick(SILENCE) is None
    assert caller.spoken == [(0, 480)]


async def test_a_refused_call_tells_eva_why(agent, clock, aiohttp_server):
    agent.status = 403
    finished = []

    async def keep(conversation):
        finished.append(conversation)

    server = await aiohttp_server(EvaBridge(agent.target, keep, clock=clock).app())
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url("/")) as socket,
    ):
        message = await socket.receive()

    assert (message.data, message.extra) == (1011, "the webhook answered 403")
    assert finished[0].call.stream is None
    assert finished[0].latencies() == []


class Log:
    """Remembers what is written, by the names of EVA's methods."""

    def __init__(self, output_dir=None):
        self.lines = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.lines.append((name, *args))


@pytest.fixture
def eva_package(monkeypatch):
    """As much of EVA's package as the contract of an assistant server names."""

    class AbstractAssistantServer:
        def __init__(self, *, pipeline_config, output_dir, port):
            self.pipeline_config = pipeline_config
            self.output_dir = output_dir
            self.port = port
            self.user_audio_buffer = bytearray()
            self.assistant_audio_buffer = bytearray()
            self.audit_log = Log()

        async def stop(self):
            await self._shutdown()

    server, observers = ModuleType("base_server"), ModuleType("observers")
    server.AbstractAssistantServer = AbstractAssistantServer
    observers.FrameworkLogWriter = observers.MetricsLogWriter = Log
    monkeypatch.setitem(sys.modules, "eva.assistant.base_server", server)
    monkeypatch.setitem(sys.modules, "eva.assistant.pipeline.observers", observers)
    for name in ("eva", "eva.assistant", "eva.assistant.pipeline"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return AbstractAssistantServer


async def test_the_assistant_server_writes_what_eva_reads(
    eva_package, conversation, agent, monkeypatch, tmp_path, unused_tcp_port
):
    monkeypatch.setenv(AUTH_TOKEN_VARIABLE, agent.target.auth_token)
    parameters = {"model": "nano", "voice_url": agent.target.voice_url, "via": agent.target.via}
    server = assistant_server_class()(
        pipeline_config=SimpleNamespace(s2s_params=parameters),
        output_dir=tmp_path / "output",
        port=unused_tcp_port,
    )
    await server.start()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{unused_tcp_port}/ws") as socket,
    ):
        await server._take(conversation[0])
        assert not socket.closed
    await server.stop()

    assert isinstance(server, eva_package)
    assert len(server.user_audio_buffer) == len(server.assistant_audio_buffer) > 0
    assert server._audio_sample_rate == 8000
    said = [line[1] for line in server.audit_log.lines]
    assert said == ["Hello, this is the test.", "line 1", "You have said thing 1."]
    assert [line[0] for line in server._fw_log.lines[:3]] == [
        "turn_start",
        "llm_response",
        "turn_end",
    ]
    (latency,) = server._metrics_log.lines
    assert latency[:2] == ("write_latency", "model_response")
    assert latency[3] == "nano"


async def test_words_that_the_model_did_not_write_down_are_not_made_up(
    eva_package, conversation, agent, monkeypatch, tmp_path
):
    call, _ = conversation
    monkeypatch.setenv(AUTH_TOKEN_VARIABLE, agent.target.auth_token)
    server = assistant_server_class()(
        pipeline_config=SimpleNamespace(s2s_params={"voice_url": agent.target.voice_url}),
        output_dir=tmp_path,
        port=0,
    )
    server._fw_log, server._metrics_log = Log(), Log()
    kept = [event for event in call.events if event.name != "caller_text"]

    await server._take(type(call)(call.call, call.spoken, kept))

    assert ("append_user_input", NOT_WRITTEN_DOWN) in server.audit_log.lines


def test_a_gateway_without_an_address_is_named(eva_package, tmp_path):
    with pytest.raises(ValueError, match=r"s2s_params\.voice_url"):
        assistant_server_class()(
            pipeline_config=SimpleNamespace(s2s_params=None), output_dir=tmp_path, port=0
        )
