"""What a trained checkpoint answers to the demo's lines: tokens worth decoding."""

from __future__ import annotations

from agent.bench.bench import Weights
from agent.bench.sounds import spoken_lines
from agent.evaluation import answering
from agent.evaluation.answering import Answer
from agent.speech.request import TurnRequest

_GREEDY = TurnRequest(temperature=0.0, max_new_tokens=300)


def answers(weights: Weights) -> list[Answer]:
    """Greedy answers to the demo's lines, each a call of its own; those without speech left out."""
    turns = [(weights.tokenizer.encode([line])[0], _GREEDY) for line in spoken_lines().values()]
    return [answer for answer in answering.answers(weights.language_model, turns) if answer.codes]
