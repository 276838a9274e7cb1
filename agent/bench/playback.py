"""Row group: gaps in playback, by how many calls there are and how the decoder divides its time.

Everything is real, from the client over an embedded Triton server to the models, except the
listener: playback begins with an answer's first audio, and it has a gap when audio has run out
before more arrives. Each call asks again when it has heard an answer; the calls begin one after the
other. Those that were there before there were more than the machine can carry, and those that came
after, are counted apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.bench.bench import Bench
from agent.bench.table import Result, Table
from agent.conversation import AGENT_RATE
from agent.embedded import EmbeddedServer
from agent.serving.parameters import ENVIRONMENT_PREFIX, SCHEDULES
from agent.speech.request import TurnRequest
from agent.training.line import read_line
from agent.triton import VoiceClient

NOTICED_SECONDS = 0.06
"""A shorter gap is covered by what a telephone line buffers."""

_CORPUS = Path(__file__).resolve().parents[1] / "nano" / "corpus.yaml"
_STAGGER_SECONDS = 0.7
_PAUSE_SECONDS = 0.5
# Letters of an answer that takes 5 to 10 s to say.
_LETTERS = range(70, 150)
_LONGEST_ANSWER = 400
# So that the schedule, not the client, decides who waits.
_PATIENCE = 600.0


@dataclass
class Listened:
    """What a listener heard of one answer.

    Attributes:
        asked: When it was asked for.
        begun: When its first audio came.
        runs_out: When the audio that came will have been played.
        gaps: Seconds of each gap.
        seconds: Seconds of audio that came.
        complete: Its last piece came.
    """

    asked: float
    begun: float | None = None
    runs_out: float = 0.0
    gaps: list[float] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = False

    def hear(self, now: float, seconds: float) -> None:
        """Take the audio of a piece."""
        if not seconds:
            return
        if self.begun is None:
            self.begun = self.runs_out = now
        self._wait_until(now)
        self.runs_out += seconds
        self.seconds += seconds

    def end(self, now: float) -> None:
        """The measurement is over: an answer that has run dry has a gap until then."""
        if self.begun is not None and not self.complete:
            self._wait_until(now)

    def wait(self, now: float) -> float:
        """Seconds until the first audio, so far."""
        return (now if self.begun is None else self.begun) - self.asked

    def _wait_until(self, now: float) -> None:
        if now > self.runs_out:
            if now - self.runs_out > NOTICED_SECONDS:
                self.gaps.append(now - self.runs_out)
            self.runs_out = now


@dataclass(frozen=True)
class Row:
    """What a group of calls heard.

    Attributes:
        schedule: How the decoder divides its time.
        sessions: Calls at once.
        group: ``"all"`` where the machine carries all; else ``"first"`` for those that it carries
            and ``"later"`` for those that came when it had no more to give.
        calls: Calls in the group.
        heard_seconds: Seconds of audio they got.
        gaps_per_minute: Gaps per minute of that audio.
        gap_seconds: Length of all gaps together.
        longest_gap: The longest gap.
        first_audio_p50: Median of the seconds from asking to the first audio. An answer still
            waited for at the end counts with the time so far.
        first_audio_p95: The 95th percentile of that.
        silent: Answers of which nothing was heard when the measurement ended.
    """

    schedule: str
    sessions: int
    group: str
    calls: int
    heard_seconds: float
    gaps_per_minute: float
    gap_seconds: float
    longest_gap: float
    first_audio_p50: float
    first_audio_p95: float
    silent: int


Calls = Sequence[Sequence[Listened]]


def run(bench: Bench) -> Sequence[Result]:
    """Measure every number of calls with every schedule, the schedules alternating."""
    bench.progress("playback of many calls, nano")
    sessions, seconds = ((1, 4), 10.0) if bench.quick else ((1, 2, 4, 8, 16), 20.0)
    rows = asyncio.run(_measure(sessions, seconds, bench.nano.path))
    return [table(rows, seconds)]


def table(rows: Iterable[Row], seconds: float) -> Table:
    """The rows as the benchmark shows them."""
    return Table(
        "Playback of many calls at once, nano, both cores",
        (
            "calls at once",
            "schedule",
            "of which",
            "audio s",
            "gaps a minute",
            "gaps s",
            "longest s",
            "first audio p50 / p95 s",
            "still silent",
        ),
        tuple(
            (
                str(row.sessions),
                row.schedule,
                f"{row.group} {row.calls}",
                f"{row.heard_seconds:.0f}",
                f"{row.gaps_per_minute:.1f}",
                f"{row.gap_seconds:.1f}",
                f"{row.longest_gap:.2f}",
                f"{row.first_audio_p50:.2f} / {row.first_audio_p95:.2f}",
                str(row.silent),
            )
            for row in rows
        ),
        (
            f"Wall clock, {seconds:.0f} s each, over the embedded Triton server. First: as many "
            "calls as the machine carries; later: those that came when it had no more to give. "
            f"A gap is silence of more than {NOTICED_SECONDS * 1000:.0f} ms inside an answer.",
        ),
    )


def carried(runs: Iterable[Calls], seconds: float) -> int:
    """How many answers at once the machine can carry: its most audio a second, rounded."""
    most = max(sum(answer.seconds for call in calls for answer in call) for calls in runs)
    return max(1, round(most / seconds))


def summarise(schedule: str, calls: Calls, carries: int, end: float) -> list[Row]:
    """Rows of one measurement.

    Args:
        schedule: What it was measured with.
        calls: The answers of each call, in the order in which the calls came.
        carries: How many of them the machine can carry.
        end: When the measurement ended.
    """
    groups = {"all": calls}
    if len(calls) > carries:
        groups = {"first": calls[:carries], "later": calls[carries:]}
    return [_row(schedule, len(calls), name, group, end) for name, group in groups.items()]


def _row(schedule: str, sessions: int, group: str, calls: Calls, end: float) -> Row:
    answers = [answer for call in calls for answer in call]
    gaps = [gap for answer in answers for gap in answer.gaps]
    heard = sum(answer.seconds for answer in answers)
    # A call that was still to come has asked for nothing.
    waits = [answer.wait(end) for answer in answers] or [0.0]
    p50, p95 = np.percentile(waits, [50, 95])
    return Row(
        schedule=schedule,
        sessions=sessions,
        group=group,
        calls=len(calls),
        heard_seconds=heard,
        gaps_per_minute=len(gaps) / heard * 60.0 if heard else 0.0,
        gap_seconds=sum(gaps),
        longest_gap=max(gaps, default=0.0),
        first_audio_p50=float(p50),
        first_audio_p95=float(p95),
        silent=sum(answer.begun is None for answer in answers),
    )


async def _measure(sessions: Sequence[int], seconds: float, checkpoint: Path) -> list[Row]:
    found: list[tuple[str, Calls, float]] = []
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for schedule in SCHEDULES:
            variables = {f"{ENVIRONMENT_PREFIX}SCHEDULE": schedule}
            server = EmbeddedServer(checkpoint=checkpoint, environment=variables)
            await stack.enter_async_context(server)
            client = VoiceClient([server.url], _PATIENCE, _PATIENCE, request_timeout=60.0)
            stack.push_async_callback(client.close)
            # The first answer of a server is slower than all others.
            await _listen(client, 1, 2 * _STAGGER_SECONDS)
            clients[schedule] = client
        for count, schedule in itertools.product(sessions, SCHEDULES):
            found.append((schedule, *await _listen(clients[schedule], count, seconds)))
    carries = carried((calls for _, calls, _ in found), seconds)
    rows = [summarise(schedule, calls, carries, end) for schedule, calls, end in found]
    return list(itertools.chain.from_iterable(rows))


async def _listen(client: VoiceClient, count: int, seconds: float) -> tuple[Calls, float]:
    """So many calls for so long; the answers each of them heard, and when it ended."""
    lines = [text for text in read_line(_CORPUS).texts() if len(text) in _LETTERS]
    calls: list[list[Listened]] = [[] for _ in range(count)]
    tasks = [
        asyncio.create_task(_call(client, call, index, lines[index % len(lines) :] + lines))
        for index, call in enumerate(calls)
    ]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    end = time.monotonic()
    for answer in itertools.chain.from_iterable(calls):
        answer.end(end)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return calls, end


async def _call(client: VoiceClient, call: list[Listened], index: int, lines: list[str]) -> None:
    await asyncio.sleep(index * _STAGGER_SECONDS)
    session = client.session()
    try:
        for line in itertools.cycle(lines):
            answer = Listened(time.monotonic())
            call.append(answer)
            request = TurnRequest(temperature=0.0, max_new_tokens=_LONGEST_ANSWER, say=line)
            async for chunk in session.answer(request):
                answer.hear(time.monotonic(), len(chunk.audio) / AGENT_RATE)
                answer.complete = chunk.last
            await asyncio.sleep(max(0.0, answer.runs_out - time.monotonic()) + _PAUSE_SECONDS)
    finally:
        await session.close()
