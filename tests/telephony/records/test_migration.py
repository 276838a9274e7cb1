"""The tables' versions."""

import threading

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from telephony.records.database import database_url, open_database
from telephony.records.migration import _config, migrate
from telephony.records.schema import METADATA


@pytest.fixture
def engine(url):
    engine = open_database(database_url(url))
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_uses(engine):
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []


def at_once(work):
    """Does something in six threads that begin together; gives what went wrong."""
    failed, together = [], threading.Barrier(6)

    def run():
        together.wait()
        try:
            work()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_workers_that_start_together_do_not_race(engine, url):
    def work():
        own = open_database(database_url(url))
        try:
            migrate(own)
        finally:
            own.dispose()

    assert at_once(work) == []
    assert set(METADATA.tables) < set(inspect(engine).get_table_names())


def test_many_open_a_new_file_at_once(tmp_path):
    def work():
        own = open_database(database_url(str(path)))
        own.connect().close()
        own.dispose()

    for number in range(20):
        path = tmp_path / f"{number}.db"
        assert at_once(work) == []


def test_a_migration_can_be_taken_back_and_one_that_breaks_leaves_nothing(engine):
    migrate(engine)
    with engine.begin() as connection:
        command.downgrade(_config(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tool_calls (id INTEGER)"))
    with pytest.raises(Exception, match="tool_calls"):
        migrate(engine)
    assert sorted(inspect(engine).get_table_names()) == ["alembic_version", "tool_calls"]


def test_tables_of_a_newer_version_are_left_alone(start, engine):
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match="of another version"):
        start()
