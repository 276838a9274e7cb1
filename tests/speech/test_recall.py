"""Conversations that an engine is told because the one that had them is gone."""

import json

import pytest

from agent.speech.generation import GenerationEngine
from agent.speech.prompt import Prompt
from agent.speech.request import KnownAnswer, TurnRequest
from agent.speech.system_prompt import SPEECH_SYSTEM

CODES = [1, 2, 3]
SAY = "one two three four five six seven eight nine ten eleven twelve"


@pytest.fixture
def engine(model):
    return GenerationEngine(model, lead_limit=1000)


@pytest.fixture
def other(model):
    return GenerationEngine(model, lead_limit=1000)


def answered(engine, tokens, request):
    """A turn's answer as the client keeps it."""
    engine.submit("call", tokens, request)
    pieces = []
    while not pieces or not pieces[-1].last:
        pieces += engine.step()
    codes = [int(code) for piece in pieces for code in piece.speech_tokens]
    return KnownAnswer("".join(piece.text for piece in pieces), tuple(codes))


def told(engine, tokens, request, answer):
    fields = {**json.loads(request.to_json()), "answered": json.loads(json.dumps(vars(answer)))}
    engine.recall("call", tokens, TurnRequest.from_json(json.dumps(fields)))


def test_a_conversation_that_is_told_is_the_one_that_was_had(engine, other):
    said = TurnRequest(temperature=0.0, say=SAY, max_new_tokens=120)
    told(other, [], said, answered(engine, [], said))
    assert other.history("call") == engine.history("call")
    # Its last answer was cut off, as the next turn tells.
    cut = TurnRequest(temperature=0.0, heard_seconds=2.4, say="yes", max_new_tokens=40)
    told(other, [], cut, answered(engine, [], cut))
    assert other.history("call") == engine.history("call")
    heard = TurnRequest(temperature=0.0, max_new_tokens=40)
    assert answered(other, CODES, heard) == answered(engine, CODES, heard)


def test_what_the_caller_said_and_a_call_of_a_tool_are_told_too(model, engine):
    prompt = Prompt(model.text_tokenizer)
    call = KnownAnswer("One moment.", (5, 6), 'look_up\n{"doctor": "Smith"}')
    told(engine, CODES, TurnRequest(), call)
    told(engine, [], TurnRequest(result="Monday"), KnownAnswer("On Monday.", (7,)))
    encode, speech = model.text_tokenizer.encode_plain, model.text_tokenizer.speech_ids
    first, second = encode("One moment."), encode("On Monday.")
    assert len(first) <= 13
    assert len(second) <= 13
    assert engine.history("call") == [
        *prompt.opening(SPEECH_SYSTEM), *prompt.spoken(CODES), *first, *speech([5, 6]),
        *prompt.call("look_up", {"doctor": "Smith"}),
        *prompt.result("Monday"), *second, *speech([7]),
    ]  # fmt: skip


def test_text_leads_the_speech_by_one_run(model, engine):
    told(engine, CODES, TurnRequest(), KnownAnswer(SAY, tuple(range(20))))
    prompt = Prompt(model.text_tokenizer)
    text = model.text_tokenizer.encode_plain(SAY)
    assert len(text) > 26
    history = engine.history("call")
    beginning = [*prompt.opening(SPEECH_SYSTEM), *prompt.spoken(CODES)]
    codes = model.text_tokenizer.speech_ids(range(20))
    assert history == [*beginning, *text[:13], *codes]


def test_what_is_told_is_read_ahead(engine):
    told(engine, CODES, TurnRequest(), KnownAnswer("yes", (1, 2)))
    assert not engine.idle
    while not engine.idle:
        assert engine.step() == []
    assert engine._sessions["call"].read == engine.history("call")


def test_a_history_that_is_gone_is_an_error_not_a_new_conversation(engine):
    on = TurnRequest(goes_on=True, max_new_tokens=5)
    for ask in (engine.submit, engine.listen):
        with pytest.raises(ValueError, match="history of this session is not held"):
            ask("call", CODES, on)
    assert engine.sessions == 0
    told(engine, CODES, TurnRequest(), KnownAnswer("yes", (1, 2)))
    engine.submit("call", CODES, on)
    engine.retract("call", "")
    engine.close("call")


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (3, "'answered' is not an object of text, speech, tool_call"),
        ({"words": ""}, "'answered' is not an object of text, speech, tool_call"),
        ({"text": 3}, "'answered.text' is not a text"),
        ({"speech": [1.5]}, "'answered.speech' is not a list of whole numbers"),
        ({"speech": "12"}, "'answered.speech' is not a list of whole numbers"),
    ],
)
def test_an_answer_that_is_none_is_named(answered, message):
    with pytest.raises(ValueError, match=message):
        TurnRequest.from_json(json.dumps({"answered": answered}))


def test_an_answer_with_unknown_codes_leaves_the_session_as_it_was(engine):
    with pytest.raises(ValueError, match="speech token 999999"):
        told(engine, CODES, TurnRequest(), KnownAnswer("yes", (999_999,)))
    assert engine.sessions == 0
