"""The state of a test database after a call."""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telephony.simulator.checks.values import show
from telephony.simulator.checks.verdict import Unknown, unknown
from telephony.simulator.expectation import Database
from telephony.simulator.report import Check

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Executable

_LONGEST = 600
"""Letters of rows that a check shows."""


def check_database(expect: Database, environ: Mapping[str, str] | None = None) -> Check:
    """Judge the state of a database.

    Args:
        expect: Where it is and what must be in it.
        environ: Environment variables; None takes the process's own.

    Returns:
        The check; unknown where the database or SQLAlchemy cannot be had, or the query fails.
    """
    if expect.query is not None:
        wanted = _rows(expect.rows or (), expect.ordered)
        expected = _shown(f"{expect.query} gives", wanted)
    else:
        wanted = [str(expect.sha256)]
        expected = f"{', '.join(expect.tables)} with the hash {expect.sha256}"
    found = _look(expect, os.environ if environ is None else environ)
    if isinstance(found, Unknown):
        return unknown("database", expected, found)
    shown = _shown("", found) if expect.query is not None else found[0]
    return Check(name="database", expected=expected, found=shown, passed=found == wanted)


def hash_tables(connection: Connection, tables: Sequence[str]) -> str:
    """SHA-256 of what is in tables.

    Neither the order of tables, rows nor columns makes a difference. Drivers differ in the values
    that they give, so a hash holds for one kind of database.

    Args:
        connection: To the database.
        tables: Their names.

    Returns:
        64 hexadecimal digits.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: There is no such table, or it cannot be read.
    """
    from sqlalchemy import column, inspect, select, table

    digest = hashlib.sha256()
    for name in sorted(set(tables)):
        columns = sorted(str(entry["name"]) for entry in inspect(connection).get_columns(name))
        query: Executable = select(*map(column, columns)).select_from(table(name))
        for line in [show([name, columns]), *_rows(connection.execute(query).all(), False)]:
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _look(expect: Database, environ: Mapping[str, str]) -> list[str] | Unknown:
    address = expect.url
    if expect.url_from is not None:
        address = environ.get(expect.url_from)
    if not address:
        return Unknown(f"the environment has no {expect.url_from}")
    try:
        import sqlalchemy
    except ImportError:
        return Unknown("SQLAlchemy is not installed")
    try:
        url = sqlalchemy.make_url(address)
        if missing := _missing_file(url):
            return Unknown(f"no file {missing}")
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        # Nothing is committed: leaving the connection rolls back.
        with engine.connect() as connection:
            if expect.query is None:
                return [hash_tables(connection, expect.tables)]
            result = connection.execute(sqlalchemy.text(expect.query), expect.parameters)
            return _rows(result.all(), expect.ordered)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        reason = getattr(error, "orig", None) or error
        return Unknown(f"the database cannot be read: {reason}")


def _missing_file(url: URL) -> str | None:
    """SQLite would make a file that is not there."""
    name = url.database or ":memory:"
    plain_file = url.get_backend_name() == "sqlite" and not name.startswith((":", "file:"))
    return name if plain_file and not Path(name).exists() else None


def _rows(rows: Sequence[Sequence[Any]], ordered: bool) -> list[str]:
    """Each row as JSON. A database may have numbers where YAML has true and false."""
    shown = [
        show([int(value) if isinstance(value, bool) else value for value in row]) for row in rows
    ]
    return shown if ordered else sorted(shown)


def _shown(before: str, rows: Sequence[str]) -> str:
    text = f"{before} {', '.join(rows) or 'no rows'}".strip()
    return textwrap.shorten(text, _LONGEST, placeholder=" …")
