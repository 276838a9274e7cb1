"""Records of any server: whose they are, and what is wrong with them."""

import json

import pytest

from telephony.records import CallRecords
from telephony.simulator.agent_records import RecordTail, tool_calls


def write(path, *events):
    with path.open("a") as file:
        file.writelines(json.dumps({"at": 1.0, **event}) + "\n" for event in events)


def test_a_result_belongs_to_the_call_with_its_id(tmp_path):
    write(
        tmp_path / "CA1.jsonl",
        {"event": "tool_call", "name": "find", "arguments": {"day": "Tuesday"}, "call_id": "a"},
        {"event": "tool_call", "name": "find"},
        {"event": "tool_call", "name": "book", "call_id": "b"},
        {"event": "tool_result", "call_id": "b", "error": "full"},
        {"event": "tool_result", "call_id": "a", "result": {"free": 2}},
    )

    calls = tool_calls(RecordTail.of_call(tmp_path, "CA1").read())

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


def test_what_the_gateway_writes_about_a_tool_is_read_back(tmp_path):
    recorder = CallRecords(tmp_path).open("CA1")
    recorder.event("tool_call", turn=1, name="book", arguments={"day": "Tuesday"}, call_id="a")
    recorder.event("tool_result", turn=1, call_id="a", result=True)
    recorder.close("caller_hung_up")

    (call,) = tool_calls(RecordTail.of_call(tmp_path, "CA1").read())

    assert (call.name, call.arguments, call.result) == ("book", {"day": "Tuesday"}, True)


def test_of_a_file_of_many_calls_only_those_of_one_are_read(tmp_path):
    log = tmp_path / "agent.jsonl"
    tail = RecordTail.of_call(log, "CA2")
    assert tail.read() == []
    write(log, {"event": "a", "call_sid": "CA1"}, {"event": "b", "call_sid": "CA2"}, {"event": "c"})
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
def test_an_event_that_is_not_as_it_should_be_is_named_with_its_file(tmp_path, event, named):
    write(tmp_path / "CA1.jsonl", event)

    with pytest.raises(ValueError, match=rf"CA1\.jsonl: {named}"):
        RecordTail.of_call(tmp_path, "CA1").read()
