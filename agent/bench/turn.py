"""Ids of a caller's first spoken turn, as the prompt of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.bench.bench import Weights
from agent.speech.prompt import Prompt


@dataclass(frozen=True)
class SpokenTurn:
    """A prompt in three parts.

    Attributes:
        before: Ids in front of the speech.
        speech: Ids of the speech.
        after: Ids behind it, up to where the answer begins.
    """

    before: list[int]
    speech: list[int]
    after: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return [*self.before, *self.speech, *self.after]


def spoken_turn(weights: Weights, codes: Sequence[int]) -> SpokenTurn:
    """The prompt of speech tokens from 0; at least one."""
    tokenizer = weights.language_model.text_tokenizer
    prompt = Prompt(tokenizer)
    turn = prompt.spoken(codes)
    begin = next(place for place, token in enumerate(turn) if tokenizer.is_speech(token))
    end = begin + len(codes)
    opening = prompt.opening(prompt.default_system("speech"))
    return SpokenTurn(opening + turn[:begin], turn[begin:end], turn[end:])
