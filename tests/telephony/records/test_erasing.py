"""What is erased, is."""

import json
from pathlib import Path

import pytest
from sqlalchemy import insert

from telephony.records.erasing import ended_before, erase, of_number, wipe_traces
from telephony.records.schema import CALLS, DEAD_LETTERS, METADATA, NOTICES, PROCESSES
from tests.telephony.records.conftest import SID, call, rows

CALLER, OTHER, OURS = "+15550100001", "+15550100009", "+15550100002"
DAY = 86_400


def have_a_call(records, sid=SID, recording=None, caller=CALLER, **fields):
    recorder = records.open(sid, caller=caller, **{"called": OURS, **fields})
    recorder.event("agent_text", turn=0, text="xyzzy was said")
    recorder.event("tool_call", turn=0, name="book", arguments={"who": "xyzzy"}, call_id="a")
    if recording is not None:
        recorder.event("recording", path=str(recording))
    recorder.close("caller_hung_up")
    row = call(records, sid)
    letter = {"call_id": row["id"], "url": "http://localhost", "event": "call_ended"}
    letter |= {"body": json.dumps({"caller": caller}), "created_at": 1.0, "attempts": 1}
    with records.engine.begin() as connection:
        connection.execute(insert(DEAD_LETTERS).values(id=row["id"], **letter))
        connection.execute(insert(NOTICES).values(id=row["id"], next_at=1e12, **letter))


def count(records):
    tables = set(METADATA.tables.values()) - {PROCESSES}
    return {table.name: len(rows(records, table)) for table in tables}


def test_a_number_is_erased_with_all_that_belongs_to_its_calls(records, tmp_path, url):
    recording, kept = tmp_path / "call.wav", tmp_path / "kept.wav"
    recording.write_bytes(b"sound")
    kept.write_bytes(b"sound")
    have_a_call(records, "CA1", recording)
    have_a_call(records, "CA2", caller=OURS, called=CALLER, direction="outbound")
    have_a_call(records, "CA3", kept, caller=OTHER)
    assert count(records)["events"] == 5 + 4 + 5

    erased = erase(records.engine, of_number("+1 (555) 010-0001"))

    assert erased == ["CA1", "CA2"]
    left = {"calls": 1, "turns": 1, "tool_calls": 1, "notices": 1, "dead_letters": 1}
    assert count(records) == left | {"events": 5}
    assert [row["sid"] for row in rows(records, CALLS)] == ["CA3"]
    assert not recording.exists()
    assert kept.exists()


def test_nothing_of_it_stays_in_the_file(start, tmp_path, settings, url):
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL's files are its own business")
    records = start()
    have_a_call(records)
    files = [Path(f"{tmp_path / 'calls.db'}{end}") for end in ("", "-wal")]
    assert any(b"xyzzy" in path.read_bytes() for path in files)
    erase(records.engine, of_number(CALLER))
    wipe_traces(records.engine)
    for path in files:
        content = path.read_bytes()
        assert b"xyzzy" not in content
        assert CALLER.encode() not in content


def test_our_own_number_erases_no_callers(records):
    have_a_call(records)
    assert erase(records.engine, of_number(OURS)) == []


@pytest.mark.parametrize("number", ["", "anonymous", "+"])
def test_what_is_no_number_erases_nothing(number):
    with pytest.raises(ValueError, match="telephone number"):
        of_number(number)


def test_a_call_that_goes_on_is_left_alone_and_written_on(records):
    recorder = records.open(SID, caller=CALLER)
    records.flush()
    assert erase(records.engine, of_number(CALLER)) == []
    recorder.close("caller_hung_up")
    assert call(records)["cause"] == "caller_hung_up"


def test_what_comes_late_for_an_erased_call_is_dropped(records):
    recorder = records.open(SID, caller=CALLER)
    recorder.close("caller_hung_up")
    records.flush()
    erase(records.engine, of_number(CALLER))
    recorder._over = False
    recorder.event("agent_text", turn=0, text="late")
    assert set(count(records).values()) == {0}


def test_calls_that_are_too_old_are_erased_once_a_day(start, now, tmp_path):
    recording = tmp_path / "call.wav"
    recording.touch()
    records = start(keep_days=30)
    have_a_call(records, "CA1", recording)
    now.at += 20 * DAY
    have_a_call(records, "CA2")
    now.at += 11 * DAY
    while len(rows(records, CALLS)) == 2:
        pass
    assert [row["sid"] for row in rows(records, CALLS)] == ["CA2"]
    assert not recording.exists()


def test_a_recording_that_cannot_be_removed_keeps_its_call(records, tmp_path):
    folder = tmp_path / "a folder in its place"
    folder.mkdir()
    have_a_call(records, "CA1", folder)
    have_a_call(records, "CA2")
    assert erase(records.engine, ended_before(1e12)) == ["CA2"]
    assert [row["sid"] for row in rows(records, CALLS)] == ["CA1"]
