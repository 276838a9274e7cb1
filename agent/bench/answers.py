"""What a trained checkpoint answers to the demo's lines: tokens worth decoding."""

from __future__ import annotations

from dataclasses import dataclass

from agent.bench.bench import Weights
from agent.bench.sounds import spoken_lines
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest

_LONGEST = 300


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: What it says it says.
        codes: Its speech tokens, from 0.
    """

    text: str
    codes: tuple[int, ...]


def answers(weights: Weights) -> list[Answer]:
    """Greedy answers to the demo's lines, each a call of its own; those without speech left out."""
    engine = GenerationEngine(weights.language_model, lead_limit=_LONGEST)
    texts: dict[str, str] = {}
    codes: dict[str, list[int]] = {}
    for name, audio in spoken_lines().items():
        texts[name], codes[name] = "", []
        request = TurnRequest(temperature=0.0, max_new_tokens=_LONGEST)
        engine.submit(name, weights.tokenizer.encode([audio])[0], request)
    while not engine.idle:
        for piece in engine.step():
            texts[piece.session] += piece.text
            codes[piece.session] += piece.speech_tokens.tolist()
    return [Answer(texts[name].strip(), tuple(codes[name])) for name in texts if codes[name]]
