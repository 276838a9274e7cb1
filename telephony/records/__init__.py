"""The records of all calls, in a database: calls, turns, events, tool calls.

Every event is written as it happens. A whole record ends with its cause; a call whose process died
is ended by the next one to look (``process_died``). docs/records.md describes the tables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from agent.record_settings import RecordSettings
from telephony.records.database import database_url, open_database
from telephony.records.entry import Entry
from telephony.records.processes import Lease
from telephony.records.recorder import CallRecorder
from telephony.records.redaction import Redaction
from telephony.records.upkeep import Upkeep
from telephony.records.writer import Writer

__all__ = ["CallRecorder", "CallRecords", "Redaction"]

_CALL_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STOP_SECONDS = 5.0


class CallRecords:
    """Where the calls of this process are recorded.

    Attributes:
        settings: As given.
        engine: The database's.
        noticed: Called, from another thread, when webhooks are to be told something.
    """

    def __init__(
        self,
        settings: RecordSettings,
        now: Callable[[], float] = time.time,
    ):
        """Prepare; nothing is written before :meth:`start`.

        Args:
            settings: Which database, and the rest.
            now: Tells Unix time.

        Raises:
            ValueError: The directory cannot be made, or the database is of a kind that cannot be
                used.
        """
        try:
            settings.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            place = f"records.directory {settings.directory}"
            raise ValueError(f"{place}: {error.strerror or error}") from error
        self.settings = settings
        self.noticed: Callable[[], None] = lambda: None
        self.engine = open_database(database_url(settings.database_url))
        self._now = now
        self._lease = Lease(settings.lease_secs)
        self._open: set[str] = set()
        self._writer = Writer(
            self.engine,
            settings.directory,
            self._lease.process_id,
            settings.webhooks,
            beside=Upkeep(settings, self._lease, now).round,
            noticed=lambda: self.noticed(),
        )

    def start(self) -> None:
        """Bring the tables up to date, end what was broken off, and begin to write.

        Takes as long as the database does. One that cannot be reached is a line in the log: calls
        are recorded in a file meanwhile.

        Raises:
            ValueError: The tables are of a newer version than this one.
        """
        self._writer.start()

    def stop(self) -> None:
        """Write what is left, in some seconds at most; calls that go on are not recorded."""
        self._writer.stop(_STOP_SECONDS)
        if not self._open:
            try:
                with self.engine.begin() as connection:
                    self._lease.end(connection, self._now())
            except (SQLAlchemyError, OSError) as error:
                logger.bind(error=type(error).__name__).warning("Records: no sign of stopping")
        self.engine.dispose()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what has happened is written; false if that takes longer."""
        return self._writer.flush(timeout)

    def open(
        self,
        call_sid: str,
        *,
        caller: str | None = None,
        called: str | None = None,
        account_sid: str | None = None,
        direction: str = "inbound",
        agent: str | None = None,
        redaction: Redaction | None = None,
    ) -> CallRecorder:
        """Begin the record of a call, when its webhook comes or when it is dialled.

        Args:
            call_sid: Twilio's identifier.
            caller: The number that calls.
            called: The number that is called.
            account_sid: The account it belongs to.
            direction: ``inbound``, or ``outbound`` for one that we dialled.
            agent: The name of who answers.
            redaction: What is masked; None: nothing.

        Raises:
            ValueError: The SID could not be a Twilio identifier, or is being recorded already.
        """
        if _CALL_SID.fullmatch(call_sid) is None:
            raise ValueError("call_sid: expected letters, digits, - and _ (64 at most)")
        if call_sid in self._open:
            raise ValueError(f"{call_sid}: this call is being recorded already")
        self._open.add(call_sid)
        call = {
            "sid": call_sid,
            "caller": caller,
            "called": called,
            "account_sid": account_sid,
            "direction": direction,
            "agent": agent,
            "process_id": self._lease.process_id,
        }
        return CallRecorder(
            call,
            self._put,
            self._now,
            redaction or Redaction(),
            lambda: self._open.discard(call_sid),
        )

    def _put(self, entry: Entry) -> None:
        self._writer.put(entry)
