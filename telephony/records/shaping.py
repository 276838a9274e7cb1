"""Gathers a call's events into the columns of its turns and tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.events import JSON

_TIMES = {
    "turn_decided": "decided_at",
    "answer_started": "started_at",
    "first_audio": "first_audio_at",
    "answer_finished": "finished_at",
    "interrupted": "interrupted_at",
    "heard": "heard_at",
}
"""Columns that hold when an event came."""
_FIELDS = {
    "answer_started": {"ahead": "ahead"},
    "first_token": {"tokenise": "tokenise", "first_token": "first_token"},
    "first_audio": {"first_audio": "first_audio", "saved": "saved"},
    "caller_text": {"text": "caller_text"},
    "answer_finished": {"text": "agent_text"},
    "interrupted": {"heard_seconds": "heard_seconds", "heard_text": "heard_text"},
    "heard": {"text": "heard_text"},
}
"""Columns that hold fields of an event."""

_LAST_TURN = 2**31 - 1


class Shaper:
    """Knows of one call what later events build on."""

    def __init__(self) -> None:
        self._spoke: dict[str, float] = {}
        self._said: dict[int, str] = {}
        self._tools: dict[str, int] = {}

    def turn(self, at: float, name: str, fields: Mapping[str, JSON]) -> dict[str, Any]:
        """The columns of its turn that an event sets."""
        if name == "caller_speech_started":
            self._spoke.setdefault("caller_started_at", at)
        elif name == "caller_speech_stopped":
            self._spoke["caller_stopped_at"] = at
        number = fields.get("turn")
        if not isinstance(number, int) or not 0 <= number <= _LAST_TURN:
            return {}
        columns: dict[str, Any] = {
            column: fields[field]
            for field, column in _FIELDS.get(name, {}).items()
            if field in fields
        }
        if name in _TIMES:
            columns[_TIMES[name]] = at
        if name == "turn_decided":
            columns |= self._spoke
            self._spoke = {}
        elif name == "agent_text":
            # The whole so far, so that no piece is needed to write the next one.
            self._said[number] = self._said.get(number, "") + str(fields.get("text", ""))
            columns["agent_text"] = self._said[number]
        elif name == "heard":
            self._said.pop(number, None)
        return columns

    def tool(self, seq: int, at: float, name: str, fields: Mapping[str, JSON]) -> dict[str, Any]:
        """The columns of its tool call that an event sets, with the ``seq`` of the call's row."""
        call_id = fields.get("call_id")
        if name == "tool_call":
            if isinstance(call_id, str):
                self._tools[call_id] = seq
            return {
                "seq": seq,
                "turn": fields.get("turn"),
                "tool_call_id": call_id,
                "name": fields.get("name"),
                "arguments": fields.get("arguments") or {},
                "called_at": at,
            }
        if name == "tool_result" and isinstance(call_id, str) and call_id in self._tools:
            return {
                "seq": self._tools[call_id],
                "result": fields.get("result"),
                "error": fields.get("error"),
                "returned_at": at,
            }
        return {}

    def conceal(self, mask: Any) -> None:
        """Mask what is kept of turns; ``mask`` maps a text to one without what is private."""
        self._said = {number: mask(text) for number, text in self._said.items()}
