"""What the engine keeps of one conversation while it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from agent.speech.answer import AnswerWriter
from agent.speech.dialogue import Dialogue, common_prefix
from agent.speech.kv_cache import KVCache
from agent.speech.repetition import RepetitionGuard
from agent.speech.request import TurnRequest


@dataclass
class Answer:
    """An answer in the making.

    Attributes:
        request: What was asked for.
        writer: Cuts it into pieces.
        ids: The answer so far; the same list as the turn's.
        limit: Most ids.
        since: When it was asked for.
        guard: Bars what it has said too often.
        runs: Text runs still to be forced, or None where the model chooses its words.
        run_spoken: Speech tokens since the last forced run.
        decoded: Speech tokens that have become audio.
    """

    request: TurnRequest
    writer: AnswerWriter
    ids: list[int]
    limit: int
    since: float
    guard: RepetitionGuard
    runs: list[list[int]] | None = None
    run_spoken: int = 0
    decoded: int = 0


@dataclass
class Session:
    """One conversation.

    Attributes:
        cache: What the model has read.
        random: The session's own random numbers.
        touched: When its caller or its decoder was last heard of.
        dialogue: The history, the running turn included.
        read: The ids in the cache, in order.
        pending: Ids the model is to read next: up to the next token of the answer, or where there
            is none, ahead of the turn that is being spoken.
        answer: The answer in the making, if any.
        transcript: It writes down another session's words, and is gone when it has.
    """

    cache: KVCache
    random: torch.Generator
    touched: float
    dialogue: Dialogue = field(default_factory=Dialogue)
    read: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    answer: Answer | None = None
    transcript: bool = False

    def expect(self, ids: list[int]) -> None:
        """Make these the ids to read, keeping what the cache holds of them."""
        common = common_prefix(self.read, ids)
        self.cache.truncate(common)
        del self.read[common:]
        self.pending = ids[common:]

    @property
    def urgency(self) -> tuple[int, float]:
        """Sorts answers before transcripts before listening, and each of them by age."""
        if self.answer is None:
            return 2, self.touched
        return int(self.transcript), self.answer.since
