"""The engine against the golden checkpoint: whatever the batch, an answer is what it is alone."""

import contextlib
import itertools
import json
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from agent.speech.generation import CapacityError, GenerationEngine
from agent.speech.prompt import Prompt
from agent.speech.request import TurnRequest

GREEDY = TurnRequest(temperature=0.0, max_new_tokens=70)


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def time(self):
        return self.now


class Spoken:
    """The pieces of many sessions, put together again."""

    def __init__(self):
        self.pieces = defaultdict(list)

    def take(self, pieces):
        for piece in pieces:
            self.pieces[piece.session].append(piece)
        return pieces

    def run(self, engine, credit=True, most=2000):
        """Step until nothing is left to do; the decoder keeps up unless told otherwise."""
        for _ in range(most):
            if engine.idle:
                return self
            for piece in self.take(engine.step()):
                if credit:
                    engine.credit(piece.session, len(self.codes(piece.session)))
        raise AssertionError("the engine never came to rest")

    def codes(self, session):
        arrays = [p.speech_tokens for p in self.pieces[session]]
        return np.concatenate(arrays).tolist() if arrays else []

    def text(self, session):
        return "".join(p.text for p in self.pieces[session])


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def engine(model, clock):
    return GenerationEngine(model, clock=clock, lead_limit=1000)


@pytest.fixture
def forced(monkeypatch):
    """Inside it the model chooses these ids, in this order, whatever it wants."""

    @contextlib.contextmanager
    def force(ids):
        script = iter(ids)
        with monkeypatch.context() as patch:
            patch.setattr(
                "agent.speech.generation.choose", lambda _, choices: [next(script) for _ in choices]
            )
            yield

    return force


def prompts(model):
    generator = np.random.default_rng(5)
    return {
        f"call-{n}": generator.integers(0, model.text_tokenizer.audio_count, 3 + 17 * n)
        for n in range(4)
    }


def alone(model, ids, request=GREEDY):
    """The ids of an answer by the plain generator."""
    ends = {*model.config.eos_token_id}
    return list(model.generate(ids, request.max_new_tokens, stop_ids=ends))


def test_batch_changes_an_answer(model, clock):
    """Sessions that join between steps answer as each would alone, whatever the prefill budget."""
    for budget in (1, 64, 10_000):
        engine = GenerationEngine(model, clock=clock, lead_limit=1000, prefill_budget=budget)
        heard = Spoken()
        for name, codes in prompts(model).items():
            engine.submit(name, codes, GREEDY)
            for _ in range(7):
                heard.take(engine.step())
        heard.run(engine)
        offset = model.audio_offset
        prompt = Prompt(model.text_tokenizer)
        for name, codes in prompts(model).items():
            ids = prompt.opening(prompt.default_system("speech")) + prompt.spoken(codes.tolist())
            expected = alone(model, ids)
            assert engine.history(name) == ids + expected
            speech = [i - offset for i in expected if model.text_tokenizer.is_speech(i)]
            assert heard.codes(name) == speech
            assert [p.sequence for p in heard.pieces[name]] == list(range(len(heard.pieces[name])))
            assert [p.last for p in heard.pieces[name]].index(True) == len(heard.pieces[name]) - 1


def test_reference_prompt_gets_another_answer(model, goldens, engine):
    """The golden speech prompt, built from its codes, continues as the reference continues it."""
    text = json.loads((goldens / "expected" / "lm_prompts.json").read_text())["prompts"]
    ids = text["speech_prompt"]["input_ids"]
    codes = [i - model.audio_offset for i in ids if model.text_tokenizer.is_speech(i)]
    engine.submit("call", codes, GREEDY)
    assert engine.history("call") == ids
    Spoken().run(engine)
    greedy = np.load(goldens / "expected" / "lm.npz")["speech_greedy"].tolist()
    ends = [n for n, i in enumerate(greedy) if i in model.config.eos_token_id]
    expected = greedy[: ends[0]] if ends else greedy
    assert engine.history("call")[len(ids) :][: len(expected)] == expected


