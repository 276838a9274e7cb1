"""Each call's record: one JSON object a line, written as things happen.

``<directory>/<call sid>.jsonl`` holds ``{"at": unix seconds, "event": name, ...}`` for every event;
the names are those of :class:`agent.events.CallObserver`. A whole record ends with ``call_ended``
and its cause. Every line is handed to the system before the next one begins, so a process that dies
leaves all that had happened; its record has no end, and the next start writes one
(``process_died``).
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from loguru import logger

from agent.events import JSON

ENDED = "call_ended"
PROCESS_DIED = "process_died"
_CALL_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CallRecorder:
    """The record of one call; an :class:`agent.events.CallObserver`.

    Writing never fails a call: if the disk is full the record ends early and the log says so.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time):
        """Open a record, to be closed with :meth:`close`.

        Args:
            path: appended to; made with access for its owner alone.
            now: tells Unix time.

        Raises:
            OSError: if it cannot be opened.
            ValueError: if another recorder has it open: two calls of one SID.
        """
        self.path = path
        self._now = now
        path.touch(mode=0o600)
        self._file: IO[str] | None = path.open("a", encoding="utf-8")
        if not _lock(self._file):
            self._file.close()
            raise ValueError(f"{path}: this call is being recorded already")

    def event(self, name: str, /, **fields: JSON) -> None:
        """Append an event with the time it is now; after ``call_ended`` nothing is added."""
        if self._file is None:
            return
        try:
            self._file.write(_line({"at": self._now(), "event": name, **fields}))
            self._file.flush()
        except OSError as error:
            logger.bind(errno=error.errno).error("Call record cannot be written")
            self._abandon()
            return
        if name == ENDED:
            self._abandon()

    def close(self, cause: str) -> None:
        """Write the call's end, unless it has been written, and close the file."""
        self.event(ENDED, cause=cause)

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                logger.debug("Call record closed with a failed write")


class CallRecords:
    """The records of all calls, in one directory."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time):
        """Use a directory, made if it is not there.

        Args:
            directory: where the records lie.
            now: tells Unix time.

        Raises:
            ValueError: if the directory cannot be made or written.
        """
        self.directory = directory
        self._now = now
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"records_dir {directory}: {error.strerror or error}") from error

    def open(self, call_sid: str) -> CallRecorder:
        """Begin the record of a call.

        Raises:
            ValueError: if the SID could not be a Twilio identifier, or is being recorded already.
        """
        if _CALL_SID.fullmatch(call_sid) is None:
            raise ValueError("call_sid: expected letters, digits, - and _ (64 at most)")
        return CallRecorder(self.directory / f"{call_sid}.jsonl", self._now)

    def end_unfinished(self) -> list[str]:
        """Write the end of every record whose process died; returns their call SIDs.

        Call at start. Records that another running process is writing are left alone. A line cut
        off in the middle is dropped.
        """
        ended = []
        for path in sorted(self.directory.glob("*.jsonl")):
            with path.open("r+b") as file:
                if not _lock(file):
                    continue
                content = file.read()
                whole = content[: content.rfind(b"\n") + 1]
                file.seek(len(whole))
                file.truncate()
                if not _is_end(whole.splitlines()[-1:]):
                    end: dict[str, JSON] = {"at": self._now(), "event": ENDED}
                    file.write(_line({**end, "cause": PROCESS_DIED}).encode())
                    ended.append(path.stem)
        if ended:
            logger.bind(calls=len(ended)).warning("Calls of a process that died were found")
        return ended


def _line(fields: Mapping[str, JSON]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def _is_end(last_line: list[bytes]) -> bool:
    try:
        fields = json.loads(last_line[0])
    except (ValueError, IndexError):
        return False
    return isinstance(fields, dict) and fields.get("event") == ENDED


def _lock(file: IO[Any]) -> bool:
    """Claim a file for as long as it is open; false if it is claimed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
