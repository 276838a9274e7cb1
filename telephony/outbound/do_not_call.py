"""The list of those who are not called: a text file with a number a line.

It is read again whenever it has changed, so that whoever keeps it needs no restart. A file that
cannot be read lets nobody be called.
"""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_ORNAMENTS = re.compile(r"[\s().-]")


class DoNotCall:
    """Numbers that are not called."""

    def __init__(self, path: Path):
        """Use a file; empty lines and what follows a # do not count.

        Args:
            path: The file; numbers in E.164, with spaces, dots, dashes or parentheses in them.
        """
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._numbers: frozenset[str] = frozenset()

    def __contains__(self, number: str) -> bool:
        """Whether a number must not be called.

        Raises:
            ValueError: The file cannot be read, or a line of it is no number; names it.
        """
        self._read()
        return number in self._numbers

    def add(self, number: str) -> None:
        """Never call a number again.

        Raises:
            ValueError: It is none, or the file cannot be written.
        """
        if _NUMBER.fullmatch(number) is None:
            raise ValueError(f"expected a number such as +15550100003 (E.164), got {number!r}")
        if self._path.exists() and number in self:
            return
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
            with self._path.open("a", encoding="utf-8") as file:
                file.write(("" if not content or content.endswith(b"\n") else "\n") + number + "\n")
        except OSError as error:
            raise ValueError(f"do_not_call {self._path}: {error.strerror or error}") from error

    def _read(self) -> None:
        try:
            state = self._path.stat()
            read_at = (state.st_mtime_ns, state.st_size)
            if read_at == self._read_at:
                return
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"do_not_call {self._path}: {error}") from error
        numbers = set()
        for place, line in enumerate(lines, 1):
            plain = _ORNAMENTS.sub("", line.partition("#")[0])
            if plain and _NUMBER.fullmatch(plain) is None:
                raise ValueError(
                    f"do_not_call {self._path}, line {place}: expected a number (E.164)"
                )
            if plain:
                numbers.add(plain)
        self._numbers, self._read_at = frozenset(numbers), read_at