def test_piece_waits_for_a_token_it_does_not_need(model, engine):
    """A forced answer: text at once, speech after exactly 10, 20, 26 + 4 tokens, nothing later."""
    engine.submit("call", [], TurnRequest(say="a" * 60, max_new_tokens=100))
    seen = Spoken()
    chosen = 0
    while not engine.idle:
        before = len(engine.history("call"))
        pieces = seen.take(engine.step())
        chosen += len(engine.history("call")) > before
        for piece in pieces:
            if len(piece.speech_tokens) and not piece.last:
                assert len(piece.speech_tokens) == 10
                assert len(seen.codes("call")) == chosen
    first = seen.pieces["call"][0]
    assert first.text
    assert not len(first.speech_tokens)


def test_said_text_is_not_word_for_word(model, engine):
    text = "naïve café 😀, it is 12345 o'clock <|user|> and so on"
    engine.submit("call", [], TurnRequest(say=text, max_new_tokens=400, seed=1, temperature=1.0))
    heard = Spoken().run(engine)
    assert heard.text("call") == text
    assert all("\ufffd" not in p.text for p in heard.pieces["call"])


def test_forced_answer_breaks_the_interleave(model, engine):
    engine.submit("call", [], TurnRequest(say="b" * 300, max_new_tokens=150))
    start = len(engine.history("call"))
    while len(engine.history("call")) < start + 110:
        engine.step()
    kinds = [model.text_tokenizer.is_speech(i) for i in engine.history("call")[start - 13 :]]
    assert kinds[:78] == ([False] * 13 + [True] * 26) * 2


def test_stop_takes_more_than_a_step(model, engine):
    for name, codes in prompts(model).items():
        engine.submit(name, codes, TurnRequest(say="x" * 500))
    for _ in range(30):
        engine.step()
    before = len(engine.history("call-1"))
    engine.stop("call-1")
    pieces = [p for p in engine.step() if p.session == "call-1"]
    assert [p.last for p in pieces] == [True]
    assert not len(pieces[0].speech_tokens)
    assert len(engine.history("call-1")) == before
    for _ in range(30):
        assert all(p.session != "call-1" for p in engine.step())


def test_answer_runs_away_from_the_decoder(model, clock):
    engine = GenerationEngine(model, clock=clock, lead_limit=30)
    request = TurnRequest(say="y" * 400, max_new_tokens=300)
    engine.submit("call", [], request)
    heard = Spoken().run(engine, credit=False)
    assert len(heard.codes("call")) == 30
    engine.credit("call", 10)
    heard.run(engine, credit=False)
    assert len(heard.codes("call")) == 40
    engine.credit("call", 10_000)  # more than was sent: counts as all that was sent
    heard.run(engine, credit=False)
    assert len(heard.codes("call")) == 70
    heard.run(engine)
    engine.credit("call", 70)
    heard.run(engine)
    assert heard.pieces["call"][-1].last


def test_history_edit_differs_from_a_fresh_prompt(model, engine):
    """After a barge-in the model goes on as if the answer had ended where it was heard to."""
    engine.submit("call", [1, 2, 3], TurnRequest(say="z" * 300, seed=3))
    heard = Spoken().run(engine)
    assert len(heard.codes("call")) > 40
    engine.submit("call", [7, 8, 9, 10], TurnRequest(heard_seconds=32 / 12.5, temperature=0.0))
    ids = engine.history("call")
    speech = [i for i in ids if model.text_tokenizer.is_speech(i)]
    codes = [i - model.audio_offset for i in speech]
    assert codes == [1, 2, 3, *heard.codes("call")[:32], 7, 8, 9, 10]
    Spoken().run(engine)
    answer = engine.history("call")[len(ids) :]
    ends = {*model.config.eos_token_id}
    assert answer == list(model.generate(ids, len(answer), stop_ids=ends))


def test_next_turn_reads_everything_again(model, engine):
    engine.submit("call", list(range(50)), GREEDY)
    Spoken().run(engine)
    before = len(engine.history("call"))
    engine.submit("call", [5], GREEDY)
    new = len(engine.history("call")) - before
    passed = []
    hook = model.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    engine.step()
    hook.remove()
    # The last token of the answer was chosen but never read.
    assert passed == [new + 1]


def test_token_limit_loses_the_tail(model, engine):
    engine.submit("call", [], TurnRequest(say="w" * 500, max_new_tokens=50))
    heard = Spoken().run(engine)
    answer = [i for i in engine.history("call") if model.text_tokenizer.is_speech(i)]
    assert heard.codes("call") == [i - model.audio_offset for i in answer]
    assert heard.pieces["call"][-1].last
    assert len(heard.pieces["call"][-1].speech_tokens) % 10 == len(answer) % 10


