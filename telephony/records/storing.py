"""Puts entries into the tables. The same entry twice changes nothing."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, select, update

from agent.record_settings import NoticeSettings
from telephony.records.database import in_pieces, upsert
from telephony.records.entry import Entry
from telephony.records.redaction import without
from telephony.records.schema import CALLS, EVENTS, NOTICES, PROCESSES, TOOL_CALLS, TURNS

DIED_SEQ = 2**31 - 1
"""``seq`` of the end that somebody else wrote for a process that had died."""


def store(
    connection: Connection, entries: Sequence[Entry], webhooks: Iterable[NoticeSettings] = ()
) -> int:
    """Put entries into the tables.

    Entries of a call that has been erased are dropped.

    Args:
        connection: In a transaction.
        entries: Each call's in order.
        webhooks: Who is told of calls.

    Returns:
        How many notices were added.
    """
    opened = [entry for entry in entries if "sid" in entry.call]
    _know_processes(connection, opened)
    upsert(connection, CALLS, (_whole(CALLS, entry.call) for entry in opened))
    known = _known(connection, {entry.call_id for entry in entries})
    entries = [entry for entry in entries if entry.call_id in known]

    add_events(connection, entries)
    _change(connection, CALLS, ("id",), _merged(((e.call_id,), e.call) for e in entries))
    _correct_ends(connection, entries)
    _turns(connection, entries)
    _tools(connection, entries)
    for entry in entries:
        if entry.conceal:
            _conceal(connection, entry.call_id, entry.conceal)
    return add_notices(connection, entries, webhooks)


def add_events(connection: Connection, entries: Iterable[Entry]) -> None:
    """Put the events of entries into their table."""
    names = ("call_id", "seq", "at", "name", "fields")
    upsert(connection, EVENTS, ({name: getattr(e, name) for name in names} for e in entries))


def add_notices(
    connection: Connection, entries: Iterable[Entry], webhooks: Iterable[NoticeSettings]
) -> int:
    """Put what webhooks are to be told among what is to be delivered.

    Returns:
        How many notices that makes.
    """
    rows = []
    for entry, webhook in itertools.product(entries, list(webhooks)):
        if entry.notice is None or entry.name not in webhook.events:
            continue
        # The same entry gives the same id: a notice that was delivered may come twice, no two
        # notices are taken for one.
        key = uuid.uuid5(uuid.NAMESPACE_URL, f"{webhook.url} {entry.call_id} {entry.seq}").hex
        rows.append(
            {
                "id": key,
                "call_id": entry.call_id,
                "url": webhook.url,
                "event": entry.name,
                "body": json.dumps({"id": key, **entry.notice}, ensure_ascii=False),
                "created_at": entry.at,
                "attempts": 0,
                "next_at": entry.at,
            }
        )
    upsert(connection, NOTICES, rows)
    return len(rows)


def _know_processes(connection: Connection, opened: Iterable[Entry]) -> None:
    """Of a process that never reached the database, only its calls tell."""
    first = {entry.call["process_id"]: entry.at for entry in opened}
    rows = ({"id": key, "pid": 0, "started_at": at, "seen_at": at} for key, at in first.items())
    upsert(connection, PROCESSES, rows)


def _known(connection: Connection, call_ids: set[str]) -> set[str]:
    known: set[str] = set()
    for ids in in_pieces(sorted(call_ids)):
        known.update(connection.scalars(select(CALLS.c.id).where(CALLS.c.id.in_(ids))))
    return known


def _correct_ends(connection: Connection, entries: Iterable[Entry]) -> None:
    """A process that was held for dead tells how its call really ended."""
    ended = [e.call_id for e in entries if "ended_at" in e.call]
    for ids in in_pieces(ended):
        connection.execute(
            delete(EVENTS).where(EVENTS.c.call_id.in_(ids), EVENTS.c.seq == DIED_SEQ)
        )


def _turns(connection: Connection, entries: Iterable[Entry]) -> None:
    turns = _merged(
        ((entry.call_id, entry.turn), entry.turn_columns)
        for entry in entries
        if entry.turn is not None
    )
    upsert(connection, TURNS, ({"call_id": key[0], "number": key[1]} for key in turns))
    _change(connection, TURNS, ("call_id", "number"), turns)


def _tools(connection: Connection, entries: Iterable[Entry]) -> None:
    tools = [(entry.call_id, entry.tool) for entry in entries if entry.tool]
    upsert(
        connection,
        TOOL_CALLS,
        (_whole(TOOL_CALLS, {"call_id": call, **tool}) for call, tool in tools if "name" in tool),
    )
    results = {
        (call, tool["seq"]): {name: tool[name] for name in ("result", "error", "returned_at")}
        for call, tool in tools
        if "name" not in tool
    }
    _change(connection, TOOL_CALLS, ("call_id", "seq"), results)


def _conceal(connection: Connection, call_id: str, words: Sequence[str]) -> None:
    """Mask private words in what has been written of a call."""
    for table in (EVENTS, TURNS, TOOL_CALLS):
        texts = [
            column.name
            for column in table.columns
            if column.name.endswith(("_text", "fields", "arguments", "result", "error"))
        ]
        key = [column.name for column in table.primary_key]
        changed = {}
        for row in connection.execute(select(table).where(table.c.call_id == call_id)).mappings():
            before = {name: row[name] for name in texts}
            after = {name: without(value, words) for name, value in before.items()}
            if after != before:
                changed[tuple(row[name] for name in key)] = after
        _change(connection, table, key, changed)


def _whole(table: Table, columns: Mapping[str, Any]) -> dict[str, Any]:
    """A new row with all of its columns, so that rows are alike."""
    return {column.name: columns.get(column.name) for column in table.columns}


def _merged(
    changes: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]],
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The changes of each row as one: the later ones win."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, columns in changes:
        if columns:
            rows.setdefault(key, {}).update(columns)
    return rows


def _change(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    rows: Mapping[tuple[Any, ...], Mapping[str, Any]],
) -> None:
    """Update rows by their key, in one statement for all that change the same columns."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for values, columns in rows.items():
        names = tuple(sorted(columns))
        row = {f"key_{name}": value for name, value in zip(key, values, strict=True)}
        alike.setdefault(names, []).append(row | {f"new_{name}": columns[name] for name in names})
    for names, parameters in alike.items():
        statement = (
            update(table)
            .where(*(table.c[name] == bindparam(f"key_{name}") for name in key))
            .values({name: bindparam(f"new_{name}") for name in names})
        )
        connection.execute(statement, parameters)
