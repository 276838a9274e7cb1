"""One scenario, from the first ring to the report on disk."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from telephony.clock import Clock
from telephony.simulator.agent_records import printable
from telephony.simulator.assessment import Assessment, asks_outside, assess_call
from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.caller import Caller, Spoken
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.clock import UnixClock
from telephony.simulator.listening import RecordListener
from telephony.simulator.preparation import new_caller
from telephony.simulator.record_tail import RecordTail, tail_of_call
from telephony.simulator.recording import write_call
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target
from telephony.simulator.terminal import Quiet, Watcher
from telephony.simulator.timeline import draw_timeline
from telephony.simulator.trace import CallTrace

_LOOK_SECONDS = 0.1
"""How often what has happened is shown."""
_RECORD_SECONDS = 5.0
"""How long the agent may take to finish its record after the call."""


async def run_scenario(
    scenario: Scenario,
    target: Target,
    out_dir: Path | None,
    *,
    records: str | Path | None = None,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
    picture: bool = True,
) -> CallReport:
    """Place the call of a scenario and report on it.

    Args:
        scenario: The script.
        target: Whom to call.
        out_dir: Receives call.wav, call.json and timeline.png; None writes nothing.
        records: Where the agent's records are, to read its text, tools and timing from:
            SQLAlchemy's address of our gateway's database, the path of its SQLite file, or a file
            ``*.jsonl`` of any server; without them only the sound is judged.
        watcher: Is told what happens while it happens.
        clock: Paces the call; the machine's own if not given.
        picture: Draw timeline.png.

    Returns:
        The report, complete even if the call was refused or torn.

    Raises:
        ValueError: A recording of the scenario cannot be used; the message names it.
    """
    clock = clock or UnixClock()
    caller = await asyncio.to_thread(new_caller, scenario)
    async with LoopbackTwilio(target, clock) as twilio:
        call = twilio.new_call()
        tail = tail_of_call(records, call.call_sid) if records else None
        if tail is not None:
            caller.listen_through(RecordListener(tail))
        show = _Show(call, caller, tail, watcher or Quiet())
        showing = asyncio.create_task(show.run(clock))
        try:
            await twilio.place(call, caller, scenario.caller, scenario.called, scenario.network)
            if tail is not None and call.stream is not None:
                await _wait_for_end(tail, clock)
        finally:
            showing.cancel()
            outcome = (await asyncio.gather(showing, return_exceptions=True))[0]
            events = tail.events if tail else None
            assess = partial(assess_call, caller.script, call, caller.spoken, events)
            report = await asyncio.to_thread(assess) if asks_outside(caller.script) else assess()
            report.checks.extend(caller.checks())
            if out_dir is not None:
                write_report(out_dir, report, call, picture=picture)
            if tail is not None:
                tail.close()
    if isinstance(outcome, Exception):
        raise outcome
    show.look()
    show.last_turn_over()
    show.watcher.call_over(report)
    return report


class _Show:
    """Tells a watcher what has happened since it last looked."""

    def __init__(
        self,
        call: CallTrace,
        caller: Caller,
        tail: RecordTail | None,
        watcher: Watcher,
    ) -> None:
        self.watcher = watcher
        self._call = call
        self._caller = caller
        self._tail = tail
        self._answered = False
        self._lines = 0
        self._events = 0

    async def run(self, clock: Clock) -> None:
        """Look again and again."""
        while True:
            await clock.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Tell what is new, in the order in which it happened."""
        stream = self._call.stream
        if stream is None:
            return
        if not self._answered:
            self._answered = True
            seconds = (self._call.webhook_seconds or 0.0, self._call.connect_seconds or 0.0)
            self.watcher.answered(seconds[0] * 1000, seconds[1] * 1000)
        news: list[tuple[float, Spoken | str]] = []
        for line in self._caller.spoken[self._lines :]:
            news.append((line.start / SAMPLE_RATE, line))
        if self._tail is not None:
            self._tail.read()
            for event in self._tail.events[self._events :]:
                if event.name == "agent_text":
                    text = printable(str(event.fields.get("text", "")))
                    news.append((event.at - stream.started_at, text))
            self._events = len(self._tail.events)
        for at, what in sorted(news, key=lambda item: item[0]):
            if isinstance(what, str):
                self.watcher.agent_says(at, what)
            else:
                self.last_turn_over()
                self._lines += 1
                text = self._caller.script.turns[what.turn].label
                self.watcher.caller_speaks(at, text, what.over_agent)

    def last_turn_over(self) -> None:
        """Tell what is known about the turn of the last line that was told of."""
        if self._call.stream is None:
            return
        events = self._tail.events if self._tail is not None else None
        assessment = Assessment(self._caller.script, self._call.stream, self._caller.spoken, events)
        if self._lines:
            self.watcher.turn_over(assessment.turn(self._caller.spoken[self._lines - 1].turn))
        elif self._caller.script.greeting is not None:
            self.watcher.turn_over(assessment.greeting())


async def _wait_for_end(tail: RecordTail, clock: Clock) -> None:
    deadline = clock.time() + _RECORD_SECONDS
    tail.read()
    while clock.time() < deadline and not any(e.name == "call_ended" for e in tail.events):
        await clock.sleep(_LOOK_SECONDS)
        tail.read()


def write_report(
    out_dir: Path, report: CallReport, call: CallTrace, *, picture: bool = True
) -> None:
    """Write call.json and, where there was a media stream, call.wav and timeline.png."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "call.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    if call.stream is not None and call.stream.agent:
        caller, agent = call.stream.caller_audio, call.stream.agent_audio
        write_call(out_dir / "call.wav", caller, agent)
        if picture:
            draw_timeline(out_dir / "timeline.png", report, caller, agent)


def run_directory(out_root: Path) -> Path:
    """A directory below ``out_root`` named after the time of day, as yet without a report."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names: Iterator[str] = (stamp if n == 1 else f"{stamp}-{n}" for n in range(1, 1000))
    return next(out_root / name for name in names if not (out_root / name).exists())