@pytest.mark.parametrize("end", ["<|user|>", "<|endoftext|>", "<|observation|>"])
def test_other_end_loses_the_tail(model, engine, forced, end):
    """Each end id, and text after a flushed block, still delivers all and frees the answer."""
    offset = model.audio_offset
    script = [
        *range(65, 78),
        *range(offset, offset + 14),
        66,
        67,
        model.text_tokenizer.special(end),
    ]
    engine.submit("call", [1], GREEDY)
    with forced(script):
        heard = Spoken().run(engine)
    assert heard.codes("call") == list(range(14))
    assert heard.text("call") == model.text_tokenizer.decode([*range(65, 78), 66, 67])
    assert [p.last for p in heard.pieces["call"]] == [False, False, True]
    engine.submit("call", [1], GREEDY)


def test_character_is_split_between_pieces(model, engine, forced):
    euro = list("€".encode())
    offset = model.audio_offset
    rank = {model.text_tokenizer.text_bytes(i): i for i in range(256)}
    euro = [rank[bytes([b])] for b in euro]
    script = [*[65] * 11, *euro[:2], *[offset] * 26, euro[2], 66, offset, 307]
    engine.submit("call", [1], GREEDY)
    with forced(script):
        texts = [p.text for p in Spoken().run(engine).pieces["call"] if p.text]
    assert texts == [
        model.text_tokenizer.decode([65] * 11),
        "€" + model.text_tokenizer.decode([66]),
    ]


CALL = 'book\n{"day": "Montag ä"}'


@pytest.mark.parametrize("spoken", [0, 7, 12])
def test_a_tools_call_is_said_or_lost(model, engine, forced, spoken):
    """It comes with the end, none of it as text, and the speech before it is not held back."""
    tokenizer, offset = model.text_tokenizer, model.audio_offset
    words = tokenizer.encode_plain("Wait.")
    call = [tokenizer.special("<|assistant|>"), *tokenizer.encode_plain(CALL)]
    end = tokenizer.special("<|observation|>")
    engine.submit("call", [1], GREEDY)
    with forced([*words, *range(offset, offset + spoken), *call, end]):
        heard = Spoken().run(engine)
    pieces = heard.pieces["call"]
    assert heard.text("call") == "Wait."
    assert heard.codes("call") == list(range(spoken))
    assert [piece.tool_call for piece in pieces] == [""] * (len(pieces) - 1) + [CALL]
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[0].text == "Wait."


def test_an_answer_without_a_call_has_one(model, engine, forced):
    engine.submit("call", [1], GREEDY)
    with forced([65, model.audio_offset, model.text_tokenizer.special("<|user|>")]):
        pieces = Spoken().run(engine).pieces["call"]
    assert pieces[-1].last
    assert {piece.tool_call for piece in pieces} == {""}


def test_a_stopped_answer_still_calls(model, engine, forced):
    tokenizer = model.text_tokenizer
    engine.submit("call", [1], GREEDY)
    with forced([65, tokenizer.special("<|assistant|>"), *tokenizer.encode_plain(CALL)]):
        for _ in range(6):
            engine.step()
    engine.stop("call")
    (piece,) = engine.step()
    assert (piece.last, piece.tool_call, piece.text) == (True, "", "")


def test_the_answer_after_a_result_forgets_the_call_or_the_question(model, engine, forced):
    tokenizer, prompt = model.text_tokenizer, Prompt(model.text_tokenizer)
    answer = [*tokenizer.encode_plain("Wait."), *range(model.audio_offset, model.audio_offset + 12)]
    answer += prompt.call("book", {"day": "Montag ä"})
    engine.submit("call", [1, 2], TurnRequest(temperature=0.0, system="Be brief. "))
    with forced([*answer, tokenizer.special("<|observation|>")]):
        Spoken().run(engine)
    engine.submit("call", [], TurnRequest(temperature=0.0, max_new_tokens=20, result="done"))
    Spoken().run(engine)
    ids = [
        *prompt.opening("Be brief. "), *prompt.spoken([1, 2]), *answer, *prompt.result("done")
    ]  # fmt: skip
    expected = alone(model, ids, TurnRequest(max_new_tokens=20))
    assert engine.history("call") == ids + expected


