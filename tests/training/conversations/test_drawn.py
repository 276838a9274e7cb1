"""Scenes as the language model is shown them: what was asked, said, called, and what is learnt."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from agent.speech.prompt import SPEECH_SYSTEM, TEXT_SYSTEM, TRANSCRIBE_SYSTEM
from agent.training.examples import GIVEN, SPEECH, TEXT
from agent.training.line import NEUTRAL


def test_an_answer_is_another_questions_or_in_other_words_than_its_speech(material):
    texts = {}
    for _, exchange, read in material.calls(60, intents={"slower": 0.0}):
        start, learn = exchange.kinds.index(TEXT), exchange.kinds
        assert set(learn[:start]) == {GIVEN}
        assert GIVEN not in learn[start:]
        answer, style = material.answers(read)[-1]
        assert style == NEUTRAL
        *_, (_, said, number), (last, nothing, _) = read
        assert said == answer == material.said(number)
        assert (last, nothing) == ("user", "")
        assert material.learnt(exchange, TEXT) == f"{said}<|user|>"
        assert learn.count(SPEECH) == 60
        texts.setdefault(material.asked(read)[-1], set()).add(answer)
    line = material.lines["en"]
    for saying, answers in texts.items():
        assert answers == {intent.answer for intent in line.asked_by(saying)}
    assert set(texts) == set(line.sayings) - {"slower"}


def test_a_turn_goes_on_from_an_answer_that_was_not_given(material):
    after = {intent.answer: intent.after for intent in material.lines["en"].intents.values()}
    answer = {name: intent.answer for name, intent in material.lines["en"].intents.items()}
    followed = Counter()
    for _, _, read in material.calls(80, follow=1.0):
        said = [text for text, _ in material.answers(read)]
        for before, text in itertools.pairwise(said[1:]):
            if after[text] is not None:
                assert before == answer[after[text]]
                followed[after[text].split(":")[0]] += 1
            else:  # where the line goes on from an answer, it does
                assert before not in [answer[name] for name in after.values() if name]
    assert min(followed["book"], followed["book_day"]) > 20
    for _, _, read in material.calls(20, follow=0.0):
        assert all(after[text] is None for text, _ in material.answers(read)[1:])


def test_a_tool_is_called_with_another_value_or_the_answer_comes_before_its_result(material):
    results = Counter()
    for _, exchange, read in material.calls(80, tools=1.0, follow=1.0, whole=0.5):
        assert '## book\n\n{\n    "name": "book"' in read[0][1]
        turn = material.read(exchange.ids)
        if not (material.asked(turn)[0] or "").startswith("day:"):
            assert "observation" not in [role for role, *_ in turn]
            continue
        day = material.asked(turn)[0].removeprefix("day:")
        called = f'book\n{{"day": "{day}"}}'
        assert [role for role, *_ in turn[:4]] == ["user", "assistant", "assistant", "observation"]
        assert [text for _, text, _ in turn[1:3]] == ["One moment.", called]
        text = material.learnt(exchange, TEXT)
        if exchange.ids[-1] == material.tokenizer.special("<|observation|>"):
            results["ends"] += 1
            assert text == f"One moment.<|assistant|>{called}<|observation|>"
            continue
        (_, result, _), (_, said, number), (end, _, _) = turn[3:]
        results[result] += 1
        assert said == {"done": f"It is {day}.", "full": f"{day} is full."}[result]
        assert said == material.said(number)
        assert end == "user"
        assert text == f"One moment.<|assistant|>{called}<|observation|>{said}<|user|>"
        given = material.learnt(exchange, GIVEN)
        assert given.endswith(f"\n{result}<|assistant|>streaming_transcription\n")
    assert min(results[name] for name in ("done", "full", "ends")) > 2


def test_a_call_without_tools_calls_one(material):
    for _, _, read in material.calls(40, follow=1.0):
        assert "observation" not in [role for role, *_ in read]
        assert "可用工具" not in read[0][1]


def test_a_style_is_not_kept_to_the_end_of_a_call(material):
    """By instruction from the greeting on; asked for aloud, from that answer on."""
    prompts, changed = Counter(), 0
    for share in (0.0, 1.0):
        for _, _, read in material.calls(50, styled=share):
            style = "slow" if share else NEUTRAL
            instruction = [
                text for text in ("Speak slowly.", "Slowly please.") if text in read[0][1]
            ]
            assert len(instruction) == share
            if instruction:
                prompts[read[0][1] == instruction[0]] += 1
                prompts[instruction[0]] += 1
            for text, found in material.answers(read):
                if text == "诊所您好。":
                    continue  # whatever language callers are greeted in, it is English they speak
                if text == "Very well.":
                    changed += style == NEUTRAL
                    style = "slow"
                assert found == style
    assert changed > 5
    assert min(prompts[kind] for kind in (True, False, "Speak slowly.", "Slowly please.")) > 5


def test_a_call_is_in_two_languages(material):
    counts = Counter()
    for _, _, read in material.calls(80, languages={"en": 0.5, "zh": 0.5}, follow=1.0):
        spoken = {material.said(n, "language") for r, _, n in read if r == "user" and n is not None}
        (language,) = spoken
        counts[language] += 1
        greeting, *said = [text for text, _ in material.answers(read)]
        assert set(said) <= set(material.lines[language].texts())
        counts[language, "greeted in", greeting] += 1
        if any(text.startswith("约好") for text in said):
            counts["follow"] += 1
    assert min(counts["en"], counts["zh"]) > 80
    assert counts["follow"] > 10
    for language, own, other in (
        ("en", "Clinic, hello?", "诊所您好。"),
        ("zh", "诊所您好。", "Clinic, hello?"),
    ):
        assert counts[language, "greeted in", own] > counts[language, "greeted in", other] > 0
    for language in material.lines:
        for _, _, read in material.calls(10, languages={language: 1.0}):
            assert {material.said(n, "language") for r, _, n in read if n and r == "user"} == {
                language
            }


def test_intents_come_as_often_as_they_have_values(material):
    others = dict.fromkeys(("book", "slower", "fallback"), 0.0)
    kinds = Counter(
        intent.split(":")[0]
        for _, _, read in material.calls(60, turns=0, intents=others)
        for intent in material.asked(read)
    )
    assert set(kinds) == {"open", "move"}
    assert 0.35 < kinds["move"] / kinds.total() < 0.65
    kinds = Counter(
        material.asked(read)[0].split(":")[0]
        for _, _, read in material.calls(60, turns=0, intents=others | {"move": 3.0})
    )
    assert kinds["move"] / kinds.total() > 0.65


def test_random_words_get_another_answer_than_the_fallback(material):
    heard = Counter()
    only = dict.fromkeys(("open", "book", "move", "slower"), 0.0)
    for _, _, read in material.calls(20, turns=0, intents=only, unknown=0.5):
        assert material.answers(read)[-1][0] == "No idea."
        heard[next(n for r, _, n in read if r == "user" and n is not None)] += 1
    assert {material.said(number) for number in heard} == {"random words", "What is new."}


def test_a_call_in_the_midst_of_several_turns_has_not_come_there(material):
    contexts = Counter()
    for start, _, _ in material.calls(60, amid=1.0, turns=2):
        ended = material.answers(material.read(start))[-1][0]
        assert ended in ("Which day.", "Booked for Monday.", "Booked for Friday.")
        contexts[ended] += 1
    assert len(contexts) == 3
    # Both days together are one of two contexts.
    assert 0.3 < contexts["Which day."] / contexts.total() < 0.7


def test_greeting_with_tools_is_not_learnt_to_its_end(material):
    conversations, rng = (
        material.conversations(greetings=3, tools=0.5, styled=0.5),
        np.random.default_rng(0),
    )
    prompts = set()
    for _ in range(20):
        greetings = conversations.draw(material.heard, rng)[3:]
        assert len(greetings) == 3
        for scene in greetings:
            (exchange,) = scene.exchanges
            (_, asked, _), (_, said, _), _ = material.read(exchange.ids)
            assert (asked, said) in {
                ("Greet the caller.", "Clinic, hello?"), ("问候来电者。", "诊所您好。")
            }  # fmt: skip
            assert material.learnt(exchange, TEXT) == f"{said}<|user|>"
            prompt = material.tokenizer.decode(scene.start)
            prompts.add(("Books." in prompt, "lowly" in prompt))
    assert len(prompts) == 4


def test_a_typed_question_is_none_of_the_lines(material):
    line = material.lines["en"]
    for _, exchange, _ in material.calls(20, typed=1.0):
        role, question, number = material.read(exchange.ids)[0]
        assert (role, number) == ("user", None)
        assert question in {text for saying in line.sayings.values() for text in saying.train}


def test_an_answer_that_is_cut_in_history_lacks_its_question_or_is_learnt(material):
    cut = whole = 0
    for start, exchange, _ in material.calls(90, tools=1.0, cut=1.0, follow=1.0):
        parts = re.split(r"(?=<\|user\|>)", material.tokenizer.decode(start))
        for part in parts[1:]:
            speech = part.split("streaming_transcription\n", 1)[1].count("<|audio_")
            if "<|observation|>" in part:
                whole += speech == 120
                assert speech == 120
            else:
                assert speech < 60
                cut += 1
        assert exchange.kinds.count(SPEECH) in (60, 120)
    assert cut > 30
    assert whole > 0


def test_what_is_known_by_heart_soon_is_learnt_to_its_end(material):
    for _, exchange, _ in material.calls(10, whole=0.0):
        assert SPEECH not in exchange.kinds
        said = material.learnt(exchange, TEXT)
        assert any(answer.startswith(said) for answer in material.lines["en"].texts())


@pytest.mark.parametrize(("noise", "length"), [({"double": 1.0}, 8), ({"drop": 1.0}, 4), ({}, 4)])
def test_codes_are_lost_or_come_twice_where_they_should_not(material, noise, length):
    for _, exchange, _ in material.calls(5, **noise):
        given = exchange.ids[: exchange.kinds.index(TEXT)]
        assert sum(map(material.tokenizer.is_speech, given)) == length


def test_wrong_codes_are_the_right_ones(material):
    conversations = material.conversations(replace=1.0)
    scene = conversations.draw(material.heard, np.random.default_rng(0))[1]
    assert len(scene.exchanges) == 3
    for exchange in scene.exchanges:
        codes = [i for i in exchange.ids if material.tokenizer.is_speech(i)]
        assert len(codes) == 4
        assert len(set(codes)) > 1


def test_dictation_and_reading_differ_from_what_is_asked_for(material):
    written, read = set(), set()
    conversations, rng = material.conversations(), np.random.default_rng(0)
    tokenizer = material.tokenizer
    for _ in range(80):
        _, dictation, reading = conversations.draw(material.heard, rng)
        assert tokenizer.decode(dictation.start).endswith(f"\n{TRANSCRIBE_SYSTEM}")
        for exchange in dictation.exchanges:
            (_, _, number), (_, text, _), _ = material.read(exchange.ids)
            assert text == material.said(number)
            assert material.learnt(exchange, TEXT) == f"{text}<|user|>"
            written.add(text)
        assert tokenizer.decode(reading.start).endswith(f"\n{TEXT_SYSTEM}")
        *asked, greeting = [material.read(exchange.ids) for exchange in reading.exchanges]
        for (_, question, _), (_, said, number), _ in asked:
            assert question == f"Say this: {said}"
            assert (material.said(number), material.said(number, "style")) == (said, NEUTRAL)
            read.add(said)
        assert (greeting[0][1], greeting[1][1]) in {
            ("Greet the caller.", "Clinic, hello?"), ("问候来电者。", "诊所您好。")
        }  # fmt: skip
    assert {"random words", "我想预约。", "Book me in."} <= written
    assert {"A short one.", "It is Monday.", "约好星期五。"} <= read
    assert not any(text.startswith("words words") for text in read)  # over before its text


def test_the_first_prompt_does_not_fit_the_first_turn(material):
    assert all(read[0][1] == TEXT_SYSTEM for *_, read in material.calls(3))
    assert all(read[0][1] == SPEECH_SYSTEM for *_, read in material.calls(3, greeted=0.0))


def test_the_same_seed_draws_something_else(material):
    conversations = material.conversations(tools=0.5, styled=0.5, typed=0.2, cut=0.5, whole=0.5)
    first, second, other = (
        conversations.draw(material.heard, np.random.default_rng(seed)) for seed in (9, 9, 8)
    )
    assert first == second
    assert first != other
