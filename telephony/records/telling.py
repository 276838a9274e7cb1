"""Calls in words, for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

Row = Mapping[str, Any]
_HEAD = ("began", "seconds", "from", "to", "agent", "end", "call")


def print_list(calls: Sequence[Row]) -> None:
    """Print calls as a table.

    Args:
        calls: Rows of the table ``calls``.
    """
    rows = [_HEAD, *(_columns(call) for call in calls)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_call(call: Row, turns: Sequence[Row], tools: Sequence[Row]) -> None:
    """Print a call's turns and tool calls.

    Args:
        call: Of the table ``calls``.
        turns: Of the table ``turns``.
        tools: Of the table ``tool_calls``.
    """
    print_list([call])
    if call["transferred_to"]:
        print(f"put through to {call['transferred_to']}")
    if call["recording"]:
        print(f"recording: {call['recording']}")
    lines: list[tuple[float, int, str]] = []
    begin = call["answered_at"] or call["opened_at"]

    def add(at: float | None, text: str) -> None:
        if at is not None:
            lines.append((at, len(lines), f"  {_clock(at - begin)}  {text}"))

    for tool in tools:
        arguments = json.dumps(tool["arguments"], ensure_ascii=False)
        add(tool["called_at"], f"tool    {tool['name']} {_plain(arguments)}")
        outcome = tool["error"] or json.dumps(tool["result"], ensure_ascii=False)
        add(
            tool["returned_at"], f"        {'failed: ' if tool['error'] else '= '}{_plain(outcome)}"
        )
    for turn in turns:
        said = turn["caller_text"]
        if turn["decided_at"] is not None:
            started = turn["caller_started_at"] or turn["decided_at"]
            add(started, f"caller  {_plain(said) if said else '(speaks)'}")
        spoke = turn["first_audio_at"] or turn["started_at"]
        add(spoke, f"agent   {_plain(turn['agent_text'] or '(nothing)')}")
        if delay := _delay(turn):
            add(spoke, f"        {delay}")
        if turn["interrupted_at"] is not None:
            heard = _plain(turn["heard_text"] or "nothing")
            add(turn["interrupted_at"], f"        interrupted; heard: {heard}")
    print()
    for _, _, line in sorted(lines):
        print(line)


def _columns(call: Row) -> tuple[str, ...]:
    ended, begun = call["ended_at"], call["answered_at"]
    seconds = "" if ended is None or begun is None else f"{ended - begun:.0f}"
    end = call["cause"] or ("" if ended is not None else "(goes on)")
    began = datetime.fromtimestamp(call["opened_at"]).astimezone()
    return (
        began.strftime("%Y-%m-%d %H:%M:%S"),
        seconds,
        *(_plain(call[name] or "") for name in ("caller", "called", "agent")),
        end,
        call["sid"],
    )


def _delay(turn: Row) -> str | None:
    """How long the answer took, as far as the gateway knows."""
    stopped, decided, audio = (
        turn[name] for name in ("caller_stopped_at", "decided_at", "first_audio_at")
    )
    if audio is None or decided is None:
        return None
    parts = f"{(audio - decided) * 1000:.0f} ms from the decision to the first audio"
    if stopped is not None:
        parts = f"{(decided - stopped) * 1000:.0f} ms to decide, {parts}"
    return parts


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def _plain(text: str) -> str:
    """A text without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)
