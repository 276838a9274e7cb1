"""A line that speaks another carrier's messages, message by message."""

import json

import numpy as np
import pytest
from aiohttp import WSMessage, WSMsgType
from pipecat.audio.utils import audioop

from telephony import mulaw
from telephony.line import EndCause
from telephony.media_streams import Clear, Dtmf, Mark, MarkReturned, Media, Play, ProtocolError
from telephony.webhooks import TOKEN_PARAMETER
from telephony.wires.line import CarrierLine
from telephony.wires.plivo import Plivo as PlivoWire
from telephony.wires.vonage import Vonage as VonageWire
from tests.telephony.call_centre.far_ends import Exotel, Plivo, Telnyx, Vonage, text64


class Socket:
    """As much of an aiohttp WebSocketResponse as a line uses."""

    def __init__(self):
        self.messages, self.sent = [], []
        self.close_code = None
        self.closed_with = None

    async def receive(self):
        if not self.messages:
            return WSMessage(WSMsgType.CLOSED, None, None)
        message = self.messages.pop(0)
        if isinstance(message, bytes):
            return WSMessage(WSMsgType.BINARY, message, None)
        text = message if isinstance(message, str) else json.dumps(message)
        return WSMessage(WSMsgType.TEXT, text, None)

    async def send_str(self, text):
        self.sent.append(text)

    async def send_bytes(self, data):
        self.sent.append(data)

    async def close(self, *, code, message):
        self.closed_with = (code, message.decode())


class Hands:
    """A clock that the test turns."""

    now = 100.0

    def time(self):
        return self.now


def wire_of(far):
    if isinstance(far, Telnyx):
        from telephony.wires.telnyx import Telnyx as TelnyxWire

        return TelnyxWire(far.secret)
    from telephony.wires.exotel import Exotel as ExotelWire

    wires = {Plivo: PlivoWire, Vonage: VonageWire, Exotel: ExotelWire}
    return wires[type(far)](far.secret)


async def opened(far, clock=None):
    socket = Socket()
    socket.messages += far.begin()
    line = await CarrierLine.open(
        socket, wire_of(far), "sid", "token", allows=lambda: True, clock=clock
    )
    return line, socket


@pytest.fixture(params=["telnyx", "telnyx-a-law", "plivo", "vonage", "exotel"])
def far(request):
    if request.param.startswith("telnyx"):
        signing = pytest.importorskip("nacl.signing", reason="PyNaCl is for Telnyx alone")
        encoding = "PCMA" if "law" in request.param else "PCMU"
        return Telnyx(signing.SigningKey(bytes(range(32))), encoding)
    return {"plivo": Plivo, "vonage": Vonage, "exotel": Exotel}[request.param]()


async def test_sound_passes_both_ways_at_eight_kilohertz(far, tone):
    line, socket = await opened(far)
    assert line.start.call_sid == "sid"
    assert line.start.parameters == {TOKEN_PARAMETER: "token"}
    samples = tone(0.1, 8000)[: far.packet]
    socket.messages += [far.sound(samples), far.sound(samples)]
    first, second = await line.receive(), await line.receive()
    for event in (first, second):
        assert isinstance(event, Media)
        assert np.abs(mulaw.decode(event.payload).astype(int) - samples).max() < 600
    assert second.timestamp - first.timestamp == 1000 * far.packet // 8000
    assert await line.send(Play("S1", mulaw.encode(samples[:160]) * 2))
    heard = [far.heard(message) for message in socket.sent]
    assert {kind for kind, _ in heard} == {"sound"}
    sent = np.concatenate([what for _, what in heard])
    assert np.array_equal(sent, np.tile(mulaw.decode(mulaw.encode(samples[:160])), 2))


async def test_mu_law_is_not_changed_on_the_way_in():
    line, socket = await opened(Plivo())
    # 0x7F is the second zero of mu-law.
    codes = bytes(code for code in range(256) if code != 0x7F)
    socket.messages.append(
        {"event": "media", "streamId": "S1", "media": {"payload": text64(codes)}}
    )
    assert (await line.receive()).payload == codes
    assert audioop.lin2ulaw(audioop.ulaw2lin(codes, 2), 2) == codes


async def test_marks_clears_and_keys_are_the_carriers_own(far):
    line, socket = await opened(far)
    await line.send(Mark("S1", "m1"))
    await line.send(Clear("S1"))
    assert [far.heard(message) for message in socket.sent] == [("mark", "m1"), ("clear", None)]
    socket.messages += [far.returned("m1"), far.digit("5")]
    returned, key = await line.receive(), await line.receive()
    assert isinstance(returned, MarkReturned)
    assert returned.mark == "m1"
    assert isinstance(key, Dtmf)
    assert key.digit == "5"


async def test_the_caller_hangs_up(far):
    line, socket = await opened(far)
    if far.tells_of_end:
        socket.messages.append(far.end())
    else:
        socket.close_code = 1000
    assert await line.receive() is None
    assert line.cause is EndCause.CALLER_HUNG_UP


async def test_a_torn_socket_is_no_caller_who_hung_up(far):
    line, socket = await opened(far)
    socket.close_code = 1006
    assert await line.receive() is None
    assert line.cause is EndCause.SOCKET_CLOSED


async def test_the_clock_returns_marks_when_their_sound_has_been_played():
    clock, far = Hands(), Plivo()
    line, socket = await opened(far, clock)
    await line.send(Play("S1", bytes(800)))
    await line.send(Mark("S1", "m1"))
    await line.send(Play("S1", bytes(800)))
    await line.send(Mark("S1", "m2"))
    assert {far.heard(message)[0] for message in socket.sent} == {"sound"}
    silence = far.sound(np.zeros(160, np.int16))
    socket.messages += [silence] * 3
    assert isinstance(await line.receive(), Media)
    clock.now += 0.11
    returned = await line.receive()
    assert isinstance(returned, MarkReturned)
    assert returned.mark == "m1"
    assert isinstance(await line.receive(), Media)
    await line.send(Clear("S1"))
    clock.now += 1
    # A mark after a clear would say that something was heard which was not.
    assert isinstance(await line.receive(), Media)


@pytest.mark.parametrize(
    ("far", "message"),
    [
        (Plivo(), "garbage"),
        (Plivo(), ["event"]),
        (Plivo(), {"event": "media", "media": ["no", "object"]}),
        (Plivo(), {"event": "media", "media": {"payload": "A"}}),
        (Vonage(), b"\x00" * 319),
        (Exotel(), {"event": "media", "media": {"payload": text64(b"123")}}),
        (Exotel(), {"event": "mark", "mark": {}}),
    ],
)
async def test_what_cannot_be_read_ends_the_call_alone(far, message):
    line, socket = await opened(far)
    socket.messages.append(message)
    assert await line.receive() is None
    assert line.cause is EndCause.PROTOCOL_ERROR
    assert socket.closed_with[0] == 1007


async def test_another_format_is_refused(far):
    begin = json.dumps(far.begin()).replace("8000", "16000")
    socket = Socket()
    socket.messages += json.loads(begin)
    with pytest.raises(ProtocolError) as refused:
        await CarrierLine.open(
            socket, wire_of(far), "sid", "token", allows=lambda: True, clock=None
        )
    assert refused.value.code == 1003
