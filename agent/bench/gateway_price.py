"""Row group: what a call costs the gateway, beside Pipecat's stock transport for Twilio.

Both gateways run at the same time, each in a process of its own and with as many calls, so that
whatever else the machine does meets both alike. The engine costs nothing on either side
(agent.bench.stand_in); counted is the CPU time of all threads of the gateway's process. Needs
FastAPI, uvicorn and websockets for the other side, which nothing else here does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

from agent.bench.bench import Bench
from agent.bench.gateway_worker import KINDS, TOKEN
from agent.bench.table import Bar, Figure, Measured, Result, Table

if TYPE_CHECKING:
    from telephony.simulator.caller import Line
    from telephony.simulator.carrier import LoopbackTwilio
    from telephony.simulator.scenario import Scenario

CALLS = 4
"""On each side; few enough that nobody waits for the CPU."""
WINDOW_SECONDS = 10.0
BAR = Bar("at most", 0.5)
_TITLE = "gateway, CPU of a second of a call, {calls} calls"
_NEEDED = ("fastapi", "uvicorn", "websockets")


class Gateway:
    """A gateway in a process of its own.

    Attributes:
        kind: One of ``KINDS``.
        url: Its voice webhook.
    """

    def __init__(self, kind: str):
        """Start it and wait until it listens.

        Raises:
            RuntimeError: It ended instead.
        """
        self.kind = kind
        command = [sys.executable, "-m", "agent.bench.gateway_worker", kind]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self._line())}/voice"

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time so far: of all its threads together, and of the event loop's."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        together, loop = self._line().split()
        return float(together), float(loop)

    def profile(self) -> dict[str, float]:
        """Begin to profile its event loop; the second time, seconds by part since then."""
        assert self._process.stdin is not None
        self._process.stdin.write("profile\n")
        self._process.stdin.flush()
        shares: dict[str, float] = json.loads(self._line())
        return shares

    def memory(self) -> int:
        """Bytes that it holds, after a garbage collection."""
        assert self._process.stdin is not None
        self._process.stdin.write("memory\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway {self.kind!r} ended with {self._process.wait()}")
        return line

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run(bench: Bench) -> Sequence[Result]:
    """Measure both gateways, or ours alone where the packages of the other are missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    kinds = KINDS if not missing else KINDS[:1]
    with _gateways(kinds) as gateways:
        spent, shares = asyncio.run(_measure(bench, gateways, bench.repetitions(6)))
    seconds = {kind: tuple(together for together, _ in windows) for kind, windows in spent.items()}
    stock = f"not installed: {', '.join(missing)}" if missing else Measured(seconds["stock"])
    return [
        Figure(
            name=_TITLE.format(calls=CALLS),
            weights="none",
            against=stock,
            ours=Measured(seconds["ours"]),
            unit="ms",
            bar=BAR,
            other="stock",
            note="Gateway: stock is Pipecat's FastAPIWebsocketTransport with "
            "TwilioFrameSerializer; both run at once, with the same calls and turn detection.",
        ),
        _by_thread(spent),
        _where_it_goes(shares),
    ]


def _by_thread(spent: dict[str, list[tuple[float, float]]]) -> Table:
    rows = [
        (name, *(f"{median(map(of, windows)):.1f}" for windows in spent.values()))
        for name, of in (
            ("the event loop's thread", lambda window: window[1]),
            ("all others", lambda window: window[0] - window[1]),
        )
    ]
    return Table(
        "Which threads spend the CPU of a second of a call (ms)",
        ("thread", *spent),
        tuple(rows),
        ("Median window. All others: smart-turn, and in stock Silero too.",),
    )


def _where_it_goes(shares: dict[str, dict[str, float]]) -> Table:
    parts = sorted({part for by_part in shares.values() for part in by_part})
    parts.sort(key=lambda part: -max(by_part.get(part, 0.0) for by_part in shares.values()))
    rows = [
        (part, *(f"{by_part.get(part, 0.0):.1f}" for by_part in shares.values())) for part in parts
    ]
    return Table(
        "Where the gateway's event loop spends a second of a call (ms, profiled)",
        ("part", *shares),
        tuple(rows),
        (
            "One window, profiled, which makes whatever consists of small functions look dearer. "
            "Smart-turn works in threads beside the loop, on both sides; so does stock's Silero.",
        ),
    )


@contextlib.contextmanager
def _gateways(kinds: Sequence[str]) -> Iterator[list[Gateway]]:
    gateways: list[Gateway] = []
    try:
        for kind in kinds:
            gateways.append(Gateway(kind))
        yield gateways
    finally:
        for gateway in gateways:
            gateway.close()


async def _measure(
    bench: Bench, gateways: Sequence[Gateway], windows: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, dict[str, float]]]:
    """Milliseconds of CPU per call-second, by gateway.

    Returns:
        Each window's, of all threads and of the event loop's; and a profile's by part.
    """
    from telephony.simulator.carrier import LoopbackTwilio
    from telephony.simulator.clock import UnixClock
    from telephony.simulator.target import Target

    scenario, lines, length = _script()
    found: dict[str, list[tuple[float, float]]] = {gateway.kind: [] for gateway in gateways}
    async with contextlib.AsyncExitStack() as stack:
        talking = []
        for gateway in gateways:
            twilio = await stack.enter_async_context(
                LoopbackTwilio(Target(gateway.url, TOKEN), UnixClock())
            )
            talking += [
                asyncio.create_task(_call(twilio, scenario, lines, number * length / CALLS))
                for number in range(CALLS)
            ]
        # Until the last caller has begun: then some speak while others listen, at any moment.
        await asyncio.sleep(length)
        for window in range(windows):
            bench.progress(f"gateway, {WINDOW_SECONDS:g} s, {window + 1} of {windows}")
            before = [gateway.cpu_seconds() for gateway in gateways]
            begun = time.monotonic()
            await asyncio.sleep(WINDOW_SECONDS)
            scale = 1000 / ((time.monotonic() - begun) * CALLS)
            for gateway, (together, loop) in zip(gateways, before, strict=True):
                now = gateway.cpu_seconds()
                found[gateway.kind].append((scale * (now[0] - together), scale * (now[1] - loop)))
        for gateway in gateways:
            gateway.profile()
        await asyncio.sleep(WINDOW_SECONDS)
        scale = 1000 / (WINDOW_SECONDS * CALLS)
        shares = {
            gateway.kind: {part: scale * own for part, own in gateway.profile().items()}
            for gateway in gateways
        }
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    return found, shares


def _script() -> tuple[Scenario, Sequence[Line], float]:
    """The demo's caller, who also interrupts; and about how many seconds its call lasts."""
    from telephony.simulator.commands import DEMO_SCENARIO
    from telephony.simulator.loading import load_scenarios
    from telephony.simulator.preparation import prepare

    scenario = load_scenarios(DEMO_SCENARIO)[0].model_copy(update={"greeting": None})
    return scenario, prepare(scenario).lines, 7.0 * len(scenario.turns)


async def _call(
    twilio: LoopbackTwilio, scenario: Scenario, lines: Sequence[Line], begins: float
) -> None:
    from telephony.simulator.caller import Caller

    await asyncio.sleep(begins)
    while True:
        person = Caller(scenario, lines)
        await twilio.place(twilio.new_call(), person, scenario.caller, scenario.called)
