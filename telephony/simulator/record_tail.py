"""Follows an agent's record of a call while it is being written.

Our gateway's is in its database. Any other server may write a file of JSON objects, one a line,
each with ``at`` (Unix seconds), ``event`` (a name) and ``call_sid``.
"""

import json
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from telephony.records.database import database_url, open_database
from telephony.records.schema import CALLS, EVENTS
from telephony.simulator.agent_records import Event, read_event


class RecordTail(Protocol):
    """One call's record.

    Attributes:
        events: All that have been read.
    """

    events: list[Event]

    def read(self) -> list[Event]:
        """Take what was added since the last time, and return it.

        Raises:
            ValueError: The record is not as it should be; the message says where and how.
        """
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


def tail_of_call(records: str | Path, call_sid: str) -> RecordTail:
    """Follow the record of a call, which need not have begun.

    Args:
        records: SQLAlchemy's address of a gateway's database, the path of its SQLite file, or a
            file ``*.jsonl`` of any server.
        call_sid: Which call.

    Raises:
        ValueError: The database is of a kind that cannot be read.
    """
    if str(records).endswith(".jsonl"):
        return JsonlTail(Path(records), call_sid)
    return DatabaseTail(str(records), call_sid)


class JsonlTail:
    """Follows a call in a file of many.

    Attributes:
        events: All that have been read.
    """

    def __init__(self, path: Path, call_sid: str) -> None:
        """Follow a file that need not exist yet."""
        self.events: list[Event] = []
        self._path = path
        self._call_sid = call_sid
        self._offset = 0

    def read(self) -> list[Event]:
        """Take what was added; a line that is still being written waits for the next time.

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
        new = [event for line in whole.splitlines() if (event := self._parse(line)) is not None]
        self.events += new
        return new

    def close(self) -> None:
        """Nothing is open."""

    def _parse(self, line: bytes) -> Event | None:
        """The event of a line; None if it is another call's."""
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and fields.get("call_sid") != self._call_sid:
                return None
            return read_event(fields)
        except json.JSONDecodeError:
            problem = "expected a JSON object with at and event"
        except ValueError as error:
            problem = str(error)
        raise ValueError(f"{self._path}: {problem}, in {line!r}")


class DatabaseTail:
    """Follows a call in a gateway's database.

    Attributes:
        events: All that have been read.
    """

    def __init__(self, records: str, call_sid: str) -> None:
        """Follow a call of a database that need not exist yet."""
        self.events: list[Event] = []
        self._url = database_url(records)
        self._engine: Engine = open_database(self._url, writing=False)
        self._call_sid = call_sid
        self._last: dict[str, int] = {}

    def read(self) -> list[Event]:
        """Take what was added; nothing while there is no database, or no call in it.

        Raises:
            ValueError: A tool's event is without its fields.
        """
        file = self._url.database
        if self._url.get_backend_name() == "sqlite" and not Path(file or "").exists():
            return []
        this = select(CALLS.c.id, CALLS.c.opened_at).where(CALLS.c.sid == self._call_sid)
        new = []
        try:
            with self._engine.connect() as connection:
                for call_id, _ in connection.execute(this.order_by(CALLS.c.opened_at)):
                    later = EVENTS.c.seq > self._last.get(call_id, -1)
                    added = select(EVENTS).where(EVENTS.c.call_id == call_id, later)
                    for row in connection.execute(added.order_by(EVENTS.c.seq)).mappings():
                        fields = {**row["fields"], "at": row["at"], "event": row["name"]}
                        new.append(read_event(fields))
                        self._last[call_id] = row["seq"]
        except SQLAlchemyError:
            # The gateway has not made its tables yet, or the database is away for a while.
            pass
        self.events += new
        return new

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()
