"""Twenty calls in one process, three of which misbehave; and what many calls leave behind.

The engine costs nothing, so that the gateway is what is looked at. Time is virtual: what is counted
are frames that left later than their sound was due, in the clock by which the gateway paces it.
"""

import asyncio
import gc
import sys
from collections import defaultdict

import numpy as np
import pytest

from agent.voice_session import AnswerChunk
from telephony.line import PhoneLine
from telephony.media_streams import Media, Play
from telephony.transport import PhoneParams, PhoneTransport
from tests.telephony.call_centre.conftest import Engine, Session

CALLS = 17
SECONDS = 6.0
DESK, HANGING = "+15550100002", "+15550100003"
FLOOD = 5000
FEW, MANY = 20, 100
"""Calls after which memory is compared; 100 and 500 by agent.bench.isolation."""
LATE_SECONDS = 0.02

hangs = asyncio.Event()


async def never() -> str:
    """Do something that does not come to an end."""
    hangs.set()
    await asyncio.Event().wait()
    return ""


class Talker(Session):
    """Speaks for four seconds; asked for a tool, calls one that hangs."""

    async def answer(self, request=None):
        self.requests.append(request)
        for sequence in range(5):
            audio = np.full(17_640, 3000, np.int16)
            called = "never\n{}" if sequence == 4 and "never" in (request.system or "") else ""
            yield AnswerChunk(sequence, "Something. ", audio, sequence == 4, {}, called)


class TalkingEngine(Engine):
    def open_session(self):
        self.sessions.append(Talker())
        return self.sessions[-1]


@pytest.fixture
def engine():
    return TalkingEngine()


@pytest.fixture
def lateness(monkeypatch, clock):
    """Seconds by which frames of each call left too late; the first of an answer cannot."""
    late = defaultdict(list)
    due = {}
    send = PhoneLine.send

    async def noting(line, event):
        if isinstance(event, Play):
            sid, now = line.start.call_sid, clock.time()
            before = due.get(sid, now)
            if now - before < 1.0:
                late[sid].append(max(0.0, now - before))
            due[sid] = max(before, now) + len(event.payload) / 8000
        return await send(line, event)

    monkeypatch.setattr(PhoneLine, "send", noting)
    return late


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Pipecat gives a write ten seconds, real ones, which twenty calls at once may take here."""

    def transport(line, **given):
        return PhoneTransport(line, PhoneParams(audio_out_write_timeout_secs=600), **given)

    monkeypatch.setattr("telephony.telephone.PhoneTransport", transport)


async def flood(house):
    """A caller's sound, a hundred seconds of it at once."""
    async with house.stream("CAflood") as socket:
        for chunk in range(1, FLOOD + 1):
            frame = Media("MZ1", b"\xff" * 160, chunk * 20, chunk, chunk + 1)
            try:
                await socket.send_str(frame.to_json())
            except ConnectionError:
                break
        while not socket.closed:
            await socket.receive()


async def tear(house):
    """A socket that is gone in the middle of a word."""
    async with house.stream("CAtorn") as socket:
        await socket.receive()
        socket._response.connection.transport.abort()


async def test_the_other_calls_keep_their_pace(house, lateness, eventually):
    function = {"kind": "function", "name": "never", "function": f"{__name__}:never"}
    house = await house(
        {
            "desk": {"numbers": [DESK, "+15550100009"]},
            "hanging": {"numbers": [HANGING], "tools": [function]},
        },
        max_calls=100,
    )
    calls = [house.begin(DESK, SECONDS) for _ in range(CALLS)]
    hanging, waiting = house.begin(HANGING, SECONDS)
    await asyncio.gather(flood(house), tear(house), waiting, *(task for _, task in calls))
    await eventually(lambda: not house.gateway.live)

    for trace, _ in calls:
        assert house.events(trace)[-1]["cause"] == "caller_hung_up"
        assert "heard" in house.names(trace)
    frames = [seconds for trace, _ in calls for seconds in lateness[trace.call_sid]]
    late = sum(seconds > LATE_SECONDS for seconds in frames)
    print(f"{len(frames)} frames, {late} late, largest gap {max(frames) * 1000:.0f} ms")
    # 4 s in messages of 40 ms each.
    assert len(frames) >= CALLS * 95
    assert late <= len(frames) / 100

    assert hangs.is_set()
    assert "tool_call" in house.names(hanging)
    assert '"cause": "protocol_error"' in house.text("CAflood")
    assert '"cause": "socket_closed"' in house.text("CAtorn")
    assert house.nothing_left()


async def test_many_calls_leave_no_more_behind_than_a_few(house, engine):
    house = await house({"desk": {"numbers": [DESK]}}, max_calls=100)

    async def call(count):
        for _ in range(count // 10):
            talking = [house.begin(DESK, 0.5)[1] for _ in range(10)]
            await asyncio.gather(*talking)
        engine.sessions.clear()
        house.twilio.calls.clear()
        gc.collect()
        return sys.getallocatedblocks()

    few = await call(FEW)
    many = await call(MANY - FEW)
    print(f"{few} blocks after {FEW} calls, {many} after {MANY}")
    assert many < 1.05 * few
