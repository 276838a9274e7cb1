"""Requests and answers held against Twilio's description."""

import pytest

from telephony.simulator.openapi import Description

ACCOUNT = "/2010-04-01/Accounts/AC" + "0" * 32
CALL = f"{ACCOUNT}/Calls/CA" + "0" * 32


@pytest.fixture
def description():
    return Description.shipped()


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", f"{ACCOUNT}/Calls.json", "CreateCall"),
        ("GET", f"{ACCOUNT}/Calls.json", "ListCall"),
        ("POST", f"{CALL}.json", "UpdateCall"),
        ("POST", f"{CALL}/Recordings.json", "CreateCallRecording"),
        ("DELETE", f"{CALL}/Recordings/RE{'0' * 32}.json", "DeleteCallRecording"),
        ("GET", f"{ACCOUNT}/Recordings/RE{'0' * 32}.json", "FetchRecording"),
    ],
)
def test_operations_are_found(description, method, path, operation):
    assert description.operation(method, path).id == operation


def test_what_is_not_there_is_not_found(description):
    assert description.operation("GET", f"{ACCOUNT}/Messages.json") is None
    assert description.operation("PUT", f"{ACCOUNT}/Calls.json") is None
    assert description.methods(f"{ACCOUNT}/Calls.json") == {"GET", "POST"}
    assert description.methods(f"{ACCOUNT}/Calls/a/b.json") == frozenset()


@pytest.mark.parametrize(
    ("form", "problems"),
    [
        ({"To": ["+1"], "From": ["+2"], "Timeout": ["30"], "Record": ["true"]}, []),
        ({"To": ["+1"]}, [("missing", "From")]),
        ({"To": ["+1"], "From": [""]}, [("missing", "From")]),
        ({"To": ["+1"], "From": ["+2"], "to": ["+1"]}, [("unknown", "to")]),
        ({"To": ["+1"], "From": ["+2"], "Timeout": ["30s"]}, [("malformed", "Timeout")]),
        ({"To": ["+1"], "From": ["+2"], "Record": ["yes"]}, [("malformed", "Record")]),
        ({"To": ["+1"], "From": ["+2"], "Method": ["PATCH"]}, [("malformed", "Method")]),
        ({"To": ["+1"], "From": ["+2"], "Url": ["ftp://a"]}, [("malformed", "Url")]),
        ({"To": ["+1", "+3"], "From": ["+2"]}, [("malformed", "To")]),
        ({"To": ["+1"], "From": ["+2"], "StatusCallbackEvent": ["ringing", "answered"]}, []),
    ],
)
def test_what_is_wrong_with_a_form_is_named(description, form, problems):
    operation = description.operation("POST", f"{ACCOUNT}/Calls.json")

    found = description.request_problems(operation, {}, form)

    assert [(problem.kind, problem.name) for problem in found] == problems
    assert all(problem.name in problem.detail for problem in found)


def test_a_path_that_holds_no_identifier_is_malformed(description):
    operation = description.operation("GET", f"{ACCOUNT}/Calls/CA12.json")

    assert [p.name for p in description.request_problems(operation, {}, {})] == ["Sid"]


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (201, {"status": "queued"}, "status 201"),
        (200, {"status": "asleep"}, "expected one of"),
        (200, {"status": None}, "null"),
        (200, {"sid": "CA12"}, "expected ^CA"),
        (200, {"sid": 12}, "expected string"),
        (200, {"mood": "fine"}, "mood: no such field"),
        (200, {}, "duration: missing"),
        (200, [], "expected object"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(description, status, body, complaint):
    operation = description.operation("GET", f"{CALL}.json")

    assert complaint in "; ".join(description.response_problems(operation, status, body))
