"""``glm-voice calls``."""

import json
import sqlite3

import pytest
from loguru import logger

from agent.cli import main
from telephony.records import CallRecords
from telephony.simulator.agent_records import tool_calls
from telephony.simulator.record_tail import tail_of_call
from tests.telephony.records.conftest import Away

CALLER, OURS, OTHER = "+15550100001", "+15550100002", "+15550100003"


@pytest.fixture
def calls(url, tmp_path, monkeypatch, capsys):
    """Runs ``glm-voice calls`` against a database; returns the exit code and what was printed."""
    monkeypatch.setenv("GLM_VOICE_RECORDS__DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GLM_VOICE_RECORDS__URL", url)

    def run(*arguments):
        code = main(["calls", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield run
    # It logs to what was standard error during this test.
    logger.remove()


@pytest.fixture
def two_calls(start, now):
    records = start()
    recorder = records.open("CA1", caller=CALLER, called=OURS, agent="desk")
    recorder.event("call_started", call_sid="CA1")
    now.at += 1
    recorder.event("caller_speech_started")
    now.at += 2
    recorder.event("caller_speech_stopped")
    now.at += 0.5
    recorder.event("turn_decided", turn=1)
    recorder.event("caller_text", turn=1, text="When do you open?\x1b[2J")
    recorder.event("tool_call", turn=1, name="hours", arguments={"day": "周一"}, call_id="a")
    now.at += 0.25
    recorder.event("tool_result", turn=1, call_id="a", result="eight")
    recorder.event("first_audio", turn=1, first_audio=0.1, saved=0.0)
    recorder.event("agent_text", turn=1, text="We open at eight.")
    recorder.event("interrupted", turn=1, heard_seconds=0.5, heard_text="We open")
    now.at += 10
    recorder.close("caller_hung_up")
    now.at += 86_400
    records.open("CA2", caller=OTHER, called=OURS).close("busy")
    records.stop()


def test_calls_are_listed(calls, two_calls):
    code, text = calls("list")
    assert code == 0
    head, first, second = text.splitlines()
    assert head.split() == ["began", "seconds", "from", "to", "agent", "end", "call"]
    assert first.split()[2:] == ["14", CALLER, OURS, "desk", "caller_hung_up", "CA1"]
    assert second.split()[2:] == [OTHER, OURS, "busy", "CA2"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (("--number", "+1 555 010 0003"), ["CA2"]),
        (("--agent", "desk"), ["CA1"]),
        (("--since", "2023-11-15T12:00"), ["CA2"]),
        (("--before", "2023-11-15T12:00"), ["CA1"]),
        (("--limit", "1"), ["CA2"]),
        (("--number", OURS), []),
    ],
)
def test_calls_are_found(calls, two_calls, search, found):
    _, text = calls("list", "--json", *search)
    assert [json.loads(line)["sid"] for line in text.splitlines()] == found


def test_a_call_is_shown_as_it_went_and_moves_no_cursor(calls, two_calls):
    code, text = calls("show", "CA1")
    assert code == 0
    lines = [" ".join(line.split()) for line in text.splitlines()[3:]]
    assert lines == [
        "0:01.0 caller When do you open? [2J",
        '0:03.5 tool hours {"day": "周一"}',
        '0:03.8 = "eight"',
        "0:03.8 agent We open at eight.",
        "0:03.8 500 ms to decide, 250 ms from the decision to the first audio",
        "0:03.8 interrupted; heard: We open",
    ]
    assert "\x1b" not in text


def test_what_is_exported_is_read_as_a_record_of_any_server(calls, two_calls, tmp_path):
    path = tmp_path / "all.jsonl"
    assert calls("export", "-o", str(path))[0] == 0
    assert path.stat().st_mode & 0o777 == 0o600
    tail = tail_of_call(path, "CA1")
    names = [event.name for event in tail.read()]
    assert names[0] == "call_offered"
    assert names[-1] == "call_ended"
    (tool,) = tool_calls(tail.events)
    assert (tool.name, tool.arguments, tool.result) == ("hours", {"day": "周一"}, "eight")
    assert len(tail_of_call(path, "CA2").read()) == 2
    _, text = calls("export", "CA2")
    assert [json.loads(line)["event"] for line in text.splitlines()] == [
        "call_offered",
        "call_ended",
    ]


def test_a_call_that_was_broken_off_is_shown_so_before_anybody_ends_it(calls, start, now):
    records = start()
    records.open("CA1", caller=CALLER)
    records.flush()
    # Its lease was out long ago.
    _, text = calls("list", "--json")
    assert json.loads(text)["cause"] == "process_died"


def test_a_number_is_forgotten(calls, two_calls):
    assert calls("forget", "--number", CALLER, "--dry-run") == (0, "1 calls would be erased\n")
    assert calls("forget", "--number", CALLER) == (0, "1 calls erased\n")
    _, text = calls("list", "--json")
    assert [json.loads(line)["sid"] for line in text.splitlines()] == ["CA2"]
    assert calls("forget", "--before", "2030-01-01") == (0, "1 calls erased\n")
    assert calls("list", "--json")[1] == ""


def test_who_is_to_be_forgotten_must_be_said(calls, two_calls):
    assert calls("forget") == (2, "glm-voice calls: give --number, --before or both\n")
    code, text = calls("forget", "--number", "everybody")
    assert code == 2
    assert "telephone number" in text


def test_a_call_that_goes_on_is_told_of(calls, settings, tmp_path):
    records = CallRecords(settings())
    records.start()
    recorder = records.open("CA1", caller=CALLER)
    records.flush()
    code, text = calls("forget", "--number", CALLER)
    assert (code, text.splitlines()) == (
        0,
        ["0 calls erased", "1 calls have not ended yet: ask again afterwards"],
    )
    recorder.close("caller_hung_up")
    records.stop()


def test_what_waits_for_the_database_is_forgotten_too(calls, start, tmp_path):
    records = start()
    with Away(records):
        records.open("CA1", caller=CALLER).close("caller_hung_up")
        records.stop()
    assert calls("forget", "--number", CALLER) == (0, "1 calls erased\n")
    assert not list(tmp_path.glob("waiting-*"))


def test_a_call_that_is_not_there_and_records_that_are_not_are_named(calls, two_calls, tmp_path):
    assert calls("show", "CA3") == (2, "glm-voice calls: there is no call CA3\n")
    nowhere = tmp_path / "mistyped.db"
    code, text = calls("list", "--records", str(nowhere))
    assert (code, text) == (2, f"glm-voice calls: {nowhere}: there are no records\n")
    assert not nowhere.exists()


def test_a_file_that_is_no_database_is_an_error_without_a_traceback(calls, tmp_path):
    other = tmp_path / "other.db"
    other.write_text("not a database, " * 100)
    code, text = calls("list", "--records", str(other))
    assert code == 1
    assert "the database cannot be used: file is not a database" in text


def test_the_tables_are_made_on_demand(calls, tmp_path):
    path = tmp_path / "new.db"
    assert calls("migrate", "--records", str(path)) == (0, "the tables are up to date\n")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (0,)
    connection.close()


def test_without_dead_letters_nothing_is_delivered(calls, two_calls):
    assert calls("redeliver") == (0, "0 delivered, 0 failed again\n")
