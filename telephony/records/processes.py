"""Which processes are alive, and what becomes of the calls of those that are not.

Each process renews its lease in the table ``processes``. One whose lease has run out is held for
dead, or, on the same machine, one whose process id is gone. A process that could not reach the
database for so long, but lives, takes its calls back.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loguru import logger
from sqlalchemy import Connection, delete, func, select, update

from agent.events import JSON
from agent.record_settings import NoticeSettings
from telephony.records.database import upsert
from telephony.records.entry import ENDED, Entry
from telephony.records.recorder import notice_call
from telephony.records.schema import CALLS, EVENTS, PROCESSES
from telephony.records.storing import DIED_SEQ, add_events, add_notices

PROCESS_DIED = "process_died"


class Lease:
    """The lease of this process.

    Attributes:
        process_id: Names it in the tables.
    """

    def __init__(self, seconds: float):
        """Take a lease to be renewed well within ``seconds``."""
        self.process_id = uuid.uuid4().hex
        self._seconds = seconds
        self._machine = _machine()
        self._started: float | None = None

    def renew(self, connection: Connection, now: float) -> None:
        """Say that this process is alive.

        Args:
            connection: In a transaction.
            now: Unix seconds.
        """
        if self._started is None:
            self._started = now
        row = {
            "id": self.process_id,
            "machine": self._machine,
            "pid": os.getpid(),
            "started_at": self._started,
            "seen_at": now,
            "stopped_at": None,
        }
        upsert(connection, PROCESSES, [row], replace=lambda name: name != "id")
        self._take_back(connection)

    def end(self, connection: Connection, now: float) -> None:
        """Say that this process has stopped as it should."""
        mine = PROCESSES.c.id == self.process_id
        connection.execute(update(PROCESSES).where(mine).values(stopped_at=now))

    def end_broken_off(
        self, connection: Connection, now: float, webhooks: Iterable[NoticeSettings] = ()
    ) -> list[str]:
        """Write the end of calls whose process has died.

        Args:
            connection: In a transaction.
            now: Unix seconds.
            webhooks: Who is told.

        Returns:
            The calls' SIDs.
        """
        entries, sids = [], []
        for call in broken_off(connection, now, self._seconds):
            ended = {"ended_at": call["last_at"], "cause": PROCESS_DIED}
            still_open = (CALLS.c.id == call["id"], CALLS.c.ended_at.is_(None))
            # Another process may be doing the same.
            if connection.execute(update(CALLS).where(*still_open).values(ended)).rowcount:
                told = notice_call(call | ended)
                notice: dict[str, JSON] = {"event": ENDED, "at": now, "call": told}
                fields: dict[str, JSON] = {"cause": PROCESS_DIED}
                entries.append(
                    Entry(call["id"], DIED_SEQ, now, ENDED, fields, ended, notice=notice)
                )
                sids.append(call["sid"])
        add_events(connection, entries)
        add_notices(connection, entries, webhooks)
        return sids

    def _take_back(self, connection: Connection) -> None:
        lost = (CALLS.c.process_id == self.process_id, CALLS.c.cause == PROCESS_DIED)
        ids = connection.scalars(select(CALLS.c.id).where(*lost)).all()
        if ids:
            logger.bind(calls=len(ids)).warning("This process was held for dead")
            connection.execute(
                delete(EVENTS).where(EVENTS.c.call_id.in_(ids), EVENTS.c.seq == DIED_SEQ)
            )
            connection.execute(update(CALLS).where(*lost).values(ended_at=None, cause=None))


def broken_off(connection: Connection, now: float, lease: float) -> list[dict[str, Any]]:
    """The calls that have no end and whose process is dead.

    Args:
        connection: To the database.
        now: Unix seconds.
        lease: Seconds for which a process may be silent.

    Returns:
        Their rows, and as ``last_at`` when their last event was.
    """
    unfinished = (
        select(CALLS, PROCESSES, func.max(EVENTS.c.at).label("last_at"))
        .join(PROCESSES)
        .outerjoin(EVENTS)
        .where(CALLS.c.ended_at.is_(None))
        .group_by(CALLS.c.id, PROCESSES.c.id)
        .order_by(CALLS.c.opened_at)
    )
    machine = _machine()
    found = []
    for row in connection.execute(unfinished):
        values = row._mapping
        process = {column.name: values[column] for column in PROCESSES.columns}
        if not _lives(process, now, lease, machine):
            call = {column.name: values[column] for column in CALLS.columns}
            found.append(call | {"last_at": values["last_at"] or call["opened_at"]})
    return found


def _lives(process: dict[str, Any], now: float, lease: float, machine: str | None) -> bool:
    if process["stopped_at"] is not None or process["seen_at"] < now - lease:
        return False
    if machine is None or process["machine"] != machine:
        return True
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _machine() -> str | None:
    """What two processes have in common that see each other's process ids; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
