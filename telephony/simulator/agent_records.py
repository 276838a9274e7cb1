"""What an agent writes down about a call: its events, and the answers and tool calls in them.

docs/checks.md lists the events that are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

TOOL_CALL, TOOL_RESULT = "tool_call", "tool_result"


@dataclass(frozen=True)
class Event:
    """One event of a call's record.

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


def read_event(fields: dict[str, Any]) -> Event:
    """Make an event of what a record holds.

    Args:
        fields: Its ``at``, its ``event`` and everything else.

    Raises:
        ValueError: It is no event, or a tool's without its fields; the message says what is wrong.
    """
    try:
        event = Event(float(fields.pop("at")), str(fields.pop("event")), fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("expected a JSON object with at and event") from error
    if shape := _SHAPES.get(event.name):
        try:
            shape.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"{field}: {problem['msg']}") from None
    return event


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
