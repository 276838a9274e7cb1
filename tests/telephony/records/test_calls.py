"""What the tables hold of a call, in SQLite and in PostgreSQL."""

import stat

import pytest
from pydantic import SecretStr

from agent.record_settings import RecordSettings
from telephony.records import CallRecords
from telephony.records.schema import CALLS, EVENTS, TOOL_CALLS, TURNS
from tests.telephony.records.conftest import SID, call, events, rows


def test_a_call_has_its_row_from_the_webhook_on_and_ends_with_its_cause(records, now):
    recorder = records.open(
        SID, caller="+15550100001", called="+15550100002", account_sid="AC1", agent="desk"
    )
    row = call(records)
    assert (row["caller"], row["called"]) == ("+15550100001", "+15550100002")
    assert (row["direction"], row["agent"], row["account_sid"]) == ("inbound", "desk", "AC1")
    assert (row["opened_at"], row["answered_at"], row["ended_at"]) == (now.at, None, None)
    now.at += 2
    recorder.event("call_started", call_sid=SID)
    now.at += 30
    recorder.event("call_transferred", to="+15550100009")
    recorder.event("recording", path="/recordings/1.wav")
    recorder.close("transferred")
    row = call(records)
    assert (row["answered_at"], row["ended_at"]) == (now.at - 30, now.at)
    assert (row["cause"], row["transferred_to"]) == ("transferred", "+15550100009")
    assert row["recording"] == "/recordings/1.wav"


def test_a_record_ends_once_with_its_first_cause(records):
    recorder = records.open(SID)
    recorder.close("socket_closed")
    recorder.close("shutdown")
    recorder.event("agent_text", text="too late")
    assert events(records) == ["call_offered", "call_ended"]
    assert call(records)["cause"] == "socket_closed"


def test_a_turn_tells_what_was_said_when_and_what_was_heard(records, now):
    recorder = records.open(SID)
    begin = now.at

    def event(after, name, **fields):
        now.at = begin + after
        recorder.event(name, **fields)

    event(1.0, "caller_speech_started")
    event(1.5, "caller_speech_stopped")
    event(1.6, "caller_speech_started")
    event(3.0, "caller_speech_stopped")
    event(3.5, "turn_decided", turn=1)
    event(3.6, "answer_started", turn=1, ahead=0.4)
    event(3.7, "first_token", turn=1, tokenise=0.1, first_token=0.2)
    event(3.8, "first_audio", turn=1, first_audio=0.3, saved=0.25)
    event(3.9, "caller_text", turn=1, text="When do you open?")
    event(4.0, "agent_text", turn=1, text="We open ")
    event(4.1, "agent_text", turn=1, text="at eight.")
    event(4.2, "answer_finished", turn=1, text="We open at eight.")
    event(5.0, "interrupted", turn=1, heard_seconds=0.5, heard_text="We open")
    event(5.1, "heard", turn=1, text="We open")

    (turn,) = rows(records, TURNS)
    del turn["call_id"]
    assert {name: value for name, value in turn.items() if name.endswith("_at")} == {
        "caller_started_at": begin + 1.0,
        "caller_stopped_at": begin + 3.0,
        "decided_at": begin + 3.5,
        "started_at": begin + 3.6,
        "first_audio_at": begin + 3.8,
        "finished_at": begin + 4.2,
        "interrupted_at": begin + 5.0,
        "heard_at": begin + 5.1,
    }
    assert {name: value for name, value in turn.items() if not name.endswith("_at")} == {
        "number": 1,
        "caller_text": "When do you open?",
        "agent_text": "We open at eight.",
        "heard_text": "We open",
        "heard_seconds": 0.5,
        "ahead": 0.4,
        "tokenise": 0.1,
        "first_token": 0.2,
        "first_audio": 0.3,
        "saved": 0.25,
    }


def test_an_answer_that_is_cut_off_keeps_the_text_that_was_made(records):
    recorder = records.open(SID)
    for text in ("We ", "open "):
        recorder.event("agent_text", turn=0, text=text)
        records.flush()
    assert rows(records, TURNS)[0]["agent_text"] == "We open "


