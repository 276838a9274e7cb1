"""The conversation as it happens, for a person at a terminal."""

import re
import textwrap
from collections.abc import Sequence
from typing import Protocol, TextIO

from telephony.simulator.report import CallReport, Check, Latency, TurnReport

PARTS = (
    ("decision", "decision"),
    ("tokenise", "tokenise"),
    ("first_token", "first token"),
    ("first_audio", "first audio"),
    ("transport", "transport"),
)
"""Fields of ``Latency`` that add up to the whole, and what they are called, in order of time."""

_FIELDS = tuple(field for field, _ in PARTS)
_WIDTH = 100
_INDENT = " " * 17
_CAPTION = 38
_CELL = 12
TOO_LATE_MS = 20.0
"""A simulator that is later than this, p99, measures itself."""


class Watcher(Protocol):
    """Is told about a call while it goes on. Times are seconds of the call."""

    def answered(self, webhook_ms: float, connect_ms: float) -> None:
        """The webhook answered and the media stream is open."""
        ...

    def caller_speaks(self, at: float, text: str, over_agent: bool) -> None:
        """The caller begins a line."""
        ...

    def agent_says(self, at: float, text: str) -> None:
        """The next piece of the agent's text has been generated."""
        ...

    def turn_over(self, turn: TurnReport) -> None:
        """The conversation has gone past a turn; its report is not final yet."""
        ...

    def call_over(self, report: CallReport) -> None:
        """The call has ended."""
        ...


class Quiet:
    """A watcher that does not care."""

    def answered(self, webhook_ms: float, connect_ms: float) -> None:
        """Nothing."""

    def caller_speaks(self, at: float, text: str, over_agent: bool) -> None:
        """Nothing."""

    def agent_says(self, at: float, text: str) -> None:
        """Nothing."""

    def turn_over(self, turn: TurnReport) -> None:
        """Nothing."""

    def call_over(self, report: CallReport) -> None:
        """Nothing."""


class Terminal:
    """Prints a call line by line; plain text, so that it reads the same in a log."""

    def __init__(self, out: TextIO) -> None:
        """Print to a stream."""
        self._out = out
        self._column = 0
        self._space = False
        self._agent_talks = False

    def step(self, text: str) -> None:
        """One step of the preparations."""
        self._print(f"  {text}")

    def heading(self, text: str) -> None:
        """What comes next."""
        self._print(f"\n{text}")

    def answered(self, webhook_ms: float, connect_ms: float) -> None:
        """Print how the call was answered."""
        self.step(f"webhook answered in {webhook_ms:.0f} ms, stream open in {connect_ms:.0f} ms\n")

    def caller_speaks(self, at: float, text: str, over_agent: bool) -> None:
        """Print the caller's line."""
        self._break()
        self._say(at, "caller", f"(over the agent) {text}" if over_agent else text)

    def agent_says(self, at: float, text: str) -> None:
        """Add to the agent's line, word by word."""
        if not self._agent_talks:
            self._break()
            self._write(f"{time_of_call(at):>8}  agent  ")
            self._column = len(_INDENT)
            self._agent_talks = True
            self._space = False
            text = text.lstrip()
        for part in re.split(r"(\s+)", text):
            if part.isspace():
                self._space = True
            elif part:
                self._word(part)
        self._out.flush()

    def _word(self, word: str) -> None:
        """Write a word, or the rest of one that an earlier piece began."""
        if self._space and self._column + 1 + len(word) > _WIDTH:
            self._write(f"\n{_INDENT}")
            self._column = len(_INDENT)
        elif self._space:
            self._write(" ")
            self._column += 1
        self._write(word)
        self._column += len(word)
        self._space = False

    def turn_over(self, turn: TurnReport) -> None:
        """Print how long the answer took and what did not hold."""
        self._break()
        if turn.barge_in is not None:
            self._note(f"the agent fell silent {turn.barge_in.silent_after_ms:.0f} ms later")
        if turn.caller is None and turn.answer is not None:
            self._note(f"heard {turn.answer[0] * 1000:.0f} ms after the stream had opened")
        if turn.understood:
            self._note(f"understood as “{turn.understood}”")
        if turn.latency is not None:
            self._note(describe(turn.latency))
            if turn.latency.saved:
                self._note(f"{turn.latency.saved:.0f} ms saved by beginning in the pause")
        for check in turn.checks:
            if not check.passed:
                self._note(complaint(check))

    def call_over(self, report: CallReport) -> None:
        """Print the table and the verdict."""
        self._break()
        self._print(f"\n{report.cause} after {report.duration:.1f} s\n")
        for line in table(report.turns):
            self._print(line)
        for check in report.checks:
            if not check.passed:
                self._print(complaint(check))
        dropped = [e for e in report.agent_events if e["event"] == "early_answer_dropped"]
        if dropped:
            spent = sum(event["seconds"] for event in dropped)
            self._print(
                f"answers begun in a pause and thrown away: {len(dropped)}, {spent * 1000:.0f} ms"
            )
        if report.gaps:
            longest = max(end - begin for begin, end in report.gaps) * 1000
            self._print(f"gaps in the agent's audio: {len(report.gaps)}, longest {longest:.0f} ms")
        if report.lateness is not None:
            late = report.lateness
            self._print(
                "the simulator's own lateness: "
                f"median {late.median:.1f} ms, p99 {late.p99:.1f} ms, worst {late.worst:.1f} ms"
            )
            if late.p99 > TOO_LATE_MS:
                self._print("this machine was too busy to trust the times above")

    def _say(self, at: float, who: str, text: str) -> None:
        lines = textwrap.wrap(text, _WIDTH - len(_INDENT)) or [""]
        self._print(f"{time_of_call(at):>8}  {who:<7}{lines[0]}")
        for line in lines[1:]:
            self._print(f"{_INDENT}{line}")

    def _note(self, text: str) -> None:
        self._print(f"{_INDENT}· {text}")

    def _break(self) -> None:
        if self._agent_talks:
            self._print("")
        self._agent_talks = False

    def _print(self, text: str) -> None:
        self._write(f"{text}\n")
        self._out.flush()

    def _write(self, text: str) -> None:
        self._out.write(text)


