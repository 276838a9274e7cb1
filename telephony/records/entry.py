"""One event of a call, and what it changes in the tables: what goes from the call to the writer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.events import JSON

OFFERED = "call_offered"
STARTED = "call_started"
TRANSFERRED = "call_transferred"
ENDED = "call_ended"


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        call_id: The call's row.
        seq: Counts the call's events from 0.
        at: Unix seconds.
        name: The event's.
        fields: The event's.
        call: Columns of the call's row; with ``sid``, the row is new.
        turn: The number of the turn that it belongs to, if it changes one.
        turn_columns: Columns of the turn's row.
        tool: Columns of a tool call's row, by its ``seq``.
        notice: What webhooks are told, if they are.
        conceal: Private values, to be masked in what has been written of the call.
    """

    call_id: str
    seq: int
    at: float
    name: str
    fields: dict[str, JSON]
    call: dict[str, Any] = field(default_factory=dict)
    turn: int | None = None
    turn_columns: dict[str, Any] = field(default_factory=dict)
    tool: dict[str, Any] = field(default_factory=dict)
    notice: dict[str, JSON] | None = None
    conceal: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Entry:
        """Read a line of :meth:`to_json`.

        Raises:
            ValueError: It is not one, as when the process died while it wrote it.
        """
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"not an entry of a record: {error}") from error


def clean(value: JSON) -> JSON:
    """A value without the characters that no database takes: NUL and halves of pairs."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {str(clean(name)): clean(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:
        # Neither is JSON: infinity and what is no number.
        return str(value)
    return value
