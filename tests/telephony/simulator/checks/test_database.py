"""Verdicts on the state of a database, with SQLite."""

import sqlite3

import pytest

from telephony.simulator.checks.database import check_database, hash_tables
from telephony.simulator.expectation import Database

sqlalchemy = pytest.importorskip("sqlalchemy", reason="checks of a database need SQLAlchemy")


def database(path, *statements):
    connection = sqlite3.connect(path)
    connection.executescript(";".join(statements))
    connection.close()
    return f"sqlite:///{path}"


@pytest.fixture
def url(tmp_path):
    return database(
        tmp_path / "clinic.db",
        "create table bookings (day text, who text, paid boolean, price real)",
        "insert into bookings values ('Tuesday', 'Ann', 1, 5.0), ('Friday', 'Bob', 0, 2.5)",
    )


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        ({"query": "select day, who from bookings", "rows": [["Friday", "Bob"]]}, False),
        (
            {
                "query": "select day, paid, price from bookings",
                "rows": [["Friday", False, 2.5], ["Tuesday", True, 5]],
            },
            True,
        ),
        (
            {
                "query": "select who from bookings order by who",
                "rows": [["Bob"], ["Ann"]],
                "ordered": True,
            },
            False,
        ),
        (
            {
                "query": "select count(*) from bookings where day = :day",
                "parameters": {"day": "Monday"},
                "rows": [[0]],
            },
            True,
        ),
        ({"query": "select * from bookings where day = 'Monday'", "rows": []}, True),
        ({"query": "select * from visits", "rows": []}, None),
        ({"query": "delete from bookings", "rows": []}, None),
        ({"tables": ["visits"], "sha256": "0" * 64}, None),
        ({"tables": ["bookings"], "sha256": "0" * 64}, False),
    ],
)
def test_a_query_must_give_the_rows(url, fields, passed):
    assert check_database(Database.model_validate({"url": url, **fields})).passed is passed


def test_a_query_changes_nothing(url):
    check_database(Database(url=url, query="delete from bookings", rows=()))

    still = Database(url=url, query="select count(*) from bookings", rows=((2,),))
    assert check_database(still).passed


def test_a_hash_depends_on_what_is_in_the_tables_and_on_no_order(url, tmp_path):
    other = database(
        tmp_path / "other.db",
        "create table bookings (who text, day text, price real, paid boolean)",
        "insert into bookings values ('Bob', 'Friday', 2.5, 0), ('Ann', 'Tuesday', 5.0, 1)",
    )

    def digest(address):
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return hash_tables(connection, ["bookings"])

    before = digest(url)
    assert digest(other) == before
    assert check_database(Database(url=url, tables=("bookings",), sha256=before)).passed
    database(tmp_path / "clinic.db", "update bookings set who = 'Eve' where who = 'Bob'")
    check = check_database(Database(url=url, tables=("bookings",), sha256=before))
    assert check.passed is False
    assert check.found == digest(url) != before


def test_a_database_that_is_not_there_is_unknown_and_is_not_made(tmp_path):
    path = tmp_path / "nowhere.db"
    expect = Database(url=f"sqlite:///{path}", query="select 1", rows=((1,),))

    check = check_database(expect)

    assert check.passed is None
    assert "nowhere.db" in check.found
    assert not path.exists()


def test_an_address_comes_from_the_environment_and_stays_out_of_the_report(url):
    expect = Database(url_from="CLINIC", query="select 1", rows=((1,),))

    assert check_database(expect, {"CLINIC": url}).passed
    check = check_database(expect, {})
    assert (check.passed, check.found) == (None, "the environment has no CLINIC")
    for address in ("no address: secret", "nothing+at-all://me:secret@host/db"):
        check = check_database(expect, {"CLINIC": address})
        assert check.passed is None
        assert "secret" not in check.model_dump_json()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": "select 1", "rows": [[1]]}, "exactly one of url and url_from"),
        ({"url": "sqlite://", "query": "select 1"}, "query and rows"),
        ({"url": "sqlite://", "tables": ["a"]}, "tables and sha256"),
        ({"url": "sqlite://", "tables": ["a"], "sha256": "abc"}, "sha256"),
    ],
)
def test_half_an_expectation_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Database.model_validate(fields)
