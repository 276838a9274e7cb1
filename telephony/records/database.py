"""The database of the records: SQLite, or PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

_BUSY_SECONDS = 5
_AGAIN_SECONDS = 0.005
_CONNECT_SECONDS = 5
_STATEMENT_MS = 30_000
_BACKENDS = ("sqlite", "postgresql")


def database_url(records: str) -> URL:
    """The address of a database.

    Args:
        records: SQLAlchemy's address, or the path of an SQLite file.

    Returns:
        The address, with the driver that is used here.

    Raises:
        ValueError: It is no address, or of another kind of database; the password is not shown.
    """
    if "://" not in records:
        return URL.create("sqlite", database=records)
    try:
        url = make_url(records)
    except (ArgumentError, ValueError):
        raise ValueError("records: not an address of a database, DIALECT://...") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in _BACKENDS:
        raise ValueError(f"records: expected sqlite:// or postgresql://, got {url.drivername}://")
    return url


def open_database(url: URL, *, writing: bool = True) -> Engine:
    """Prepare to use a database; nothing is opened yet.

    Args:
        url: From :func:`database_url`.
        writing: Transactions are going to write. With SQLite they then take their turn at the
            beginning, where a transaction can wait; one that becomes a writer later cannot.

    Raises:
        ValueError: Its driver is not installed, or an SQLite file's directory cannot be made.
    """
    arguments: dict[str, Any]
    if url.get_backend_name() == "sqlite":
        if writing:
            _make_file(url)
        arguments = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    else:
        # A network that swallows packets must not stop the writer for longer than this.
        arguments = {
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": _CONNECT_SECONDS * 1000,
            "options": f"-c statement_timeout={_STATEMENT_MS}",
        }
    try:
        engine = create_engine(
            url,
            connect_args=arguments,
            pool_size=2,
            max_overflow=4,
            pool_pre_ping=True,
            # An error's message must not tell what a caller said.
            hide_parameters=True,
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ValueError(f"records: {url.drivername} needs a driver: {error}") from None
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine, "BEGIN IMMEDIATE" if writing else "BEGIN")
    return engine


def upsert(
    connection: Connection,
    table: Table,
    rows: Iterable[Mapping[str, Any]],
    replace: Callable[[str], bool] = lambda column: False,
) -> None:
    """Insert rows; of those that are there already, change some columns.

    Args:
        connection: In a transaction.
        table: With its primary key among the columns.
        rows: All with the same columns.
        replace: Which columns are changed; by default none.
    """
    values = [dict(row) for row in rows]
    if not values:
        return
    # Both have the same clauses, though not the same class.
    postgresql = connection.dialect.name == "postgresql"
    insert: Any = postgresql_insert(table) if postgresql else sqlite_insert(table)
    key = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in values[0] if replace(name)}
    if changed:
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changed), values)
    else:
        connection.execute(insert.on_conflict_do_nothing(index_elements=key), values)


def in_pieces(items: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    """A list in pieces that fit into one statement."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _make_file(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise ValueError("records: expected the path of an SQLite file")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What callers said is for its owner alone; SQLite gives its other files the same rights.
        path.touch(mode=0o600)
    except OSError as error:
        raise ValueError(f"records: {path}: {error.strerror or error}") from error


def _set_up_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver's own idea of when a transaction begins leaves out DDL and SELECT.
        connection.isolation_level = None
        _write_ahead(connection)
        for pragma in (
            # A killed process loses nothing; a power cut at most the last moments.
            "synchronous = NORMAL",
            "foreign_keys = ON",
            # What is erased is overwritten.
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have SQLite keep a write-ahead log.

    Who finds another connection just changing a new file to it is refused at once: SQLite waits
    for other locks, not for this one.
    """
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
        time.sleep(_AGAIN_SECONDS)
