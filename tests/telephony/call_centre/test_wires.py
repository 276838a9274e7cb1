"""Calls over other carriers' wires, as their documentation describes them, on loopback."""

import asyncio
import json

import numpy as np
import pytest
import soundfile
from aiohttp import ClientSession

from agent.tools.call import PhoneError
from telephony.resampler import Resampler
from telephony.simulator.commands import DEMO_SCENARIO
from tests.telephony.call_centre.conftest import Session
from tests.telephony.call_centre.far_ends import Exotel, Plivo, Telnyx, Vonage

DESK = "+15550100002"
GREETING = "The desk, at length."
AGENTS = {"desk": {"numbers": [DESK], "greeting_text": GREETING}}
NAMES = ["telnyx", "plivo", "vonage", "exotel"]


class Patient(Session):
    """Greets for half a minute and keeps what it hears."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def push(self, audio, expected=None):
        self.heard.append(audio)

    async def answer(self, request=None):
        async for chunk in super().answer(request):
            yield type(chunk)(0, chunk.text, np.tile(chunk.audio, 60), True, {})


def far_end(name):
    if name == "telnyx":
        signing = pytest.importorskip("nacl.signing", reason="PyNaCl is for Telnyx alone")
        return Telnyx(signing.SigningKey(bytes(range(32))))
    return {"plivo": Plivo, "vonage": Vonage, "exotel": Exotel}[name]()


@pytest.fixture(params=NAMES)
def far(request):
    return far_end(request.param)


@pytest.fixture
def speech():
    """Somebody asks something, int16 at 8 kHz."""
    samples, rate = soundfile.read(DEMO_SCENARIO.parent / "lines" / "insurance.wav", dtype="int16")
    return Resampler(rate, 8000).push(samples)


@pytest.fixture
def open_house(house, tmp_path, engine):
    async def start(far, agents=AGENTS, marks=True, **gateway):
        path = tmp_path / "wire-secret"
        path.write_text(far.secret + "\n")
        wires = {far.name: {"secret_file": path, "marks": marks}}
        engine.open_session = lambda: engine.sessions.append(Patient()) or engine.sessions[-1]
        return await house(agents, wires=wires, **gateway)

    return start


async def answer(house, request):
    method, path, headers, body = request
    async with (
        ClientSession() as client,
        client.request(method, house.url(path), headers=headers, data=body) as response,
    ):
        return response.status, await response.text()


class Wire:
    """A socket that the carrier has opened, and all that was sent to it."""

    def __init__(self, far, socket, marks=True):
        self.far, self.socket, self.marks = far, socket, marks
        self.sound, self.events = [], []
        self.closed = asyncio.Event()

    async def read(self):
        async for message in self.socket:
            kind, what = self.far.heard(message.data)
            if kind == "sound":
                self.sound.append(what)
            else:
                self.events.append(kind)
                if kind == "mark" and self.marks:
                    await self.send(self.far.returned(what))
        self.closed.set()

    async def send(self, message):
        if isinstance(message, bytes):
            await self.socket.send_bytes(message)
        else:
            await self.socket.send_str(json.dumps(message))

    async def say(self, samples, clock):
        for begin in range(0, len(samples) - self.far.packet, self.far.packet):
            await self.send(self.far.sound(samples[begin : begin + self.far.packet]))
            await clock.sleep(self.far.packet / 8000)

    async def hang_up(self):
        if self.far.tells_of_end:
            await self.send(self.far.end())
        else:
            await self.socket.close()

    def seconds(self):
        return sum(map(len, self.sound)) / 8000


class Dialled:
    """A call that the carrier brings, past its first messages."""

    def __init__(self, house, far, marks=True):
        self.house, self.far, self.marks = house, far, marks

    async def __aenter__(self):
        status, text = await answer(self.house, self.far.request(self.house.clock.now))
        assert status == 200, text
        address = self.far.address(text)
        assert address.startswith(f"wss://voice.example/wire/{self.far.name}/stream/")
        self.client = ClientSession()
        path = address.removeprefix("wss://voice.example")
        socket = await self.client.ws_connect(self.house.url(path))
        self.wire = Wire(self.far, socket, self.marks)
        for message in self.far.begin():
            await self.wire.send(message)
        self.reading = asyncio.create_task(self.wire.read())
        return self.wire

    async def __aexit__(self, *error):
        self.reading.cancel()
        await self.client.close()


async def ended(house, far, eventually):
    await eventually(lambda: far.sid() not in house.gateway.live)
    return house.of(far.sid())


async def test_a_call_is_greeted_heard_interrupted_and_recorded(
    far, open_house, engine, speech, eventually
):
    house = await open_house(far)
    async with Dialled(house, far) as wire:
        await eventually(lambda: wire.seconds() > 1.0)
        assert np.median(np.concatenate(wire.sound)) == pytest.approx(3000, rel=0.03)
        await wire.say(speech, house.clock)
        await eventually(lambda: "clear" in wire.events)
        await wire.hang_up()
        record = await ended(house, far, eventually)
    assert "mark" in wire.events
    (started,) = (event for event in record if event["event"] == "call_started")
    assert started["agent"] == "desk"
    assert (record[-1]["event"], record[-1]["cause"]) == ("call_ended", "caller_hung_up")
    assert "interrupted" in [event["event"] for event in record]
    heard = np.concatenate(engine.sessions[0].heard)
    assert np.abs(heard).max() == pytest.approx(np.abs(speech).max() / 32768, rel=0.2)
    assert house.nothing_left()


async def test_the_gateway_hangs_up_by_closing_the_socket(far, open_house, eventually):
    desk = {**AGENTS["desk"], "limits": {"call_secs": 5}}
    house = await open_house(far, {"desk": desk}, speaks=False)
    async with Dialled(house, far) as wire:
        await wire.closed.wait()
        record = await ended(house, far, eventually)
    assert record[-1]["cause"] == "time_limit"
    assert house.nothing_left()


async def test_a_caller_that_a_carrier_cannot_transfer_stays(open_house, eventually):
    far = Vonage()
    house = await open_house(far)
    async with Dialled(house, far):
        live = house.gateway.live
        await eventually(lambda: far.sid() in live and live[far.sid()].telephone is not None)
        with pytest.raises(PhoneError, match="cannot be transferred"):
            await live[far.sid()].telephone.transfer("+15550100003")


async def test_without_marks_the_clock_tells_what_was_heard(open_house, speech, eventually):
    far = Plivo()
    house = await open_house(far, marks=False)
    async with Dialled(house, far) as wire:
        await eventually(lambda: wire.seconds() > 1.0)
        await wire.say(speech, house.clock)
        await eventually(lambda: "clear" in wire.events)
        sent = wire.seconds()
        await wire.hang_up()
        record = await ended(house, far, eventually)
    assert wire.events == ["clear"]
    (interrupted,) = (event for event in record if event["event"] == "interrupted")
    # What is ahead of the clock was not heard.
    assert sent - 0.25 < interrupted["heard_seconds"] < sent
