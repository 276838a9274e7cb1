"""Load runs over loopback, against an agent that echoes and against worse ones."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import soundfile
from aiohttp import web

from telephony.simulator import load as load_module
from telephony.simulator.echo_agent import echoing
from telephony.simulator.load import run_load
from telephony.simulator.load_tally import LoadPlan
from telephony.simulator.load_view import load_lines, load_section
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target


@pytest.fixture
def short(tmp_path):
    """One line of 0.3 s, spoken at once; its caller hangs up 0.3 s after the answer."""
    time = np.arange(2400) / 8000
    soundfile.write(tmp_path / "line.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 8000)
    return Scenario.model_validate(
        {
            "name": "short",
            "turns": [{"say": "a", "wav": tmp_path / "line.wav", "when": {"at_ms": 100}}],
            "hang_up": {"at_ms": 1000},
        }
    )


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(load_module, "_BETWEEN_CALLS_SECONDS", 0.02)


def target(url):
    return Target(f"{url}/voice", "token")


async def test_callers_call_again_and_again_and_every_call_is_measured(short, clock):
    told = []
    async with echoing() as url:
        plan = LoadPlan(calls=8, seconds=4.0, ramp=0.5)
        report = await run_load([short], target(url), plan, clock=clock, progress=told.append)
    assert report.calls > report.callers == 8
    assert report.most_at_once == 8
    assert (report.refused, report.broken, report.errors) == (0, 0, {})
    assert report.cut_short <= 8
    assert report.answers >= report.judged == report.calls - report.cut_short
    assert report.unanswered == 0
    assert report.audio_s > report.judged * 0.3
    assert report.lateness_ms.count > 8 * 50
    assert sum(s.voice_to_voice_ms.count for s in report.over_time if s.voice_to_voice_ms) > 0
    assert max(stretch.calls for stretch in report.by_calls) == 8
    text = "\n".join(load_lines(report))
    assert re.search(r"own lateness +p50", text)
    section = load_section(report, "well", True)
    assert {chart.title for chart in section.charts} >= {"Calls over time"}


async def refusing(script):
    """An agent that does what a handler does; yields its URL."""
    app = web.Application()
    app.router.add_post("/voice", script)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_calls_that_are_refused_are_counted_and_no_answers_made_up(short, clock):
    async def busy(request):
        twiml = "<Response><Reject/></Response>"
        return web.Response(text=twiml, content_type="text/xml")

    runner, url = await refusing(busy)
    try:
        report = await run_load([short], target(url), LoadPlan(calls=3, seconds=1.5), clock=clock)
    finally:
        await runner.cleanup()
    assert report.refused > 3
    assert (report.answers, report.passed, report.most_at_once) == (0, 0, 0)
    assert sum(stretch.refused for stretch in report.over_time) == report.refused


async def test_a_stream_that_breaks_is_told_from_a_call_that_was_refused(short, clock):
    async def nowhere(request):
        twiml = '<Response><Connect><Stream url="ws://127.0.0.1:9/x"/></Connect></Response>'
        return web.Response(text=twiml, content_type="text/xml")

    async def voice(request):
        url = f"ws://{request.host}/media"
        twiml = f'<Response><Connect><Stream url="{url}"/></Connect></Response>'
        return web.Response(text=twiml, content_type="text/xml")

    async def media(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for _ in range(3):
            await socket.receive()
        await socket.close(code=1011)
        return socket

    runner, url = await refusing(nowhere)
    try:
        unreachable = await run_load(
            [short], target(url), LoadPlan(calls=1, seconds=1.5), clock=clock
        )
    finally:
        await runner.cleanup()
    assert set(unreachable.errors) == {31901}
    app = web.Application()
    app.router.add_post("/voice", voice)
    app.router.add_get("/media", media)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        torn = await run_load([short], target(url), LoadPlan(calls=1, seconds=1.5), clock=clock)
    finally:
        await runner.cleanup()
    assert torn.broken >= 1
    assert torn.refused == 0
    assert set(torn.errors) == {31921}


@pytest.mark.parametrize(
    ("plan", "wrong"),
    [
        ({"calls": 0, "seconds": 1}, "calls: expected at least 1, got 0"),
        ({"calls": 1, "seconds": 0}, "for: expected more than 0 seconds, got 0"),
        ({"calls": 1, "seconds": 5, "ramp": 5}, "ramp: expected 0 seconds or more, and less"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan, wrong):
    with pytest.raises(ValueError, match=wrong):
        LoadPlan(**plan)


async def test_a_hundred_connections_are_no_limit():
    """aiohttp's own is a hundred; the hundred-and-first call would wait for the first to end."""
    from telephony.simulator.carrier import LoopbackTwilio
    from telephony.simulator.clock import UnixClock

    async with LoopbackTwilio(target("http://127.0.0.1:9"), UnixClock()) as twilio:
        assert twilio._open_session.connector.limit == 0


async def test_the_echo_agent_is_a_process_that_ends_when_it_is_told_to():
    command = [sys.executable, "-m", "telephony.simulator.echo_agent"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], env=dict(os.environ)
    )
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 120)).decode().strip()
        async with aiohttp.ClientSession() as session, session.post(url) as response:
            twiml = await response.text()
        stream = re.search(r'url="(ws://[^"]+)"', twiml)[1]
        async with aiohttp.ClientSession() as session, session.ws_connect(stream) as socket:
            media = {"event": "media", "streamSid": "MZ1", "media": {"payload": "AAAA"}}
            await socket.send_str(json.dumps(media))
            assert json.loads((await socket.receive()).data) == media
    finally:
        process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
