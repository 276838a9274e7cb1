"""A gateway with a stand-in engine, called by the loopback Twilio, in virtual time."""

import asyncio
import heapq
import itertools
import json
import xml.etree.ElementTree as ElementTree
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager

import numpy as np
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.workers.runner import WorkerRunner
from pydantic import SecretStr

from agent.pipeline import SharedModels
from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from agent.voice_session import AnswerChunk
from telephony.agents import Agent, Agents
from telephony.answering import Answering
from telephony.media_streams import Connected, Start
from telephony.records import CallRecords
from telephony.server import GATEWAY, create_app
from telephony.simulator.callee import Listener
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.record_tail import tail_of_call
from telephony.simulator.target import Target
from telephony.switchboard import Switchboard
from telephony.webhooks import TOKEN_PARAMETER

PUBLIC = "https://voice.example"
AUTH_TOKEN = "the account's secret"
OPERATOR_TOKEN = "the operators' secret"
CALLER = "+15550109999"
_SETTLING_ROUNDS = 25
_LONG = 1.0
_LONG_ROUNDS = 50
_ENDING_ROUNDS = 5000


class VirtualClock:
    """Whoever sleeps is woken in order, once the sockets have nothing left to do.

    Before much time passes, sockets that open are given a moment, and pipelines that end as long
    as they take.
    """

    def __init__(self):
        # A Tuesday, 17:00 in New York.
        self.now = 1_700_000_000.0 - 800
        self.busy = lambda: False
        self._sleepers = []
        self._order = itertools.count()

    def time(self):
        return self.now

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def drive(self):
        while True:
            for _ in range(_SETTLING_ROUNDS):
                await asyncio.sleep(0)
            for waited in range(_ENDING_ROUNDS):
                self._drop_the_woken()
                soon = self._sleepers and self._sleepers[0][0] - self.now < _LONG
                if soon or (waited >= _LONG_ROUNDS and not self.busy()):
                    break
                await asyncio.sleep(0.001)
            if self._sleepers:
                deadline, _, future = heapq.heappop(self._sleepers)
                if not future.done():
                    self.now = max(self.now, deadline)
                    future.set_result(None)

    def _drop_the_woken(self):
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)


class Session:
    """Says what it is told to, or something, half a second long."""

    def __init__(self):
        self.requests = []
        self.closed = False

    def push(self, audio, expected=None):
        pass

    def discard(self):
        pass

    def confirm(self):
        pass

    async def retract(self):
        pass

    async def transcribe(self):
        return ""

    async def answer(self, request=None):
        self.requests.append(request)
        audio = np.full(11_025, 3000, np.int16)
        yield AnswerChunk(0, request.say or "Something.", audio, True, {})

    async def stop(self):
        pass

    async def close(self):
        self.closed = True


