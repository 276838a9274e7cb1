"""A checkpoint asked outside a call."""

from dataclasses import replace

import numpy as np

from agent.evaluation.answering import Checkpoint, Sampling, answers, transcripts
from agent.evaluation.items import Turn
from agent.speech.language_model import LanguageModel
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
