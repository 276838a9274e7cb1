"""Calls of tools in the engine's history: what stays of a cut answer, and where results go."""

import json

import pytest

from agent.speech.generation import GenerationEngine
from agent.speech.prompt import Prompt
from agent.speech.request import TurnRequest
from agent.speech.system_prompt import SPEECH_SYSTEM

CODES = [1, 2, 3]
ARGUMENTS = {"doctor": "Smith"}


@pytest.fixture
def engine(model):
    return GenerationEngine(model, lead_limit=1000)


@pytest.fixture
def prompt(model):
    return Prompt(model.text_tokenizer)


@pytest.fixture
def calls(model, engine, prompt, monkeypatch):
    """A session whose first answer is 13 text tokens, 20 speech tokens and a call."""
    speech = [model.audio_offset + code for code in range(20)]
    answer = [*range(65, 78), *speech, *prompt.call("look_up", ARGUMENTS)]
    script = iter([*answer, prompt.observation])
    with monkeypatch.context() as patch:
        patch.setattr(
            "agent.speech.generation.choose", lambda _, choices: [next(script) for _ in choices]
        )
        engine.submit("call", CODES, TurnRequest(temperature=0.0), name="first")
        pieces = []
        while not engine.idle:
            pieces += engine.step()
    return answer, pieces


def after(engine, request, tokens=()):
    """The history when the answer to the next turn begins."""
    engine.submit("call", tokens, request, name="next")
    history = engine.history("call")
    engine.stop("call")
    engine.step()
    return history


def test_the_call_comes_with_the_last_piece_and_the_speech_before_it(calls):
    _, pieces = calls
    *before, last = pieces
    name, _, arguments = last.tool_call.partition("\n")
    assert (name, json.loads(arguments)) == ("look_up", ARGUMENTS)
    assert last.last
    assert [piece.tool_call for piece in before] == [""] * len(before)
    assert sum(len(piece.speech_tokens) for piece in pieces) == 20


def test_a_result_follows_its_call(model, engine, prompt, calls):
    answer, _ = calls
    beginning = [*prompt.opening(SPEECH_SYSTEM), *prompt.spoken(CODES), *answer]
    history = after(engine, TurnRequest(result="Monday"))
    assert history == [*beginning, *prompt.result("Monday")]


def test_words_that_were_not_heard_go_but_a_call_that_was_made_stays(engine, prompt, calls):
    answer, _ = calls
    opening = [*prompt.opening(SPEECH_SYSTEM), *prompt.spoken(CODES)]
    call = prompt.call("look_up", ARGUMENTS)
    request = TurnRequest(heard_seconds=0.4, result_before="Monday")
    history = after(engine, request, [7, 8])
    assert history == [
        *opening, *answer[: 13 + 5], *call, *prompt.result("Monday"), *prompt.spoken([7, 8])
    ]  # fmt: skip


def test_a_call_that_was_not_made_goes_with_the_words_that_were_not_heard(engine, prompt, calls):
    answer, _ = calls
    opening = [*prompt.opening(SPEECH_SYSTEM), *prompt.spoken(CODES)]
    history = after(engine, TurnRequest(heard_seconds=0.4), [7, 8])
    assert history == [*opening, *answer[: 13 + 5], *prompt.spoken([7, 8])]


def test_a_turn_that_is_taken_back_takes_the_result_before_it_along(engine, prompt, calls):
    before = engine.history("call")
    request = TurnRequest(result_before="Monday", early=True)
    engine.submit("call", [7, 8], request, name="early")
    assert engine.history("call") == [*before, *prompt.result("Monday"), *prompt.spoken([7, 8])]
    assert engine.retract("call", "early")
    assert engine.history("call") == before


def test_a_result_before_a_turn_is_read_while_the_turn_is_spoken(engine, prompt, calls):
    """Reading along and the answer agree on the prompt: nothing is read twice."""
    request = TurnRequest(result_before="Monday", temperature=0.0)
    engine.listen("call", [7, 8], request)
    while not engine.idle:
        engine.step()
    read = list(engine._sessions["call"].read)
    history = after(engine, request, [7, 8])
    assert history[: len(read)] == read
    assert len(history) - len(read) == len(prompt.spoken([7, 8])) - len(prompt.speaking([7, 8]))


def test_a_filler_leaves_the_history_as_it_was(engine, calls):
    before = engine.history("call")
    filler = TurnRequest(say="One moment.", temperature=0.0, early=True, max_new_tokens=60)
    engine.submit("call", [], filler, name="filler")
    while not engine.idle:
        engine.step()
    assert engine.retract("call", "filler")
    assert engine.history("call") == before


@pytest.mark.parametrize("name", ["result", "result_before"])
def test_an_empty_result_is_refused(name):
    with pytest.raises(ValueError, match=f"request field '{name}' is ' ', expected text"):
        TurnRequest(**{name: " "})