def test_tool_calls_have_their_results_and_failures(records, now):
    recorder = records.open(SID)
    recorder.event("tool_call", turn=1, name="find", arguments={"day": "周二"}, call_id="a")
    recorder.event("tool_call", turn=1, name="book", arguments={}, call_id="b")
    now.at += 1
    recorder.event("tool_result", turn=2, call_id="b", error="full")
    recorder.event("tool_result", turn=2, call_id="a", result={"free": [9, 10]})
    recorder.event("tool_result", turn=2, call_id="unheard of", result=1)
    find, book = rows(records, TOOL_CALLS)
    assert (find["name"], find["arguments"], find["turn"]) == ("find", {"day": "周二"}, 1)
    assert (find["result"], find["error"]) == ({"free": [9, 10]}, None)
    assert (book["result"], book["error"]) == (None, "full")
    assert (book["called_at"], book["returned_at"]) == (now.at - 1, now.at)


def test_a_caller_who_comes_back_has_a_second_row(records):
    records.open(SID).close("transferred")
    records.open(SID).close("caller_hung_up")
    records.flush()
    assert {row["cause"] for row in rows(records, CALLS, sid=SID)} == {
        "transferred",
        "caller_hung_up",
    }


@pytest.mark.parametrize("text", ["nul \0 here", "half of a pair \ud83d", "\u2028 and \U0001f600"])
def test_no_text_of_a_model_is_too_strange_to_be_written(records, text):
    recorder = records.open(SID, caller="sip:" + "a" * 500 + "@example.com")
    recorder.event("agent_text", turn=0, text=text)
    recorder.event("tool_call", name="book", arguments={text: [text]}, call_id="a")
    recorder.close("caller_hung_up")
    assert events(records) == ["call_offered", "agent_text", "tool_call", "call_ended"]


def test_numbers_that_are_no_json_are_written_as_text(records):
    records.open(SID).event("answer_started", turn=0, ahead=0.5, odd=float("nan"))
    assert rows(records, EVENTS)[1]["fields"] == {"turn": 0, "ahead": 0.5, "odd": "nan"}


def test_an_entry_that_the_database_refuses_costs_no_other_anything(records, tmp_path):
    recorder = records.open(SID)
    recorder.event("interrupted", turn=1, heard_seconds=["soon"], heard_text="We")
    recorder.close("caller_hung_up")
    assert events(records) == ["call_offered", "call_ended"]
    assert '"interrupted"' in (tmp_path / "refused.jsonl").read_text()


@pytest.mark.parametrize("sid", ["", "../CA1", "CA1/..", "CA\n", "C" * 65])
def test_a_call_sid_is_one(records, sid):
    with pytest.raises(ValueError, match="call_sid"):
        records.open(sid)


def test_two_recorders_of_one_call_do_not_mix(records):
    recorder = records.open(SID)
    with pytest.raises(ValueError, match="recorded already"):
        records.open(SID)
    recorder.close("ended")
    records.open(SID).close("ended")


def test_others_on_the_machine_cannot_read_what_was_said(tmp_path):
    records = CallRecords(RecordSettings(directory=tmp_path / "records"))
    records.start()
    records.open(SID)
    records.flush()
    files = list((tmp_path / "records").iterdir())
    assert {path.name for path in files} == {"calls.db", "calls.db-wal", "calls.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    records.stop()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"records\.directory .*file/records"):
        CallRecords(RecordSettings(directory=tmp_path / "file" / "records"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://user:secret@host/calls", "expected sqlite:// or postgresql://, got mysql://"),
        ("nonsense://://", "not an address of a database"),
        ("sqlite://", "expected the path of an SQLite file"),
        ("postgresql+nodriver://user:secret@host/calls", "needs a driver"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(tmp_path, url, message):
    settings = RecordSettings(directory=tmp_path, url=SecretStr(url))
    with pytest.raises(ValueError, match=message) as error:
        CallRecords(settings)
    assert "secret" not in str(error.value)
    assert "secret" not in repr(settings)
