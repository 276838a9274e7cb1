"""Finds calls and tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select

from telephony.records.erasing import of_number
from telephony.records.processes import PROCESS_DIED, broken_off
from telephony.records.schema import CALLS, EVENTS, TOOL_CALLS, TURNS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """Which calls.

    Attributes:
        number: With this number; None: with any.
        since: That began at this time or later, in Unix seconds.
        before: That began before this time.
        agent: Of the agent with this name.
    """

    number: str | None = None
    since: float | None = None
    before: float | None = None
    agent: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """The same in SQL.

        Raises:
            ValueError: The number is none.
        """
        conditions: list[ColumnElement[bool]] = [CALLS.c.id.is_not(None)]
        if self.number is not None:
            conditions.append(of_number(self.number))
        if self.since is not None:
            conditions.append(CALLS.c.opened_at >= self.since)
        if self.before is not None:
            conditions.append(CALLS.c.opened_at < self.before)
        if self.agent is not None:
            conditions.append(CALLS.c.agent == self.agent)
        return and_(*conditions)


def find_calls(
    connection: Connection,
    condition: ColumnElement[bool],
    now: float,
    lease: float,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Find calls; one that was broken off and has not been ended yet is shown as ended.

    Args:
        connection: To the database.
        condition: Which ones.
        now: Unix seconds.
        lease: Seconds for which a process may be silent.
        limit: The latest so many; None: all.

    Returns:
        Their rows, the earliest first.
    """
    latest = select(CALLS).where(condition).order_by(CALLS.c.opened_at.desc()).limit(limit)
    calls = [dict(row) for row in connection.execute(latest).mappings()][::-1]
    if any(call["ended_at"] is None for call in calls):
        broken = {call["id"]: call["last_at"] for call in broken_off(connection, now, lease)}
        for call in calls:
            if call["id"] in broken:
                call |= {"ended_at": broken[call["id"]], "cause": PROCESS_DIED}
    return calls


def turns_of(connection: Connection, call_id: str) -> list[Row]:
    """The turns of a call, in order."""
    of_call = select(TURNS).where(TURNS.c.call_id == call_id)
    return [dict(row) for row in connection.execute(of_call.order_by(TURNS.c.number)).mappings()]


def tool_calls_of(connection: Connection, call_id: str) -> list[Row]:
    """The tool calls of a call, in order."""
    of_call = select(TOOL_CALLS).where(TOOL_CALLS.c.call_id == call_id)
    return [dict(row) for row in connection.execute(of_call.order_by(TOOL_CALLS.c.seq)).mappings()]


def events_of(connection: Connection, call: Row) -> Iterator[dict[str, Any]]:
    """The events of a call in the shape of a file of records: ``at``, ``event``, ``call_sid``."""
    of_call = select(EVENTS).where(EVENTS.c.call_id == call["id"])
    for row in connection.execute(of_call.order_by(EVENTS.c.seq)).mappings():
        head = {"at": row["at"], "event": row["name"], "call_sid": call["sid"]}
        yield head | {name: value for name, value in row["fields"].items() if name not in head}
