"""Reads what an agent writes down about a call, while it is being written.

A record is a file of JSON objects, one a line, each with ``at`` (Unix seconds) and ``event`` (a
name). Our gateway writes one for each call; any server may, of the same shape. docs/checks.md lists
the events that are read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

TOOL_CALL, TOOL_RESULT = "tool_call", "tool_result"


@dataclass(frozen=True)
class Event:
    """One line of the gateway's record.

    Attributes:
        at: Unix seconds.
        name: The event's static name (agent.events lists them).
        fields: Everything else.
    """

    at: float
    name: str
    fields: dict[str, Any]


def printable(text: str) -> str:
    """A text of the agent without anything that a terminal or a picture would stumble over."""
    return "".join(
        c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


class _ToolCall(BaseModel):
    """The fields of ``tool_call``."""

    name: str
    arguments: dict[str, Any] = {}
    call_id: str | None = None


class _ToolResult(BaseModel):
    """The fields of ``tool_result``: ``error`` in place of ``result`` where the tool failed."""

    call_id: str
    result: Any = None
    error: str | None = None


_SHAPES: dict[str, type[BaseModel]] = {TOOL_CALL: _ToolCall, TOOL_RESULT: _ToolResult}


class RecordTail:
    """Follows one call's record."""

    def __init__(self, path: Path, call_sid: str | None = None) -> None:
        """Follow a file that need not exist yet.

        Args:
            path: The file.
            call_sid: In a file of many calls, whose events have a field ``call_sid``: only those of
                this call count. None takes all.
        """
        self._path = path
        self._call_sid = call_sid
        self._offset = 0
        self.events: list[Event] = []

    @classmethod
    def of_call(cls, records: Path, call_sid: str) -> "RecordTail":
        """Follow the record of a call.

        Args:
            records: A directory with ``<call sid>.jsonl`` for each call, or a file ``*.jsonl`` of
                many calls.
            call_sid: Which call.
        """
        if records.suffix == ".jsonl":
            return cls(records, call_sid)
        return cls(records / f"{call_sid}.jsonl")

    def read(self) -> list[Event]:
        """Take what was added since the last time.

        Returns:
            The new events; a line that is still being written waits for the next time.

        Raises:
            ValueError: A whole line is no event, or a tool's without its fields; the message names
                file and line.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [self._parse(line) for line in whole.splitlines()]
        if self._call_sid is not None:
            new = [event for event in new if event.fields.get("call_sid") == self._call_sid]
        self.events += new
        return new

    def _parse(self, line: bytes) -> Event:
        try:
            fields = json.loads(line)
            event = Event(float(fields.pop("at")), str(fields.pop("event")), fields)
            if shape := _SHAPES.get(event.name):
                shape.model_validate(fields)
            return event
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"{self._path}: {field}: {problem['msg']}, in {line!r}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self._path}: expected a JSON object with at and event, got {line!r}"
            ) from error


@dataclass
class AgentTurn:
    """One answer, as the gateway tells it.

    Attributes:
        number: The gateway's count; the greeting is 0.
        decided_at: Unix seconds at which it held the caller's turn for over, if there was one.
        started_at: Unix seconds of its first event.
        ahead: Seconds by which it was begun before that.
        saved: Seconds by which that brought its first audio nearer.
        tokenise: Seconds the engine took for the audio that was left at the end of the turn.
        first_token: Seconds the engine took from there to the language model's first token.
        first_audio_at: Unix seconds at which the gateway had the first piece of audio.
        caller: The caller's words as the model understood them, if it was asked.
        text: All that the model said.
        finished: The model has said all of it.
        interrupted_at: Unix seconds of the barge-in, if it was cut off.
        heard_seconds: How much of its audio was heard, where it was cut off.
        heard_text: What the history holds of it.
    """

    number: int
    started_at: float
    decided_at: float | None = None
    ahead: float = 0.0
    saved: float = 0.0
    caller: str | None = None
    tokenise: float | None = None
    first_token: float | None = None
    first_audio_at: float | None = None
    pieces: list[str] = field(default_factory=list)
    finished: bool = False
    interrupted_at: float | None = None
    heard_seconds: float | None = None
    heard_text: str | None = None

    @property
    def text(self) -> str:
        """All that the model said so far."""
        return " ".join("".join(self.pieces).split())


def agent_turns(events: Sequence[Event]) -> list[AgentTurn]:
    """Gather the events of each answer.

    Args:
        events: In the order of the record.

    Returns:
        The answers in the order in which they began.
    """
    turns: dict[int, AgentTurn] = {}
    for event in events:
        number = event.fields.get("turn")
        if not isinstance(number, int):
            continue
        turn = turns.setdefault(number, AgentTurn(number, event.at))
        _apply(turn, event)
    return list(turns.values())


@dataclass
class ToolCall:
    """A tool that the agent called.

    Attributes:
        at: Unix seconds.
        name: The tool's.
        arguments: What it was called with.
        call_id: What ties its result to it, if it has one.
        result: What came back; None while nothing has.
        error: Why it failed, if it did.
    """

    at: float
    name: str
    arguments: dict[str, Any]
    call_id: str | None = None
    result: Any = None
    error: str | None = None


def tool_calls(events: Sequence[Event]) -> list[ToolCall]:
    """The calls of tools with their results.

    Args:
        events: In the order of the record.
    """
    calls: list[ToolCall] = []
    for event in events:
        if event.name == TOOL_CALL:
            made = _ToolCall.model_validate(event.fields)
            calls.append(ToolCall(event.at, made.name, made.arguments, made.call_id))
        elif event.name == TOOL_RESULT:
            came = _ToolResult.model_validate(event.fields)
            for call in calls:
                if call.call_id == came.call_id:
                    call.result, call.error = came.result, came.error
    return calls


def _apply(turn: AgentTurn, event: Event) -> None:
    fields = event.fields
    match event.name:
        case "turn_decided":
            turn.decided_at = event.at
        case "answer_started":
            turn.ahead = float(fields.get("ahead") or 0.0)
        case "caller_text":
            turn.caller = printable(str(fields.get("text", "")))
        case "first_token":
            turn.tokenise = fields.get("tokenise")
            turn.first_token = fields.get("first_token")
        case "first_audio":
            turn.first_audio_at = event.at
            turn.saved = float(fields.get("saved") or 0.0)
        case "agent_text":
            turn.pieces.append(printable(str(fields.get("text", ""))))
        case "answer_finished":
            turn.finished = True
        case "interrupted":
            turn.interrupted_at = event.at
            turn.heard_seconds = fields.get("heard_seconds")
            turn.heard_text = printable(str(fields.get("heard_text") or ""))
        case "heard":
            turn.heard_text = printable(str(fields.get("text") or ""))
