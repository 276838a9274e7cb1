"""Lists of calls: whom to call from a CSV file, and what became of it into another.

The list has a line of names; ``to`` is a number in E.164, ``agent`` and ``time_zone`` may be there,
and every other column is a variable for what the agent says. The results have a line for each
attempt, written when it is over, so that a list that was broken off goes on where it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
COLUMNS = ("row", "to", "attempt", "outcome", "answered_by", "seconds", "call_sid", "at", "detail")


@dataclass(frozen=True)
class Entry:
    """Somebody to be called.

    Attributes:
        row: The line of the list, from 1, the names not counted.
        to: The number.
        agent: Who calls; None: whoever does by default.
        time_zone: Whose clocks tell whether they may be called; None: the agent's.
        variables: For what the agent says.
    """

    row: int
    to: str
    agent: str | None = None
    time_zone: str | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of one attempt.

    Attributes:
        outcome: ``answered``, ``voicemail``, ``machine``, ``busy``, ``no-answer``, ``failed``,
            ``canceled``, ``do_not_call`` or ``invalid``.
        answered_by: What machine detection found.
        seconds: Of the call.
        call_sid: The call, if there was one.
        detail: Why, in words.
    """

    outcome: str
    answered_by: str = ""
    seconds: int = 0
    call_sid: str = ""
    detail: str = ""


def read_list(path: Path) -> list[Entry]:
    """Read whom to call.

    Raises:
        ValueError: The file cannot be read, has no column ``to``, a line of another length, or
            something that is no number; names file and line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    names = [name.strip() for name in rows[0]] if rows else []
    if "to" not in names:
        raise ValueError(f"{path}: expected a line of names with the column to")
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two columns have one name")
    entries = []
    for row, values in enumerate(rows[1:], 1):
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(names):
            raise ValueError(f"{path}, row {row}: expected {len(names)} values, got {len(values)}")
        variables = {name: value.strip() for name, value in zip(names, values, strict=True)}
        to = variables.pop("to")
        if _NUMBER.fullmatch(to) is None:
            raise ValueError(f"{path}, row {row}: to: expected a number such as +15550100003")
        agent, zone = variables.pop("agent", "") or None, variables.pop("time_zone", "") or None
        entries.append(Entry(row, to, agent, zone, variables))
    return entries


class Results:
    """What became of a list, attempt by attempt."""

    def __init__(self, path: Path, entries: Sequence[Entry]):
        """Use a file; what it holds of the same list already counts.

        Raises:
            ValueError: It cannot be read or written, or is of another list.
        """
        self._path = path
        self._known: dict[int, list[str]] = {}
        numbers = {entry.row: entry.to for entry in entries}
        for place, line in enumerate(self._lines(), 2):
            try:
                row, to, outcome = int(line["row"]), line["to"], line["outcome"]
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{path}, line {place}: not a result") from None
            if numbers.get(row) != to:
                raise ValueError(f"{path}, line {place}: a result of another list")
            self._known.setdefault(row, []).append(outcome)

    def outcomes(self, entry: Entry) -> list[str]:
        """The outcomes of somebody's attempts so far."""
        return list(self._known.get(entry.row, ()))

    def add(self, entry: Entry, result: Result, at: str) -> None:
        """Write what became of an attempt.

        Args:
            entry: Who was called.
            result: What became of it.
            at: When, in ISO 8601.

        Raises:
            OSError: The file cannot be written.
        """
        attempts = self._known.setdefault(entry.row, [])
        attempts.append(result.outcome)
        new = not self._path.exists() or not self._path.stat().st_size
        with self._path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            told = {"row": entry.row, "to": entry.to, "attempt": len(attempts), "at": at}
            writer.writerow({**told, **vars(result)})

    def _lines(self) -> Iterator[dict[str, str]]:
        try:
            if self._path.exists():
                with self._path.open(encoding="utf-8", newline="") as file:
                    yield from csv.DictReader(file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{self._path}: {error}") from error
