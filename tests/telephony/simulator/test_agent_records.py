"""Records of any server: whose they are, and what is wrong with them."""

import json

import pytest

from agent.record_settings import RecordSettings
from telephony.records import CallRecords
from telephony.simulator.agent_records import tool_calls
from telephony.simulator.record_tail import tail_of_call


def write(path, *events):
    with path.open("a") as file:
        file.writelines(json.dumps({"at": 1.0, "call_sid": "CA1", **e}) + "\n" for e in events)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "agent.jsonl"


def test_a_result_belongs_to_the_call_with_its_id(log):
    write(
        log,
        {"event": "tool_call", "name": "find", "arguments": {"day": "Tuesday"}, "call_id": "a"},
        {"event": "tool_call", "name": "find"},
        {"event": "tool_call", "name": "book", "call_id": "b"},
        {"event": "tool_result", "call_id": "b", "error": "full"},
        {"event": "tool_result", "call_id": "a", "result": {"free": 2}},
    )

    calls = tool_calls(tail_of_call(log, "CA1").read())

    assert [(call.name, call.arguments) for call in calls] == [
        ("find", {"day": "Tuesday"}),
        ("find", {}),
        ("book", {}),
    ]
    assert [(call.result, call.error) for call in calls] == [
        ({"free": 2}, None),
        (None, None),
        (None, "full"),
    ]


@pytest.mark.parametrize("by", [str, "sqlite:///{}".format])
def test_what_the_gateway_writes_is_read_while_it_writes_it(tmp_path, by):
    path = tmp_path / "calls.db"
    tail = tail_of_call(by(path), "CA1")
    assert tail.read() == []
    records = CallRecords(RecordSettings(directory=tmp_path))
    records.start()
    assert tail.read() == []
    records.open("CA2").event("agent_text", turn=0, text="another call's")
    recorder = records.open("CA1")
    recorder.event("tool_call", turn=1, name="book", arguments={"day": "Tuesday"}, call_id="a")
    records.flush()
    assert [event.name for event in tail.read()] == ["call_offered", "tool_call"]
    recorder.event("tool_result", turn=1, call_id="a", result=True)
    recorder.close("caller_hung_up")
    records.flush()
    assert [event.name for event in tail.read()] == ["tool_result", "call_ended"]
    assert tail.read() == []

    (call,) = tool_calls(tail.events)

    assert (call.name, call.arguments, call.result) == ("book", {"day": "Tuesday"}, True)
    tail.close()
    records.stop()


def test_of_a_file_of_many_calls_only_those_of_one_are_read(log):
    tail = tail_of_call(log, "CA2")
    assert tail.read() == []
    write(log, {"event": "a"}, {"event": "b", "call_sid": "CA2"}, {"event": "c", "call_sid": None})
    assert [event.name for event in tail.read()] == ["b"]
    write(log, {"event": "d", "call_sid": "CA2"})
    assert [event.name for event in tail.read()] == ["d"]


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"event": "tool_call"}, "name"),
        ({"event": "tool_call", "name": "find", "arguments": '{"day": 1}'}, "arguments"),
        ({"event": "tool_result", "result": 1}, "call_id"),
        ({"event": "agent_text", "at": None}, "expected a JSON object with at and event"),
    ],
)
def test_an_event_that_is_not_as_it_should_be_is_named_with_its_file(log, event, named):
    write(log, event)

    with pytest.raises(ValueError, match=rf"agent\.jsonl: {named}"):
        tail_of_call(log, "CA1").read()


def test_a_database_of_another_kind_is_no_record(tmp_path):
    with pytest.raises(ValueError, match="expected sqlite:// or postgresql://, got mysql://"):
        tail_of_call("mysql://somewhere/calls", "CA1")
