"""The wire's end of a call: bounds, pacing and what comes after it has ended."""

import asyncio

import numpy as np
import pytest

from telephony import mulaw
from telephony.media_streams import Play, Start
from telephony.simulator.caller import Caller
from telephony.simulator.recording import read_line
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.stream import MediaStream
from telephony.simulator.trace import CallTrace, Cause, StreamTrace


async def test_audio_beyond_ten_minutes_is_discarded_and_logged_once(agent, scenario, clock):
    async def flood(line):
        async for event in line.events():
            if isinstance(event, Start):
                for _ in range(22):
                    await line.send(Play(line.sid, bytes(8000 * 30)))

    agent.behave = flood

    report = await run_scenario(
        scenario([{}], greeting=True, longest_ms=1000), agent.target, None, clock=clock
    )

    assert [error.code for error in report.errors] == [31931]
    assert report.unplayed == pytest.approx(600 - 1, abs=0.1)


class StuckSocket:
    """A connection whose other end has stopped reading."""

    def __init__(self):
        self.close_code = None
        self.dropped = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.Event().wait()

    async def send_str(self, text):
        await asyncio.Event().wait()

    async def close(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.dropped = True


async def test_a_server_that_does_not_read_ends_the_stream_instead_of_holding_it(
    scenario, clock, wav
):
    script = scenario([{}], greeting=True, patience_ms=60_000, longest_ms=60_000)
    call = CallTrace("CA0", clock.time())
    stream = StreamTrace("MZ0", clock.time())
    socket = StuckSocket()

    cause = await MediaStream(socket, clock, call, stream, Start("MZ0", "CA0", "AC0")).run(
        Caller(script, [read_line(wav())])
    )

    assert cause is Cause.STREAM_FAILED
    assert [error.code for error in call.errors] == [31930]
    assert len(stream.agent) * 0.02 == pytest.approx(5, abs=0.1)
    assert socket.dropped


async def test_ticks_stay_on_the_grid_when_one_of_them_is_late(agent, scenario, clock):
    slow = {3: 0.050, 40: 0.013}
    sleep = clock.sleep
    ticks = iter(range(10**6))

    async def late_sleep(seconds):
        await sleep(seconds + slow.get(next(ticks), 0.0) if seconds <= 0.02 else seconds)

    clock.sleep = late_sleep

    report = await run_scenario(scenario([{}], longest_ms=2000), agent.target, None, clock=clock)

    assert report.lateness is not None
    assert report.lateness.worst == pytest.approx(50, abs=1)
    assert report.lateness.median == pytest.approx(0, abs=0.1)
    assert report.stream_started_at is not None
    assert clock.now - report.stream_started_at < 2.2
    assert report.duration == pytest.approx(2.0)


async def test_what_the_caller_said_arrives_as_it_was_said(agent, scenario, clock, tmp_path):
    report = await run_scenario(
        scenario([{}], longest_ms=3000), agent.target, tmp_path, clock=clock
    )

    received = np.concatenate([mulaw.decode(frame.payload) for frame in agent.lines[0].frames])
    begin, end = (round(second * 8000) for second in report.turns[0].speech)
    loud = np.flatnonzero(np.abs(received.astype(int)) > 500)
    assert begin <= loud[0] < begin + 40
    assert end - 40 < loud[-1] <= end
