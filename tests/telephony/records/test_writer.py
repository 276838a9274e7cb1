"""Nothing is lost: not to a database that is away, a full queue, or a process that is killed."""

import os
import signal
import subprocess
import sys
import threading

from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from telephony.records.entry import Entry
from telephony.records.schema import CALLS, EVENTS, TURNS
from telephony.records.spill import held
from telephony.records.writer import Writer
from tests.telephony.records.conftest import SID, Away, call, events, rows

KILLED = """
import os, signal, sys
from pathlib import Path
from pydantic import SecretStr
from agent.record_settings import RecordSettings
from telephony.records import CallRecords
from tests.telephony.records.conftest import Away

records = CallRecords(RecordSettings(directory=Path(sys.argv[1]), url=SecretStr(sys.argv[2])))
records.start()
recorder = records.open("CAkilled", caller="+15550100001")
recorder.event("call_started", call_sid="CAkilled")
records.flush()
if sys.argv[3] == "away":
    Away(records).__enter__()
recorder.event("heard", turn=0, text="Hello")
records.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_process(tmp_path, url, how):
    command = [sys.executable, "-c", KILLED, str(tmp_path), url, how]
    killed = subprocess.run(command, check=False, capture_output=True, cwd=os.getcwd())
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


def test_the_record_of_a_killed_process_is_whole_and_says_so(tmp_path, url, start):
    kill_a_process(tmp_path, url, "")
    records = start()
    assert events(records, "CAkilled") == ["call_offered", "call_started", "heard", "call_ended"]
    row = call(records, "CAkilled")
    assert row["cause"] == "process_died"
    last = rows(records, EVENTS, name="heard")[0]
    assert row["ended_at"] == last["at"]


def test_what_a_killed_process_could_not_write_is_taken_in_by_the_next(tmp_path, url, start):
    kill_a_process(tmp_path, url, "away")
    (waiting,) = tmp_path.glob("waiting-*")
    with waiting.open("ab") as file:
        file.write(b'{"call_id": "torn in the mid')
    records = start()
    assert rows(records, TURNS)[0]["heard_text"] == "Hello"
    assert not waiting.exists()
    assert call(records, "CAkilled")["cause"] == "process_died"


def test_while_the_database_is_away_calls_are_kept_in_a_file_and_taken_in_in_order(
    records, tmp_path
):
    recorder = records.open(SID)
    records.flush()
    with Away(records):
        recorder.event("agent_text", turn=0, text="We ")
        records.flush()
        recorder.event("agent_text", turn=0, text="open ")
        other = records.open("CA2")
        other.close("caller_hung_up")
        records.flush()
        (waiting,) = tmp_path.glob("waiting-*")
        assert waiting.stat().st_mode & 0o777 == 0o600
        assert held(tmp_path) == 1
    recorder.event("agent_text", turn=0, text="at eight.")
    recorder.close("agent_hung_up")
    assert events(records) == ["call_offered", *["agent_text"] * 3, "call_ended"]
    assert [row["seq"] for row in rows(records, EVENTS, call_id=call(records)["id"])] == [*range(5)]
    assert rows(records, TURNS)[0]["agent_text"] == "We open at eight."
    assert call(records, "CA2")["cause"] == "caller_hung_up"
    assert not list(tmp_path.glob("waiting-*"))


def test_a_gateway_starts_without_its_database_and_finds_it_later(postgres, settings, start):
    url = postgres.make_database()
    postgres.stop()
    try:
        records = start(url=url)
        records.open(SID).close("caller_hung_up")
        assert records.flush()
    finally:
        postgres.start()
    while tables_are_missing(records):
        records.flush()
    assert events(records) == ["call_offered", "call_ended"]


def tables_are_missing(records):
    """They are made when the database is found, which then gets what has waited."""
    try:
        return not inspect(records.engine).has_table("calls")
    except OperationalError:
        return True


def test_what_is_left_when_a_gateway_stops_waits_for_the_next_one(start, tmp_path):
    records = start()
    recorder = records.open(SID)
    with Away(records):
        recorder.close("shutdown")
        records.stop()
    assert len(list(tmp_path.glob("waiting-*"))) == 1
    assert call(start())["cause"] == "shutdown"


def test_entries_that_find_the_queue_full_are_not_lost_nor_out_of_order(start, tmp_path):
    records = start()
    records.open(SID)
    (template,) = rows(records, CALLS)
    writer = Writer(records.engine, tmp_path, "another", longest_queue=2)
    texts = ["", "a", "ab", "abc", "abcd", "abcde"]
    for seq, text in enumerate(texts[1:], 1):
        columns = {"agent_text": text}
        writer.put(Entry(template["id"], seq, 1.0, "agent_text", {"turn": 0}, {}, 0, columns))
    writer.start()
    assert writer.flush(10)
    assert [row["seq"] for row in rows(records, EVENTS)] == [0, 1, 2, 3, 4, 5]
    writer.stop(10)
    assert not list(tmp_path.glob("waiting-another*"))


def test_a_call_does_not_wait_while_the_database_does(records):
    """Nothing of a call runs in the writer's thread, nor waits for it."""
    recorder = records.open(SID)
    records.flush()
    goes_on, held_up = threading.Event(), threading.Event()

    def beside(engine):
        held_up.set()
        goes_on.wait(30)

    records._writer._beside = beside
    recorder.event("agent_text", turn=0, text="a")
    assert held_up.wait(30)
    for _ in range(100):
        recorder.event("agent_text", turn=0, text="a")
    assert not records.flush(0.01)
    goes_on.set()
    assert records.flush()
    assert len(rows(records, EVENTS)) == 102


def test_both_workers_write_to_one_database(start):
    one, another = start(), start()
    for number in range(20):
        for worker, name in ((one, "CAone"), (another, "CAanother")):
            worker.open(f"{name}{number}").close("caller_hung_up")
    assert one.flush()
    assert another.flush()
    assert len(rows(one, CALLS, cause="caller_hung_up")) == 40
