"""What happens around an answer: reading along before it, taking it back, writing words down."""

import dataclasses

import numpy as np
import pytest

from agent.speech.generation import CapacityError, GenerationEngine
from agent.speech.prompt import Prompt
from agent.speech.request import TurnRequest
from agent.speech.text_tokenizer import TextStream

GREEDY = TurnRequest(temperature=0.0, max_new_tokens=40)
TURN = list(range(40, 100))


class Model:
    """The golden model, counting the tokens it reads."""

    def __init__(self, model):
        self.model = model
        self.read = []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, ids, lengths, caches, rows):
        self.read.append(list(lengths))
        return self.model(ids, lengths, caches, rows)


@pytest.fixture
def counting(model):
    return Model(model)


@pytest.fixture
def engine(counting):
    return GenerationEngine(counting, lead_limit=1000)


def run(engine):
    """Step until nothing is left to do."""
    pieces = []
    for _ in range(3000):
        if engine.idle:
            return pieces
        pieces += engine.step()
    raise AssertionError("the engine never came to rest")


def answered(model, *turns):
    """The history after these turns, answered one after the other by a fresh engine."""
    engine = GenerationEngine(model, lead_limit=1000)
    for turn in turns:
        engine.submit("call", turn, GREEDY)
        run(engine)
    return engine.history("call")


def test_listening_changes_the_answer(model, engine):
    for end in (10, 25, 50):
        engine.listen("call", TURN[:end], GREEDY)
        assert run(engine) == []
    engine.submit("call", TURN, GREEDY)
    run(engine)
    assert engine.history("call") == answered(model, TURN)


def test_what_was_listened_to_is_read_again(engine, counting):
    engine.listen("call", TURN[:50], GREEDY)
    run(engine)
    heard = sum(map(sum, counting.read))
    counting.read.clear()
    engine.submit("call", TURN, GREEDY)
    engine.step()
    prompt = len(engine.history("call")) - 1  # the step chose one more
    assert counting.read == [[prompt - heard]]
    assert counting.read[0][0] < 30


def test_tokens_that_were_revised_stay_in_the_cache(model, engine):
    """A stream may revise its tail: what was heard differently is read anew."""
    engine.listen("call", [*TURN[:20], 7, 7, 7], GREEDY)
    run(engine)
    engine.submit("call", TURN, GREEDY)
    run(engine)
    assert engine.history("call") == answered(model, TURN)


def test_a_listened_session_counts_and_a_full_engine_refuses_it(model):
    engine = GenerationEngine(model, max_sessions=1)
    engine.listen("one", [1], GREEDY)
    assert engine.sessions == 1
    with pytest.raises(CapacityError, match="1 sessions"):
        engine.listen("two", [1], GREEDY)
    engine.submit("one", [1, 2], GREEDY)
    with pytest.raises(CapacityError, match="1 sessions"):
        engine.submit("two", [1], GREEDY)


def test_bad_codes_open_a_session(engine):
    with pytest.raises(ValueError, match="speech token 9999"):
        engine.listen("call", [9999], GREEDY)
    assert engine.sessions == 0


def test_listening_while_an_answer_runs_disturbs_it(model, engine):
    engine.submit("call", TURN, GREEDY)
    engine.step()
    engine.listen("call", [1, 2, 3], GREEDY)
    run(engine)
    assert engine.history("call") == answered(model, TURN)


def test_listening_holds_up_the_answers_of_others(engine, counting):
    engine.submit("asks", [1, 2], GREEDY)
    engine.step()
    counting.read.clear()
    long = dataclasses.replace(GREEDY, max_new_tokens=10)
    engine.listen("speaks", np.arange(300) % 200, long)
    engine.step()
    assert counting.read == [[1, 64]]
    run(engine)
    assert all(lengths[0] == 1 for lengths in counting.read[1:20])


def test_an_early_answer_leaves_a_trace(model, engine):
    """The caller went on: the answer to half a turn was never given."""
    engine.submit("call", TURN[:20], GREEDY)
    run(engine)
    before = engine.history("call")
    engine.submit("call", TURN[:50], GREEDY, name="call/1")
    for _ in range(20):
        engine.step()
    assert engine.retract("call", "call/1")
    pieces = run(engine)
    assert [piece.last for piece in pieces] == [True]
    assert engine.history("call") == before
    engine.submit("call", TURN, GREEDY, name="call/2")
    run(engine)
    assert engine.history("call") == answered(model, TURN[:20], TURN)