def describe(latency: Latency) -> str:
    """A voice-to-voice time and its parts as one line of text."""
    parts = [
        f"{value:.0f} {name}"
        for field, name in PARTS
        if (value := getattr(latency, field)) is not None
    ]
    sum_of = f" = {' + '.join(parts)}" if parts else ""
    return f"{latency.voice_to_voice:.0f} ms voice to voice{sum_of}"


def complaint(check: Check) -> str:
    """A check that does not hold as one line of text."""
    verdict = "UNKNOWN" if check.passed is None else "FAILED"
    return f"{verdict} {check.name}: expected {check.expected}; found {check.found}"


def complaints(report: CallReport) -> list[str]:
    """Every check of a call that does not hold as a line of text, with the turn it belongs to.

    Where no stream was opened, only what concerns the call as a whole: the rest follows from that.
    """
    lines = [complaint(check) for check in report.checks if not check.passed]
    for turn in report.turns if report.stream_started_at is not None else ():
        where = "greeting" if turn.index is None else f"turn {turn.index + 1}"
        lines += [f"{where}: {complaint(check)}" for check in turn.checks if not check.passed]
    return lines


def table(turns: Sequence[TurnReport]) -> list[str]:
    """All turns with their latencies (milliseconds) as lines of text."""
    headings = ["total", *(name for _, name in PARTS)]
    titles = "".join(f"{heading:>{_CELL}}" for heading in headings)
    lines = [
        f"{'':<{_CAPTION + 6}}{'voice to voice (ms)':>{_CELL * 2}}",
        f"turn  {'caller':<{_CAPTION}}{titles}  expectations",
    ]
    for turn in turns:
        number = "" if turn.index is None else str(turn.index + 1)
        caption = "(greeting)" if turn.caller is None else turn.caller
        if turn.barge_in is not None:
            caption = f"[over the agent] {caption}"
        caption = textwrap.shorten(caption, _CAPTION, placeholder="…")
        values = [None] * len(headings)
        if turn.latency is not None:
            values = [getattr(turn.latency, field) for field in ("voice_to_voice", *_FIELDS)]
        cells = "".join(
            f"{'–' if value is None else format(value, '.0f'):>{_CELL}}" for value in values
        )
        held = sum(bool(check.passed) for check in turn.checks)
        verdict = "held" if turn.passed else f"{held} of {len(turn.checks)} held"
        lines.append(f"{number:>4}  {caption:<{_CAPTION}}{cells}  {verdict}")
    return lines


def time_of_call(seconds: float) -> str:
    """Seconds as minutes, seconds and tenths."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
