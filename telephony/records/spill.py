"""Where entries wait for a database that cannot be reached: a file for each process.

A process holds a lock on its file. A file that nobody holds is of a process that has ended; whoever
comes next takes it in.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from loguru import logger

from telephony.records.entry import Entry

_PATTERN = "waiting-*.jsonl"


class Spill:
    """The file of this process; may be used by several threads."""

    def __init__(self, directory: Path, process_id: str):
        """Use a file that is made when it is needed.

        Args:
            directory: Where it lies.
            process_id: Whose it is.
        """
        self._path = directory / f"waiting-{process_id}.jsonl"
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Entries are waiting."""
        return self._file is not None

    def append(self, entries: Iterable[Entry]) -> None:
        """Keep entries.

        Raises:
            OSError: They cannot be written.
        """
        with self._lock:
            if self._file is None:
                self._file = _open(self._path)
            for entry in entries:
                self._file.write(entry.to_json().encode() + b"\n")
            self._file.flush()

    def read(self) -> tuple[list[Entry], int]:
        """All that wait, and how many bytes they take."""
        with self._lock:
            if self._file is None:
                return [], 0
            content = self._path.read_bytes()
        return list(_parsed(content, self._path)), len(content)

    def drop(self, size: int) -> None:
        """Forget the first bytes; without any left, the file."""
        with self._lock:
            if self._file is None:
                return
            rest = self._path.read_bytes()[size:]
            if rest:
                beside = self._path.with_suffix(".new")
                file = _open(beside)
                file.write(rest)
                file.flush()
                os.replace(beside, self._path)
                self._file.close()
                self._file = file
            else:
                self._path.unlink()
                self._file.close()
                self._file = None

    def close(self) -> None:
        """Let go of the file; what waits in it is taken in by whoever comes next."""
        with self._lock:
            if self._file is not None:
                self._file.close()


def left_behind(directory: Path) -> Iterator[tuple[Path, list[Entry]]]:
    """The files of processes that have ended.

    Each is held while the caller looks at it, and removed when the caller asks for the next one:
    do so only once its entries are in the database.

    Args:
        directory: Where they lie.
    """
    for path in sorted(directory.glob(_PATTERN)):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue
        with file:
            if _hold(file):
                yield path, list(_parsed(file.read(), path))
                path.unlink(missing_ok=True)


def held(directory: Path) -> int:
    """How many processes that are running have entries that wait."""
    count = 0
    for path in directory.glob(_PATTERN):
        try:
            with path.open("rb") as file:
                count += not _hold(file)
        except FileNotFoundError:
            continue
    return count


def _open(path: Path) -> IO[bytes]:
    path.touch(mode=0o600)
    file = path.open("ab")
    if not _hold(file):
        file.close()
        raise OSError(f"{path} is in use")
    return file


def _hold(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _parsed(content: bytes, path: Path) -> Iterator[Entry]:
    for line in content.splitlines():
        try:
            yield Entry.from_json(line)
        except ValueError:
            # Cut off when the process was killed, or when the disk was full.
            logger.bind(file=path.name).warning("A line of a waiting record is not whole")
