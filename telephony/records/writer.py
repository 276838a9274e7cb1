"""Writes entries to the database, in a thread of its own: a call never waits for it.

Entries that are there together are written together. When the database cannot be reached they go to
a file (:mod:`telephony.records.spill`) and are taken in from there, in order, once it can be.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TypeAlias

from loguru import logger
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent.record_settings import NoticeSettings
from telephony.records.entry import Entry
from telephony.records.migration import migrate
from telephony.records.spill import Spill, left_behind
from telephony.records.storing import store

REFUSED = "refused.jsonl"
"""The file with entries that the database does not take."""
LONGEST_QUEUE = 20_000
"""Entries, some minutes of a busy gateway. Those that find no place go to the file at once."""
_LARGEST_BATCH = 500
_GATHER_SECONDS = 0.05
"""So long a first entry waits for others; a process that is killed loses no more than this."""
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 5.0

_Asked: TypeAlias = "Entry | threading.Event | None"


class _Outcome(Enum):
    """What came of an attempt to use the database."""

    DONE = auto()
    LOST = auto()
    """It cannot be reached; try again."""
    REFUSED = auto()
    """It can, and does not take this."""


class Writer:
    """Takes entries and writes them."""

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        process_id: str,
        webhooks: Sequence[NoticeSettings] = (),
        *,
        beside: Callable[[Engine], None] = lambda engine: None,
        noticed: Callable[[], None] = lambda: None,
        longest_queue: int = LONGEST_QUEUE,
    ):
        """Prepare to write.

        Args:
            engine: Of the database.
            directory: Where entries wait for it, and those of earlier processes do.
            process_id: Of this process.
            webhooks: Who is told of calls.
            beside: Called between two batches when the database can be reached: what else is to be
                done with it.
            noticed: Called from the writer's thread when there are new notices to deliver.
            longest_queue: Entries that wait in memory.
        """
        self._engine = engine
        self._directory = directory
        self._webhooks = webhooks
        self._beside = beside
        self._noticed = noticed
        self._spill = Spill(directory, process_id)
        self._queue: queue.Queue[_Asked] = queue.Queue(longest_queue)
        self._ready = False
        self._lost = False
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    def start(self) -> None:
        """Bring the tables up to date and begin to write.

        A database that cannot be reached now is tried again and again.

        Raises:
            ValueError: The tables are of a newer version.
        """
        self._reach()
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Have an entry written, soon; never waits."""
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._keep([entry])

    def flush(self, timeout: float) -> bool:
        """Wait until all that has been put is in the database or in the file.

        Returns:
            False if that took longer than ``timeout`` seconds.
        """
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout)
        except queue.Full:
            return False
        return done.wait(timeout)

    def stop(self, timeout: float) -> None:
        """Write what has been put, and stop; what the database does not take in time is kept."""
        self._stopping.set()
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout)
            self._thread.join(timeout)
        rest: list[Entry] = []
        with contextlib.suppress(queue.Empty):
            while True:
                asked = self._queue.get_nowait()
                if isinstance(asked, Entry):
                    rest.append(asked)
        if rest:
            self._keep(rest)
        self._spill.close()

    # ---- the thread

    def _run(self) -> None:
        while True:
            entries, asked, last = self._gather()
            for begin in range(0, len(entries), _LARGEST_BATCH):
                self._write(entries[begin : begin + _LARGEST_BATCH])
            self._catch_up(now=last)
            if self._ready and not self._lost:
                self._attempt(partial(self._beside, self._engine))
            for event in asked:
                event.set()
            if last:
                return

    def _gather(self) -> tuple[list[Entry], list[threading.Event], bool]:
        entries: list[Entry] = []
        asked: list[threading.Event] = []
        try:
            item = self._queue.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            return entries, asked, False
        self._stopping.wait(_GATHER_SECONDS if isinstance(item, Entry) else 0)
        while item is not None:
            if isinstance(item, Entry):
                entries.append(item)
            else:
                asked.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return entries, asked, False
        return entries, asked, True

    def _write(self, entries: Sequence[Entry]) -> None:
        if self._spill.waiting or not self._ready:
            # In order: nothing overtakes what waits.
            self._keep(entries)
            self._catch_up()
        elif not self._stored(entries):
            self._keep(entries)

    def _stored(self, entries: Sequence[Entry]) -> bool:
        """Write entries; false if the database cannot be reached."""
        outcome = self._attempt(lambda: self._store(entries))
        if outcome is not _Outcome.REFUSED:
            return outcome is _Outcome.DONE
        # The database does not take one of them: the others are not to suffer.
        for place, entry in enumerate(entries):
            outcome = self._attempt(partial(self._store, [entry]))
            if outcome is _Outcome.REFUSED:
                self._refuse(entry)
            elif outcome is _Outcome.LOST:
                self._keep(entries[place:])
                break
        return True

    def _store(self, entries: Sequence[Entry]) -> None:
        with self._engine.begin() as connection:
            notices = store(connection, entries, self._webhooks)
        if notices:
            self._noticed()

    def _attempt(self, work: Callable[[], None]) -> _Outcome:
        # No message of an error is logged: it may hold what a caller said.
        try:
            work()
        except Exception as error:
            if _is_away(error):
                self._is_lost(error)
                return _Outcome.LOST
            logger.bind(error=type(error).__name__).error("Records: the database refuses")
            return _Outcome.REFUSED
        return _Outcome.DONE

    def _is_lost(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            logger.bind(error=type(error).__name__).error(
                "Records: the database cannot be reached; what happens is kept in a file"
            )
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _keep(self, entries: Sequence[Entry]) -> None:
        try:
            self._spill.append(entries)
        except OSError as error:
            logger.bind(errno=error.errno, entries=len(entries)).error(
                "Records: neither the database nor the file can be written; entries are lost"
            )

    def _refuse(self, entry: Entry) -> None:
        path = self._directory / REFUSED
        try:
            path.touch(mode=0o600)
            with path.open("a", encoding="utf-8") as file:
                file.write(entry.to_json() + "\n")
        except OSError as error:
            logger.bind(errno=error.errno).error("Records: a refused entry is lost")

    # ---- a database that comes back

    def _reach(self) -> None:
        """Bring the tables up to date, where the database can be reached.

        Raises:
            ValueError: They are of a newer version.
        """
        try:
            migrate(self._engine)
        except Exception as error:
            if not _is_away(error):
                raise
            self._is_lost(error)
            return
        self._ready = self._attempt(partial(self._beside, self._engine)) is _Outcome.DONE
        if self._ready:
            self._take_in_left_behind()

    def _catch_up(self, now: bool = False) -> None:
        """Take in what waits, if it is time to try."""
        if self._ready and not self._lost and not self._spill.waiting:
            return
        if time.monotonic() < self._retry_at and not now:
            return
        if not self._ready:
            try:
                self._reach()
            except Exception as error:
                self._is_lost(error)
        while self._ready:
            entries, size = self._spill.read()
            if not self._take_in(entries):
                return
            if not size:
                break
            self._spill.drop(size)
        if self._ready and self._lost:
            self._lost = False
            logger.info("Records: the database can be reached again")

    def _take_in(self, entries: list[Entry]) -> bool:
        """Write entries that waited; false if the database cannot be reached."""
        # Entries that found the queue full overtook those in it.
        entries.sort(key=lambda entry: (entry.call_id, entry.seq))
        for begin in range(0, len(entries), _LARGEST_BATCH):
            if not self._stored(entries[begin : begin + _LARGEST_BATCH]):
                return False
        return True

    def _take_in_left_behind(self) -> None:
        for path, entries in left_behind(self._directory):
            if not self._take_in(entries):
                break
            logger.bind(file=path.name, entries=len(entries)).info("Records: taken in")


def _is_away(error: Exception) -> bool:
    """Whether an error is of the database or the way to it, and not of what was to be written."""
    gone = isinstance(error, DBAPIError) and error.connection_invalidated
    return gone or isinstance(error, (OperationalError, PoolTimeoutError, OSError))
