"""An SQLite file and a throw-away PostgreSQL: every test of the tables runs against both."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, event, make_url, select, text
from sqlalchemy.exc import OperationalError

from agent.record_settings import RecordSettings
from telephony.records import CallRecords
from telephony.records import writer as writing
from telephony.records.schema import CALLS, EVENTS

SID = "CA" + "0" * 31 + "1"
_names = (f"records_{number}" for number in itertools.count())


class Postgres:
    """A server in a directory of its own, reached through a socket in it; nobody else's."""

    def __init__(self, programs: Path, directory: Path, user: list[str]):
        self._programs, self._directory, self._user = programs, directory, user

    def start(self) -> None:
        options = f"-k {self._directory} -c listen_addresses='' -c fsync=off"
        log = str(self._directory / "log")
        self.run("pg_ctl", "-w", "-D", self._data, "-o", options, "-l", log, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._directory)

    def initialise(self) -> None:
        self.run("initdb", "-D", self._data, "-A", "trust", "-U", "tester", "--no-sync")

    def url(self, database: str) -> str:
        return f"postgresql://tester@/{database}?host={self._directory}"

    def make_database(self) -> str:
        name = next(_names)
        url = make_url(self.url("postgres")).set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    @property
    def _data(self) -> str:
        return str(self._directory / "data")


@pytest.fixture(scope="session")
def postgres():
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = shutil.which("initdb")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found is None and not places:
        pytest.skip("PostgreSQL is not installed")
    programs = Path(found).parent if found else places[-1].parent
    # Only a path as short as this fits into the name of a socket.
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    user: list[str] = []
    if os.geteuid() == 0:
        try:
            shutil.chown(directory, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = ["runuser", "-u", "postgres", "--"]
    server = Postgres(programs, directory, user)
    server.initialise()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'calls.db'}"
    return request.getfixturevalue("postgres").make_database()


class Now:
    """Unix time that passes when it is told to."""

    def __init__(self):
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def settings(url, tmp_path):
    def make(**fields) -> RecordSettings:
        return RecordSettings(directory=tmp_path, **{"url": SecretStr(url), **fields})

    return make


@pytest.fixture
def start(settings, now, monkeypatch):
    """Starts the records of a gateway; what is not stopped by the test is stopped after it."""
    monkeypatch.setattr(writing, "_GATHER_SECONDS", 0.0)
    monkeypatch.setattr(writing, "_IDLE_SECONDS", 0.005)
    monkeypatch.setattr(writing, "_RETRY_SECONDS", 0.0)
    started = []

    def start(**fields) -> CallRecords:
        records = CallRecords(settings(**fields), now)
        started.append(records)
        records.start()
        return records

    yield start
    for records in started:
        records.stop()


@pytest.fixture
def records(start):
    return start()


def rows(records, table, **values):
    """The rows of a table with these values, as mappings, in the order of their keys."""
    records.flush()
    chosen = select(table).where(*(table.c[name] == value for name, value in values.items()))
    with records.engine.connect() as connection:
        found = connection.execute(chosen.order_by(*table.primary_key))
        return [dict(row) for row in found.mappings()]


def call(records, sid=SID):
    (row,) = rows(records, CALLS, sid=sid)
    return row


def events(records, sid=SID):
    """Names of a call's events, in order."""
    return [row["name"] for row in rows(records, EVENTS, call_id=call(records, sid)["id"])]


class Away:
    """Makes a database unreachable while it is used as a context."""

    def __init__(self, records):
        self._engine = records.engine

    def __enter__(self):
        event.listen(self._engine, "begin", self._refuse)

    def __exit__(self, *_):
        event.remove(self._engine, "begin", self._refuse)

    @staticmethod
    def _refuse(connection):
        raise OperationalError("BEGIN", None, ConnectionRefusedError())
