import json
import signal
import stat
import subprocess
import sys

import pytest

from telephony.records import CallRecords

SID = "CA1"


@pytest.fixture
def records(tmp_path):
    ticks = iter(range(100, 10_000))
    return CallRecords(tmp_path / "records", now=lambda: float(next(ticks)))


def read(records, sid=SID):
    lines = (records.directory / f"{sid}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_event_is_on_disk_before_the_call_goes_on(records):
    recorder = records.open(SID)
    recorder.event("call_started", call_sid=SID)
    assert read(records) == [{"at": 100.0, "event": "call_started", "call_sid": SID}]
    recorder.event("agent_text", turn=0, text="Grüß\nGott")
    assert read(records)[-1] == {
        "at": 101.0,
        "event": "agent_text",
        "turn": 0,
        "text": "Grüß\nGott",
    }
    recorder.close("caller_hung_up")
    assert read(records)[-1] == {"at": 102.0, "event": "call_ended", "cause": "caller_hung_up"}


def test_a_record_ends_once_with_its_first_cause(records):
    recorder = records.open(SID)
    recorder.close("socket_closed")
    recorder.event("heard", turn=0, text="too late")
    recorder.close("error")
    assert [event["event"] for event in read(records)] == ["call_ended"]
    assert read(records)[0]["cause"] == "socket_closed"


def test_others_on_the_machine_cannot_read_what_was_said(records):
    recorder = records.open(SID)
    assert stat.S_IMODE(recorder.path.stat().st_mode) == 0o600
    recorder.close("ended")


@pytest.mark.parametrize("sid", ["", "../CA1", "CA1/..", "a.b", "x" * 65, "CA\n"])
def test_a_call_sid_cannot_name_a_file_elsewhere(records, sid):
    with pytest.raises(ValueError, match="call_sid: expected letters"):
        records.open(sid)


def test_two_recorders_of_one_call_do_not_mix(records):
    recorder = records.open(SID)
    with pytest.raises(ValueError, match="recorded already"):
        records.open(SID)
    recorder.close("ended")
    records.open(SID).close("ended")


def test_the_record_of_a_killed_process_is_whole_and_says_so(records):
    # A real process, killed in the middle of a call.
    script = (
        "import os, signal, sys; from pathlib import Path; from telephony.records import *;"
        "recorder = CallRecords(Path(sys.argv[1])).open('CA1');"
        "recorder.event('call_started', call_sid='CA1');"
        "recorder.event('heard', turn=0, text='Hello.');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(records.directory)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [event["event"] for event in read(records)] == ["call_started", "heard"]
    assert records.end_unfinished() == ["CA1"]
    assert read(records)[-1] == {"at": 100.0, "event": "call_ended", "cause": "process_died"}
    assert records.end_unfinished() == []


def test_a_line_torn_in_the_middle_is_dropped(records):
    path = records.directory / "CA1.jsonl"
    path.write_text('{"at":1.0,"event":"call_started","call_sid":"CA1"}\n{"at":2.0,"event":"age')
    assert records.end_unfinished() == ["CA1"]
    assert [event["event"] for event in read(records)] == ["call_started", "call_ended"]


@pytest.mark.parametrize("content", ["", "\n", "[]\n", "no json\n"])
def test_a_record_of_nothing_is_ended_too(records, content):
    path = records.directory / "CA1.jsonl"
    path.write_text(content)
    assert records.end_unfinished() == ["CA1"]
    assert json.loads(path.read_text().splitlines()[-1])["cause"] == "process_died"


def test_a_call_that_is_running_is_left_alone(records):
    recorder = records.open(SID)
    recorder.event("call_started", call_sid=SID)
    assert CallRecords(records.directory).end_unfinished() == []
    recorder.close("ended")
    assert [event["event"] for event in read(records)] == ["call_started", "call_ended"]


def test_a_full_disk_does_not_end_the_call(records):
    recorder = records.open(SID)
    recorder._file.close()
    recorder._file = open("/dev/full", "a")  # noqa: SIM115 - closed by the recorder
    recorder.event("call_started", call_sid=SID)
    recorder.event("heard", turn=0, text="")
    recorder.close("ended")


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"records_dir .*file/records"):
        CallRecords(tmp_path / "file" / "records")
