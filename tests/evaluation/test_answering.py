"""A checkpoint asked outside a call."""

import numpy as np

from agent.evaluation.answering import answers
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