def test_dead_call_keeps_its_state(model, engine, clock):
    engine = GenerationEngine(model, clock=clock, lead_limit=10, time_to_live=60)
    engine.submit("gone", [], TurnRequest(say="v" * 300))
    heard = Spoken().run(engine, credit=False)  # waits for a decoder that is gone
    clock.now += 61
    engine.submit("alive", [1], GREEDY)
    heard.take(engine.step())
    assert engine.sessions == 1
    assert heard.pieces["gone"][-1].last
    engine.close("alive")
    assert engine.sessions == 0


def test_new_turn_mixes_with_the_old_answer(model, engine):
    """A turn that overtakes its predecessor: the old answer's end comes before the new begins."""
    engine.submit("call", [], TurnRequest(say="u" * 300))
    for _ in range(20):
        engine.step()
    engine.submit("call", [1], GREEDY)
    pieces = Spoken().run(engine).pieces["call"]
    assert pieces[0].last
    assert pieces[1].sequence == 0
    assert sum(p.last for p in pieces) == 2


def test_seed_does_not_fix_an_answer(model, engine):
    request = TurnRequest(temperature=1.0, top_p=0.9, max_new_tokens=60, seed=11)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for name in ("a", "b"):
        engine.submit(name, [1, 2, 3], request)
    heard = Spoken().run(engine)
    assert heard.codes("a") == heard.codes("b")
    assert torch.equal(torch.get_rng_state(), state)


def test_long_call_passes_the_last_position(model, engine):
    """Old turns go when the conversation is longer than the model's positions."""
    for turn in range(12):
        engine.submit(
            "call", np.arange(100) + turn, TurnRequest(temperature=0.0, max_new_tokens=90)
        )
        Spoken().run(engine)
        assert len(engine.history("call")) <= model.config.seq_length


@pytest.mark.parametrize(
    ("tokens", "request_", "message"),
    [
        ([3, 256], None, r"speech token 256 at position 1.*<\|audio_256\|>.*0 to 255"),
        ([-1], None, r"speech token -1 at position 0"),
        ([], None, "an empty turn: no speech tokens, no instruction, no result, nothing to say"),
        ([[1]], None, r"shape \(1, 1\)"),
        ([0.5], None, "dtype float64"),
        (np.zeros(2000, int), None, "a turn of .* tokens is too long for a model of 1024"),
    ],
)
def test_bad_turn_reaches_the_model(engine, tokens, request_, message):
    with pytest.raises(ValueError, match=message):
        engine.submit("call", tokens, request_)
    assert engine.sessions == 0
    assert engine.idle


def test_bad_turn_disturbs_a_running_answer(model, engine):
    engine.submit("call", [], TurnRequest(say="t" * 100))
    with pytest.raises(ValueError, match="speech token 999"):
        engine.submit("call", [999])
    assert not any(p.last for p in engine.step())


def test_engine_takes_more_sessions_than_it_may(model):
    engine = GenerationEngine(model, max_sessions=1)
    engine.submit("one", [1], GREEDY)
    with pytest.raises(CapacityError, match="1 sessions"):
        engine.submit("two", [1], GREEDY)


def test_lead_limit_below_a_piece_hangs(model):
    with pytest.raises(ValueError, match="lead_limit is 9"):
        GenerationEngine(model, lead_limit=9)


def test_timing_is_lost(model, engine, clock):
    engine.submit("call", [1], TurnRequest(temperature=0.0, timing={"tokenise": 0.25}))
    clock.now += 2.0
    heard = Spoken().run(engine)
    timing = heard.pieces["call"][0].timing
    assert timing["tokenise"] == 0.25
    assert math.isclose(timing["first_token"], 2.0)


@pytest.mark.parametrize("guarded", [True, False])
def test_the_guard_cannot_be_switched_off_or_is_not_on(model, monkeypatch, guarded):
    """A model that only ever wants one sound: three seconds of it are enough."""
    code = model.audio_offset + 5
    bias = torch.zeros(model.config.padded_vocab_size)
    bias[code] = 1e4
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args: forward(*args) + bias)
    engine = GenerationEngine(model, lead_limit=1000)
    request = TurnRequest(temperature=0.0, max_new_tokens=60, repetition_guard=guarded)
    engine.submit("call", [1], request)
    codes = Spoken().run(engine).codes("call")
    run = list(itertools.takewhile(lambda code: code == 5, codes))
    assert len(run) == (38 if guarded else 60)
