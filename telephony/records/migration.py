"""Brings the database's tables up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x676C6D
"""PostgreSQL's advisory lock of whoever migrates; SQLite has one writer at a time anyhow."""


def migrate(engine: Engine) -> None:
    """Bring the tables up to date; processes that do so at once take turns.

    Args:
        engine: Of :func:`telephony.records.database.open_database`, for writing.

    Raises:
        ValueError: The tables are of a newer version than this one.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be reached, or refuses.
    """
    # Slow to import, and most of what uses the records never migrates.
    from alembic import command
    from alembic.util import CommandError

    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        try:
            command.upgrade(_config(connection), "head")
        except CommandError as error:
            raise ValueError(f"records: the database is of another version: {error}") from error


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
