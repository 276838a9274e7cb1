"""The record of one call."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from agent.events import JSON
from telephony.records.entry import ENDED, OFFERED, STARTED, TRANSFERRED, Entry, clean
from telephony.records.redaction import Redaction, Redactor
from telephony.records.shaping import Shaper

_AS_THEY_ARE = frozenset({OFFERED, STARTED, TRANSFERRED, ENDED, "recording"})
"""Events with the call's own data, without which the record could not be found."""
_NOT_SAID = frozenset({"turn", "call_id"})
"""Fields that nobody said."""
_KEYS = frozenset({"digit", "digits"})
"""Fields with keys that were pressed."""


class CallRecorder:
    """Takes the events of one call; an :class:`agent.events.CallObserver`.

    Nothing here waits: events go to the writer's queue, and writing never fails a call.
    """

    def __init__(
        self,
        call: dict[str, Any],
        put: Callable[[Entry], None],
        now: Callable[[], float],
        redaction: Redaction,
        ended: Callable[[], None],
    ):
        """Begin the record.

        Args:
            call: The columns of the call's row that are known.
            put: Takes the entries.
            now: Tells Unix time.
            redaction: What is masked.
            ended: Called once, when the record has its end.
        """
        self._call = {**call, "id": uuid.uuid4().hex, "opened_at": now()}
        self._put = put
        self._now = now
        self._redactor = Redactor(redaction)
        self._masks_keys = bool(redaction.kinds)
        self._shaper = Shaper()
        self._on_end = ended
        self._over = False
        self._seq = 0
        # Per turn: what the agent said, and how much of it has been written.
        self._said: dict[int, str] = {}
        self._written: dict[int, int] = {}
        shown = ("sid", "caller", "called", "direction", "agent")
        fields = {name: self._call[name] for name in shown if self._call.get(name)}
        fields["call_sid"] = fields.pop("sid")
        self._enter(OFFERED, fields, dict(self._call))

    def event(self, name: str, /, **fields: JSON) -> None:
        """Take an event at the time it is now; after ``call_ended`` nothing is added."""
        if self._over:
            return
        cleaned = {key: clean(value) for key, value in fields.items()}
        if self._redactor.active and name not in _AS_THEY_ARE:
            self._redacted(name, cleaned)
        else:
            self._settle_all(name)
            self._enter(name, cleaned, self._columns(name, cleaned))
        if name == ENDED:
            self._over = True
            self._on_end()

    def afterwards(self, name: str, /, **fields: JSON) -> None:
        """Take an event of a call that has left its agent, and so has its end already."""
        self._enter(name, {key: clean(value) for key, value in fields.items()})

    def close(self, cause: str) -> None:
        """Write the call's end, unless it has been written."""
        self.event(ENDED, cause=cause)

    # ---- what is masked

    def _redacted(self, name: str, fields: dict[str, JSON]) -> None:
        turn = fields.get("turn")
        number = turn if isinstance(turn, int) else -1
        if name == "agent_text":
            self._said[number] = self._said.get(number, "") + str(fields.get("text", ""))
            self._settle(number)
            return
        if name in ("answer_finished", "interrupted", "heard"):
            self._settle(number, whole=True)
        conceal: list[str] = []
        if name == "tool_call" and isinstance(fields.get("arguments"), dict):
            arguments: Any = fields["arguments"]
            conceal = self._redactor.keep_private(arguments)
            if conceal:
                self._shaper.conceal(self._redactor.text)
        whole = self._said.get(number, "")
        for key, value in fields.items():
            if key in _KEYS and self._masks_keys:
                fields[key] = "[digits]"
            elif isinstance(value, str) and name in ("interrupted", "heard"):
                fields[key] = self._redactor.beginning(value, whole)
            elif key not in _NOT_SAID and (name, key) != ("tool_call", "name"):
                fields[key] = self._redactor.value(value)
        if name == "heard":
            self._said.pop(number, None)
            self._written.pop(number, None)
        self._enter(name, fields, conceal=conceal)

    def _settle(self, turn: int, whole: bool = False) -> None:
        """Write what is certain of the agent's text: a number may go on in the next piece."""
        said = self._said.get(turn, "")
        rest = said[self._written.get(turn, 0) :]
        ready = rest if whole else rest[: self._redactor.settled(rest)]
        if ready:
            self._written[turn] = len(said) - len(rest) + len(ready)
            self._enter("agent_text", {"turn": turn, "text": self._redactor.text(ready)})

    def _settle_all(self, name: str) -> None:
        if name == ENDED:
            for turn in list(self._said):
                self._settle(turn, whole=True)

    # ---- what is written

    def _columns(self, name: str, fields: dict[str, JSON]) -> dict[str, Any]:
        """The columns of the call's row that an event sets."""
        if name == STARTED:
            return {"answered_at": self._now()}
        if name == TRANSFERRED:
            return {"transferred_to": fields.get("to")}
        if name == "recording":
            return {"recording": fields.get("path")}
        if name == ENDED:
            return {"ended_at": self._now(), "cause": fields.get("cause")}
        return {}

    def _enter(
        self,
        name: str,
        fields: dict[str, JSON],
        call: dict[str, Any] | None = None,
        conceal: list[str] | None = None,
    ) -> None:
        at, seq = self._now(), self._seq
        self._seq += 1
        call = call or {}
        self._call |= call
        columns = self._shaper.turn(at, name, fields)
        turn = fields["turn"] if columns else None
        notice: dict[str, JSON] | None = None
        if name in (STARTED, TRANSFERRED, ENDED):
            notice = {"event": name, "at": at, "call": self._told()}
        self._put(
            Entry(
                self._call["id"],
                seq,
                at,
                name,
                fields,
                call,
                turn if isinstance(turn, int) else None,
                columns,
                self._shaper.tool(seq, at, name, fields),
                notice,
                conceal or [],
            )
        )

    def _told(self) -> dict[str, JSON]:
        """The call as webhooks are told of it."""
        return notice_call(self._call)


def notice_call(call: dict[str, Any]) -> dict[str, JSON]:
    """A call's row as webhooks are told of it: who and when, nothing that was said.

    Args:
        call: The columns of the row.
    """
    names = "sid direction caller called agent opened_at answered_at ended_at cause transferred_to"
    told: dict[str, JSON] = {"id": call["id"]}
    return told | {name: call.get(name) for name in names.split()}