async def stay(transport, call):
    """Answer a call with nothing but its line: cheap, for calls that only take a place."""
    worker = PipelineWorker(Pipeline([transport.input(), transport.output()]), enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    await runner.run()


class Engine:
    def __init__(self):
        self.error = None
        self.carries = None
        self.sessions = []
        # Opens calls that outlive it, given the clock.
        self.lasting = lambda clock: None

    async def ready(self):
        if self.error is not None:
            raise self.error

    def open_session(self):
        self.sessions.append(Session())
        return self.sessions[-1]


async def eventually(condition):
    """Wait for what another task will bring about."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class House:
    """The gateway, and the Twilio that calls it."""

    def __init__(self, app, server, twilio, engine, clock, records):
        self.app, self.server, self.twilio = app, server, twilio
        self.engine, self.clock, self.records = engine, clock, records
        self.gateway = app[GATEWAY]

    def url(self, path):
        return f"http://127.0.0.1:{self.server.port}{path}"

    async def call(self, to, seconds=3.0):
        """A call of somebody who only listens, to its end on both sides."""
        trace, talking = self.begin(to, seconds)
        await talking
        return trace

    def begin(self, to, seconds=3.0):
        """The same in the background; its trace, and the task."""
        trace = self.twilio.new_call()
        return trace, asyncio.create_task(self._call(trace, to, seconds))

    async def _call(self, trace, to, seconds):
        await self.twilio.place(trace, Listener(seconds), CALLER, to)
        await self.until(trace, "call_ended")
        await eventually(lambda: trace.call_sid not in self.gateway.live)

    @contextmanager
    def taken(self, agent, call_sid="CAtaken"):
        """A place of an agent that a call has, of which nothing else matters."""
        switchboard = self.gateway.switchboard
        assert switchboard.connect(call_sid, switchboard.admit(call_sid, agent))
        yield
        switchboard.release(call_sid)

    @asynccontextmanager
    async def post(self, path, fields):
        """A webhook that Twilio signs."""
        signature = self.twilio.target.signature(PUBLIC + path, fields)
        async with (
            ClientSession(headers={"X-Twilio-Signature": signature}) as client,
            client.post(self.url(path), data=fields) as response,
        ):
            yield response

    def socket_signature(self):
        url = PUBLIC.replace("https", "wss") + "/media"
        return {"X-Twilio-Signature": self.twilio.target.signature(url)}

    @asynccontextmanager
    async def stream(self, call_sid, at=None):
        """The socket of a call that the test speaks for itself, past its start event.

        It may open at another gateway than its webhook went to.
        """
        at = at or self
        async with self.post("/voice", {"CallSid": call_sid, "To": "+15550100002"}) as response:
            twiml = ElementTree.fromstring(await response.text())
        (token,) = (
            one.get("value")
            for one in twiml.iter("Parameter")
            if one.get("name") == TOKEN_PARAMETER
        )
        async with (
            ClientSession(headers=self.socket_signature()) as client,
            client.ws_connect(at.url("/media"), autoclose=False) as socket,
        ):
            await socket.send_str(Connected().to_json())
            start = Start("MZ1", call_sid, "AC" + "0" * 32, {TOKEN_PARAMETER: token})
            await socket.send_str(start.to_json())
            await eventually(lambda: call_sid in at.gateway.live)
            yield socket

    def text(self, call_sid):
        """A call's record as it stands."""
        return json.dumps(self.of(call_sid))

    async def until(self, trace, name):
        """Wait for an event in a call's record."""
        await eventually(lambda: name in self.names(trace))

    def of(self, call_sid):
        """A call's events, once they are written."""
        assert self.records.flush()
        with closing(tail_of_call(self.records.settings.directory / "calls.db", call_sid)) as tail:
            return [{"at": event.at, "event": event.name, **event.fields} for event in tail.read()]

    def events(self, trace):
        return self.of(trace.call_sid)

    def names(self, trace):
        return [event["event"] for event in self.events(trace)]

    def event(self, trace, name):
        (found,) = (event for event in self.events(trace) if event["event"] == name)
        return {key: value for key, value in found.items() if key not in ("at", "event")}

    def nothing_left(self):
        """No place, no session, nothing prepared."""
        switchboard, reception = self.gateway.switchboard, self.gateway.reception
        assert switchboard.active == switchboard.waiting == 0
        assert not switchboard._expected
        assert not reception._arrivals
        assert not self.gateway.live
        assert all(session.closed for session in self.engine.sessions)
        return True


@pytest.fixture(scope="session")
def models():
    return SharedModels.load()


@pytest.fixture
def secrets():
    """What may not be seen."""
    return {"auth": AUTH_TOKEN, "operator": OPERATOR_TOKEN, "caller": CALLER}


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
async def clock():
    clock = VirtualClock()
    driver = asyncio.create_task(clock.drive())
    yield clock
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)


@pytest.fixture
async def house(clock, engine, models, tmp_path):
    """Starts a gateway with agents (fields by name)."""
    async with AsyncExitStack() as stack:

        async def start(
            agents, phone_book=None, speaks=True, open_switchboard=Switchboard, **gateway
        ):
            settings = GatewaySettings.model_validate(
                {
                    "public_base_url": PUBLIC,
                    "auth_token": SecretStr(AUTH_TOKEN),
                    "operator_token": SecretStr(OPERATOR_TOKEN),
                    **gateway,
                }
            )
            answering = Answering(engine.open_session, models, engine.lasting(clock))
            records = CallRecords(RecordSettings(directory=tmp_path), clock.time)
            app = create_app(
                settings,
                answering.answer if speaks else stay,
                records,
                engine_ready=engine.ready,
                engine_carries=lambda: engine.carries,
                agents=staff(agents),
                prepare=answering.prepare,
                clock=clock,
                now=clock.time,
                open_switchboard=open_switchboard,
            )
            clock.busy = lambda: bool(app[GATEWAY].live)
            server = await stack.enter_async_context(TestServer(app))
            target = Target(
                f"{PUBLIC}/voice",
                AUTH_TOKEN,
                via=f"http://127.0.0.1:{server.port}",
                status_url=f"{PUBLIC}/status",
            )
            twilio = await stack.enter_async_context(LoopbackTwilio(target, clock, phone_book))
            return House(app, server, twilio, engine, clock, records)

        yield start


def staff(agents):
    return Agents({name: Agent.model_validate(fields) for name, fields in agents.items()})


@pytest.fixture(name="eventually")
def eventually_fixture():
    return eventually


@pytest.fixture(name="staff")
def staff_fixture():
    return staff