def test_an_early_answer_that_is_complete_cannot_be_taken_back(engine):
    engine.submit("call", TURN, GREEDY)
    run(engine)
    before = engine.history("call")
    engine.submit("call", [1, 2], GREEDY, name="call/1")
    run(engine)
    assert engine.retract("call", "call/1")
    assert engine.history("call") == before
    assert engine.idle


def test_a_late_retract_meets_another_turn(engine):
    engine.submit("call", TURN, GREEDY, name="call/0")
    assert not engine.retract("call", "call/9")
    assert not engine.retract("nobody", "call/0")
    run(engine)
    assert len(engine.history("call")) > len(TURN)


def test_heard_audio_counts_twice_when_a_turn_is_asked_for_again(engine):
    """The history edit goes with the early request and again with the one that counts."""
    request = dataclasses.replace(GREEDY, heard_seconds=1.0)
    engine.submit("call", [], TurnRequest(say="c" * 60, max_new_tokens=200))
    run(engine)
    engine.submit("call", TURN[:20], request, name="call/1")
    once = engine.history("call")
    engine.retract("call", "call/1")
    engine.submit("call", TURN[:20], request, name="call/2")
    assert engine.history("call") == once


@pytest.fixture
def writing(counting):
    """An engine on a checkpoint that can transcribe."""
    counting.config = dataclasses.replace(
        counting.model.config, transcription_prompt="Transcribe it. "
    )
    return GenerationEngine(counting, lead_limit=1000)


def test_a_transcript_is_not_the_words_of_the_last_turn(model, writing):
    writing.submit("call", [1, 2, 3], GREEDY)
    writing.submit("call", TURN, GREEDY)
    writing.transcribe("call", "words")
    pieces = [piece for piece in run(writing) if piece.session == "words"]
    prompt = Prompt(model.text_tokenizer)
    ids = prompt.opening("Transcribe it. ") + prompt.spoken(TURN)
    expected = []
    speech = range(model.audio_offset, model.audio_offset + model.text_tokenizer.audio_count)
    while len(expected) < len(TURN) + 8:
        logits = model.logits([*ids, *expected])[-1]
        logits[speech] = -np.inf
        token = int(logits.argmax())
        if token in model.config.eos_token_id:
            break
        expected.append(token)
    words = TextStream(model.text_tokenizer)
    assert "".join(piece.text for piece in pieces) == words.push(expected) + words.finish()
    assert [piece.last for piece in pieces].index(True) == len(pieces) - 1
    assert not any(len(piece.speech_tokens) for piece in pieces)


def test_a_transcript_changes_the_call_or_outlives_itself(model, writing):
    writing.submit("call", TURN, GREEDY)
    writing.step()
    writing.transcribe("call", "words")
    run(writing)
    assert writing.history("call") == answered(model, TURN)
    assert writing.sessions == 1
    with pytest.raises(KeyError):
        writing.history("words")
    writing.transcribe("call", "words")  # the name is free again


def test_a_checkpoint_that_cannot_transcribe_never_answers(engine):
    engine.submit("call", TURN, GREEDY)
    engine.transcribe("call", "words")
    pieces = [piece for piece in run(engine) if piece.session == "words"]
    assert [(piece.text, piece.last) for piece in pieces] == [("", True)]


def test_a_typed_turn_is_transcribed(writing):
    writing.submit("call", [], TurnRequest(instruction="Hello", temperature=0, max_new_tokens=5))
    writing.transcribe("call", "words")
    writing.transcribe("nobody", "nothing")
    pieces = run(writing)
    for name in ("words", "nothing"):
        assert [(p.text, p.last) for p in pieces if p.session == name] == [("", True)]


def test_a_transcript_takes_a_session_that_runs(writing):
    writing.submit("call", TURN, GREEDY)
    with pytest.raises(ValueError, match="'call' is a session already"):
        writing.transcribe("call", "call")
