"""What a request's JSON may get wrong."""

import json

import pytest

from agent.speech.request import TurnRequest


def test_request_changes_on_its_way():
    request = TurnRequest(
        temperature=0.0,
        seed=4,
        say="naïve 😀",
        heard_seconds=1.25,
        close=True,
        decoded=20,
        timing={"tokenise": 0.01},
    )
    assert TurnRequest.from_json(request.to_json()) == request
    assert TurnRequest.from_json("") == TurnRequest.from_json("{}") == TurnRequest()
    assert json.loads(TurnRequest().to_json()) == {}


def test_a_result_is_lost_or_taken_for_speech():
    request = TurnRequest(result='{"free": "Montag ä"}')
    assert TurnRequest.from_json(request.to_json()) == request
    assert request.typed
    assert not TurnRequest().typed
    assert TurnRequest(say="Hello.").typed
    assert TurnRequest(instruction="Greet.").typed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "request is not JSON"),
        ("[]", "request is a JSON list, expected an object"),
        ('{"temprature": 1}', "field 'temprature' is unknown, expected one of answered, close"),
        ('{"temperature": -0.1}', "field 'temperature' is -0.1, expected a number of at least 0"),
        ('{"temperature": NaN}', "field 'temperature' is nan"),
        ('{"temperature": true}', "field 'temperature' is True"),
        ('{"top_p": 1.5}', "field 'top_p' is 1.5, expected a number of at least 0.0 and at most"),
        ('{"top_p": 0}', "field 'top_p' is 0"),
        ('{"max_new_tokens": 0}', "field 'max_new_tokens' is 0, expected a whole number"),
        ('{"max_new_tokens": 2.5}', "field 'max_new_tokens' is 2.5"),
        ('{"seed": "x"}', "field 'seed' is 'x'"),
        ('{"say": "  "}', "field 'say' is '  ', expected text"),
        ('{"instruction": 3}', "field 'instruction' is 3"),
        ('{"result": ""}', "field 'result' is '', expected text"),
        ('{"result": {"a": 1}}', "field 'result' is {'a': 1}"),
        ('{"heard_seconds": "2"}', "field 'heard_seconds' is '2'"),
        ('{"close": 1}', "field 'close' is 1, expected true or false"),
        ('{"decoded": -1}', "field 'decoded' is -1"),
        ('{"timing": {"a": "b"}}', "field 'timing' is not an object of seconds"),
    ],
)
def test_wrong_request_is_accepted(text, message):
    with pytest.raises(ValueError, match=message):
        TurnRequest.from_json(text)
