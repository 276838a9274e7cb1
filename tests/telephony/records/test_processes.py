"""Whose calls are broken off, and whose are not."""

import os

import pytest
from sqlalchemy import update

from telephony.records.schema import PROCESSES
from telephony.records.upkeep import Upkeep
from tests.telephony.records.conftest import SID, Away, call, events, rows

LEASE = 60.0


def elsewhere(records):
    """Let a gateway be of another machine, whose process ids mean nothing here."""
    records.flush()
    with records.engine.begin() as connection:
        connection.execute(update(PROCESSES).values(machine="another", pid=2**22 + 1))


def look(records, now):
    """What another worker does every now and then."""
    upkeep = Upkeep(records.settings, records._lease, now)
    upkeep.round(records.engine)


@pytest.fixture
def another(start):
    """A worker that has a call going on."""
    another = start()
    another.open(SID, caller="+15550100001")
    another.flush()
    another._writer._beside = lambda engine: None
    return another


def test_the_call_of_a_worker_that_lives_is_left_alone(another, start, now):
    records = start()
    look(records, now)
    assert events(records) == ["call_offered"]
    elsewhere(another)
    now.at += LEASE - 1
    look(records, now)
    assert call(records)["ended_at"] is None


def test_the_call_of_a_worker_that_was_not_heard_of_is_ended_once(another, start, now):
    first, second = start(), start()
    elsewhere(another)
    opened = now.at
    now.at += LEASE + 1
    for records in (first, second, first):
        look(records, now)
    assert events(first) == ["call_offered", "call_ended"]
    row = call(first)
    assert (row["cause"], row["ended_at"]) == ("process_died", opened)


def test_a_worker_that_was_held_for_dead_takes_its_calls_back(another, start, now):
    records = start()
    elsewhere(another)
    now.at += LEASE + 1
    look(records, now)
    assert call(records)["cause"] == "process_died"
    look(another, now)
    assert events(records) == ["call_offered"]
    assert (call(records)["cause"], call(records)["ended_at"]) == (None, None)


def test_a_call_that_ended_after_all_says_how(another, start, now):
    recorder = another.open("CA2")
    records = start()
    elsewhere(another)
    with Away(another):
        recorder.close("caller_hung_up")
        another.flush()
        now.at += LEASE + 1
        look(records, now)
        assert call(records, "CA2")["cause"] == "process_died"
    another.flush()
    another.flush()
    assert call(records, "CA2")["cause"] == "caller_hung_up"
    assert events(records, "CA2") == ["call_offered", "call_ended"]


def test_on_one_machine_a_process_that_is_gone_is_dead_at_once(another, start, now):
    records = start()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with records.engine.begin() as connection:
        lost = PROCESSES.c.id == another._lease.process_id
        connection.execute(update(PROCESSES).where(lost).values(pid=child))
    look(records, now)
    assert call(records)["cause"] == "process_died"


def test_a_gateway_that_stopped_as_it_should_says_so(start, now):
    records = start()
    records.open(SID).close("shutdown")
    records.stop()
    processes = rows(start(), PROCESSES)
    assert sorted(row["stopped_at"] or 0 for row in processes) == [0, now.at]
