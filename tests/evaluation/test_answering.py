"""A checkpoint asked outside a call."""

from dataclasses import replace

import numpy as np

from agent.evaluation.answering import (
    Answer,
    Checkpoint,
    Sampling,
    answers,
    conversations,
    transcripts,
)
from agent.evaluation.items import Turn
from agent.speech.language_model import LanguageModel
from agent.speech.prompt import Prompt
from agent.speech.request import TurnRequest


def test_calls_answered_together_do_not_mix(goldens):
    model = LanguageModel.from_pretrained(goldens / "language_model")
    request = TurnRequest(temperature=0.0, max_new_tokens=12)
    turns = [(np.arange(1 + i % 3, 5 + i % 3), request) for i in range(26)]
    together = answers(model, turns)
    alone = answers(model, turns[:3])
    assert len(together) == 26
    assert together[:3] == alone
    assert together[25] == alone[25 % 3]


def test_a_turn_is_answered_without_what_was_said_before_or_by_another_call(goldens):
    """Each call goes on with its own questions and answers, however many run at once."""
    model = LanguageModel.from_pretrained(goldens / "language_model")
    request = TurnRequest(temperature=0.0, max_new_tokens=15)
    first = replace(request, system="Be brief. ")
    calls = [
        [
            (np.arange(1 + i % 3, 5 + i % 3), first),
            *[(np.array([n]), request) for n in range(i % 3)],
        ]
        for i in range(26)
    ]
    answered = conversations(model, [*calls, []])
    assert [len(answers) for answers in answered] == [*(1 + i % 3 for i in range(26)), 0]
    assert answered[3:6] == conversations(model, calls[:3])
    prompt = Prompt(model.text_tokenizer)
    ids = prompt.opening("Be brief. ")
    for (codes, _), answer in zip(calls[2], answered[2], strict=True):
        ids += prompt.spoken(codes.tolist())
        ends = {*model.config.eos_token_id}
        said = list(model.generate(ids, 15, stop_ids=ends))
        speech = [i - model.audio_offset for i in said if model.text_tokenizer.is_speech(i)]
        assert list(answer.codes) == speech
        ids += said


def test_a_tools_call_is_no_part_of_an_answer(goldens, monkeypatch):
    model = LanguageModel.from_pretrained(goldens / "language_model")
    tokenizer = model.text_tokenizer
    script = iter(
        [
            *tokenizer.encode_plain("Wait."), model.audio_offset + 5,
            *Prompt(tokenizer).call("book", {}), tokenizer.special("<|observation|>"),
            *tokenizer.encode_plain("Done."), model.audio_offset + 6, tokenizer.special("<|user|>"),
        ]
    )  # fmt: skip
    monkeypatch.setattr(
        "agent.speech.generation.choose", lambda _, choices: [next(script) for _ in choices]
    )
    nothing = np.zeros(0, np.int64)
    call = [(np.array([1]), TurnRequest()), (nothing, TurnRequest(result="booked"))]
    assert conversations(model, [call]) == [
        [Answer("Wait.", (5,), "book\n{}"), Answer("Done.", (6,))]
    ]


def test_transcripts_written_together_do_not_mix(goldens):
    model = LanguageModel.from_pretrained(goldens / "language_model")
    model.config = replace(model.config, transcription_prompt="Write it down. ")
    spoken = [np.arange(1 + i % 3, 4 + i % 3) for i in range(26)] + [np.zeros(0, np.int64)]
    together = transcripts(model, spoken)
    assert together[:3] == transcripts(model, spoken[:3])
    assert together[25] == together[25 % 3]
    assert together[26] == ""


def test_words_to_say_are_the_answers_words(goldens):
    checkpoint = Checkpoint(goldens, sampling=Sampling(max_new_tokens=60))
    (answer,) = checkpoint.answer([Turn(say="We are open.")])
    assert answer.text == "We are open."
    assert len(checkpoint.speech(answer)) > 0
