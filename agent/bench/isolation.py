"""Row group: what calls that misbehave cost the others, and what many calls leave behind.

The gateway is a process of its own with an engine that costs nothing (agent.bench.stand_in), and
time is real. ``python -m agent.bench --only isolation``.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import ClientError, ClientSession
from loguru import logger

from agent.bench.bench import Bench
from agent.bench.gateway_price import Gateway
from agent.bench.gateway_worker import HANGING, TOKEN
from agent.bench.table import Result, Table

if TYPE_CHECKING:
    from telephony.simulator.load_report import LoadReport
    from telephony.simulator.target import Target

CALLS = 17
SECONDS = 20.0
FEW, MANY = 100, 500
_AT_ONCE = 20
_SHORT_SECONDS = 1.0
_FLOOD_MESSAGES = 20_000
_FEW_MESSAGES = 50
_BETWEEN_SECONDS = 0.5
_NUMBER = "+15550100002"


def run(bench: Bench) -> Sequence[Result]:
    """Seventeen calls beside three bad ones, and the memory after many short ones."""
    seconds, few, many = (8.0, 20, 100) if bench.quick else (SECONDS, FEW, MANY)
    gateway = Gateway("ours")
    try:
        return asyncio.run(_measure(bench, gateway, seconds, few, many))
    finally:
        gateway.close()


async def _measure(
    bench: Bench, gateway: Gateway, seconds: float, few: int, many: int
) -> Sequence[Result]:
    from telephony.simulator.target import Target

    target = Target(gateway.url, TOKEN)
    bench.progress(f"isolation, {seconds:g} s alone")
    alone = await _load(target, seconds)
    bench.progress(f"isolation, {seconds:g} s beside three that misbehave")
    # In a process of its own: a flood must not make the other callers late.
    bad = multiprocessing.get_context("spawn").Process(target=_misbehaving, args=(target, seconds))
    bad.start()
    try:
        beside = await _load(target, seconds)
    finally:
        bad.terminate()
        bad.join()
    held = []
    for count in (few, many - few):
        bench.progress(f"isolation, {count} short calls")
        await _short_calls(target, count)
        held.append(gateway.memory() / 2**20)
    return [
        Table(
            f"{CALLS} calls beside one with a tool that hangs, one that floods and torn sockets",
            ("", "alone", "beside them"),
            tuple(
                (name, *(_shown(report, name) for report in (alone, beside)))
                for name in ("answers", "largest gap, ms", "broken", "own lateness p99, ms")
            ),
            ("Real time; a gap is where the phone ran dry inside an answer.",),
        ),
        Table(
            "Memory of the gateway's process",
            ("after short calls", "MiB"),
            tuple(
                (str(count), f"{megabytes:.1f}")
                for count, megabytes in zip((few, many), held, strict=True)
            ),
            (f"Grown by {100 * (held[1] / held[0] - 1):.1f} %; at most 5 % is asked for.",),
        ),
    ]


def _shown(report: LoadReport, name: str) -> str:
    if name == "answers":
        return str(report.answers)
    if name == "broken":
        return str(report.broken)
    found = report.gap_ms if name.startswith("largest") else report.lateness_ms
    value = 0.0 if found is None else found.worst if name.startswith("largest") else found.p99
    return f"{value:.0f}"


async def _load(target: Target, seconds: float) -> LoadReport:
    from telephony.simulator.commands import DEMO_SCENARIO
    from telephony.simulator.load import run_load
    from telephony.simulator.load_tally import LoadPlan
    from telephony.simulator.loading import load_scenarios

    scenario = load_scenarios(DEMO_SCENARIO)[0].model_copy(update={"greeting": None})
    return await run_load([scenario], target, LoadPlan(CALLS, seconds, ramp=seconds / 4))


async def _short_calls(target: Target, count: int) -> None:
    from telephony.simulator.callee import Listener
    from telephony.simulator.carrier import LoopbackTwilio
    from telephony.simulator.clock import UnixClock

    async with LoopbackTwilio(target, UnixClock()) as twilio:
        places = asyncio.Semaphore(_AT_ONCE)

        async def call() -> None:
            async with places:
                trace = twilio.new_call()
                await twilio.place(trace, Listener(_SHORT_SECONDS), "+15550100001", _NUMBER)
                twilio.calls.pop(trace.call_sid, None)

        await asyncio.gather(*(call() for _ in range(count)))


def _misbehaving(target: Target, seconds: float) -> None:
    logger.remove()
    asyncio.run(_misbehave(target, seconds))


async def _misbehave(target: Target, seconds: float) -> None:
    """One call whose tool hangs; one that floods, and one whose socket is torn, over and over."""
    from telephony.simulator.callee import Listener
    from telephony.simulator.carrier import LoopbackTwilio
    from telephony.simulator.clock import UnixClock

    async with LoopbackTwilio(target, UnixClock()) as twilio, ClientSession() as client:
        await asyncio.gather(
            twilio.place(twilio.new_call(), Listener(seconds), "+15550100001", HANGING),
            _again_and_again(client, target, floods=True),
            _again_and_again(client, target, floods=False),
        )


async def _again_and_again(client: ClientSession, target: Target, floods: bool) -> None:
    while True:
        with contextlib.suppress(ClientError, ConnectionError):
            await _bad_call(client, target, floods)
        await asyncio.sleep(_BETWEEN_SECONDS)


async def _bad_call(client: ClientSession, target: Target, floods: bool) -> None:
    """A call whose sound comes all at once, or whose socket is torn."""
    from telephony.media_streams import Connected, Media, Start
    from telephony.simulator.target import new_sid

    sid, stream = new_sid("CA"), new_sid("MZ")
    fields = {"CallSid": sid, "To": _NUMBER}
    signed = {"X-Twilio-Signature": target.signature(target.voice_url, fields)}
    async with client.post(target.voice_url, data=fields, headers=signed) as response:
        twiml = ElementTree.fromstring(await response.text())
    parameters = {one.attrib["name"]: one.attrib["value"] for one in twiml.iter("Parameter")}
    url = next(twiml.iter("Stream")).attrib["url"]
    signed = {"X-Twilio-Signature": target.signature(url)}
    async with client.ws_connect(url, headers=signed) as socket:
        await socket.send_str(Connected().to_json())
        await socket.send_str(Start(stream, sid, target.account_sid, parameters).to_json())
        for chunk in range(1, _FLOOD_MESSAGES if floods else _FEW_MESSAGES):
            frame = Media(stream, b"\xff" * 160, chunk * 20, chunk, chunk + 1)
            await socket.send_str(frame.to_json())
        if not floods:
            # No closing handshake: as where the network has gone.
            connection = socket._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()
