"""Erases calls: those of a number, and those that are too old."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from sqlalchemy import ColumnElement, Connection, Engine, and_, case, delete, func, or_, select

from telephony.records.database import in_pieces
from telephony.records.schema import CALLS, PROCESSES

_AT_ONCE = 100
"""Calls of one transaction: others write in between."""


def of_number(number: str) -> ColumnElement[bool]:
    """The condition that a call was with a number: it called us, or we called it.

    Args:
        number: As Twilio writes it (E.164), or with blanks, brackets and dashes in it.

    Raises:
        ValueError: It has no digits.
    """
    plain = "".join(char for char in number if char not in " ()-./")
    if not any(char.isdecimal() for char in plain):
        raise ValueError(f"expected a telephone number such as +15550100001, got {number!r}")
    party = case((CALLS.c.direction == "outbound", CALLS.c.called), else_=CALLS.c.caller)
    return party == plain


def ended_before(at: float) -> ColumnElement[bool]:
    """The condition that a call ended before a time, in Unix seconds."""
    return CALLS.c.ended_at < at


def erase(engine: Engine, condition: ColumnElement[bool], most: int | None = None) -> list[str]:
    """Erase calls with all that belongs to them, their recordings' files among it.

    Args:
        engine: Of the database.
        condition: Which calls; those that are still going on are left alone.
        most: At most so many; None: all.

    Returns:
        The SIDs of those that were erased.
    """
    erased: list[str] = []
    while most is None or len(erased) < most:
        with engine.begin() as connection:
            calls = _some(connection, and_(condition, CALLS.c.ended_at.is_not(None)))
            # The file first: a call whose file could not be removed is tried again.
            gone = [call for call in calls if _remove(call["recording"])]
            for ids in in_pieces([call["id"] for call in gone]):
                connection.execute(delete(CALLS).where(CALLS.c.id.in_(ids)))
        erased += [call["sid"] for call in gone]
        if len(calls) < _AT_ONCE or len(gone) < len(calls):
            break
    if erased:
        _forget_processes(engine)
    return erased


def going_on(connection: Connection, condition: ColumnElement[bool]) -> int:
    """How many of the calls have no end."""
    count = select(func.count()).select_from(CALLS)
    return connection.scalar(count.where(condition, CALLS.c.ended_at.is_(None))) or 0


def wipe_traces(engine: Engine) -> None:
    """Have SQLite's journal forget what was erased, which it does by itself only when it is full.

    PostgreSQL's vacuum does its part by itself.
    """
    if engine.dialect.name == "sqlite":
        # Not within a transaction, which SQLAlchemy would begin.
        with contextlib.closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _some(connection: Connection, condition: ColumnElement[bool]) -> Sequence[Any]:
    chosen = select(CALLS.c.id, CALLS.c.sid, CALLS.c.recording).where(condition)
    return connection.execute(chosen.order_by(CALLS.c.opened_at).limit(_AT_ONCE)).mappings().all()


def _remove(recording: str | None) -> bool:
    if recording is None:
        return True
    try:
        Path(recording).unlink(missing_ok=True)
    except OSError as error:
        logger.bind(errno=error.errno).error("A recording cannot be erased, so its call stays")
        return False
    return True


def _forget_processes(engine: Engine) -> None:
    """Drop the processes that have stopped and of which no call is left."""
    with engine.begin() as connection:
        used = select(CALLS.c.process_id)
        connection.execute(
            delete(PROCESSES).where(
                or_(PROCESSES.c.stopped_at.is_not(None), PROCESSES.c.pid == 0),
                PROCESSES.c.id.not_in(used),
            )
        )
