"""Teaches the first blocks of a language model to hear words in speech codes, before it answers.

An answer tells little about each code before it: at nano's pace a language model is long busy with
finding out that codes spell words. CTC over letters tells it for every code, and through two blocks
alone an utterance costs a tenth. In 5 minutes of a core that hears better than the tokenizer's own
reader. Some utterances then stay beside the answers, so that it is not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agent.evaluation.text import edit_distance
from agent.speech.language_model import LanguageModel
from agent.training.loop import Loop
from agent.training.muon import named, optimizers
from agent.training.recipe import Section
from agent.training.side_by_side import SideBySide
from agent.training.tokenizer_data import CHARACTERS

# Letters come faster than codes: 50 places a second for 12.5 codes.
_PLACES = 4
_TOGETHER = 64  # utterances judged in one pass

Utterance = tuple[list[int], list[int]]
"""Speech ids, and the letters they spell, from 1."""


class Settings(Section):
    """How listening is learnt.

    Attributes:
        blocks: How many of the model's first blocks.
        steps: Optimiser steps.
        utterances: In each of them.
        learning_rate: At its peak.
        warmup: Steps.
        beside: Utterances in each step of the language model's own training.
        weight: Of their loss there.
    """

    blocks: int
    steps: int
    utterances: int
    learning_rate: float
    warmup: int
    beside: int
    weight: float


class Listener(nn.Module):
    """The first blocks of a language model, and letters for each of the codes they hear.

    Args:
        model: Shares its embedding and blocks, dropout included.
        blocks: How many.
        seed: Of the letters' own layer.
    """

    def __init__(self, model: LanguageModel, blocks: int, seed: int):
        super().__init__()
        parts: Any = model.transformer
        self.embedding: nn.Embedding = parts["embedding"]["word_embeddings"]
        self.blocks: nn.ModuleList = parts["encoder"]["layers"][:blocks]
        generator = torch.Generator().manual_seed(seed)
        self.letters = nn.Linear(model.config.hidden_size, _PLACES * (len(CHARACTERS) + 1))
        nn.init.normal_(self.letters.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.letters.bias)
        self._rope = model.rope

    def forward(self, utterances: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities of letters [4 n, b, letters] for b utterances of up to n speech ids."""
        device = self._rope.device
        attention = SideBySide([len(ids) for ids in utterances], device)
        x = self.embedding(torch.tensor([i for ids in utterances for i in ids], device=device))
        rope = self._rope[:, attention.positions]
        for layer, block in enumerate(self.blocks):
            x = block(x, rope, attention, layer)
        letters = self.letters(x).view(len(x), _PLACES, -1).float().log_softmax(-1)
        return attention.spread(letters).flatten(1, 2).transpose(0, 1)


def loss(listener: Listener, utterances: Sequence[Utterance]) -> Tensor:
    """CTC of the utterances (Graves et al. 2006) that are long enough for their letters."""
    spoken = [(ids, text) for ids, text in utterances if len(text) < _PLACES * len(ids)]
    logs = listener([ids for ids, _ in spoken])
    return functional.ctc_loss(
        logs,
        torch.tensor([letter for _, text in spoken for letter in text], device=logs.device),
        torch.tensor([_PLACES * len(ids) for ids, _ in spoken]),
        torch.tensor([len(text) for _, text in spoken]),
        zero_infinity=True,
    )


@torch.no_grad()
def judge(listener: Listener, utterances: Sequence[Utterance]) -> float:
    """Character error rate, the likeliest letter at each place."""
    listener.eval()
    wrong = total = 0
    for start in range(0, len(utterances), _TOGETHER):
        some = utterances[start : start + _TOGETHER]
        likeliest = listener([ids for ids, _ in some]).argmax(-1).T.cpu()
        for (ids, text), letters in zip(some, likeliest, strict=True):
            best = torch.unique_consecutive(letters[: _PLACES * len(ids)])
            wrong += edit_distance(text, best[best > 0].tolist())
            total += len(text)
    return wrong / max(1, total)


def learn(
    listener: Listener,
    settings: Settings,
    draw: Callable[[int, np.random.Generator], Iterable[Utterance]],
    judged: dict[str, list[Utterance]],
    out: Path,
    weight_decay: float,
    judge_every: int,
    seed: int,
    workers: int = 0,
) -> None:
    """Train a listener, or go on where a stopped training was.

    Args:
        listener: Is changed, and so are the blocks that it shares with its model.
        settings: How.
        draw: Gives so many utterances, drawn with some random numbers.
        judged: Held-out utterances by name.
        out: Directory of the training.
        weight_decay: Of the optimizers.
        judge_every: Steps between two looks at what is held out.
        seed: Of everything that is drawn.
        workers: Processes that draw beside the training.
    """
    others = [*listener.embedding.parameters(), *listener.letters.parameters()]
    using = optimizers(listener.blocks, others, settings.learning_rate, weight_decay)
    parts = {"listener": listener, **named(using)}
    rate = settings.learning_rate
    loop = Loop(out, settings.steps, rate, parts, seed, settings.warmup)
    listener.train()
    total = torch.zeros((), device=listener.letters.weight.device)

    def utterances_of(_: int, rng: np.random.Generator) -> list[Utterance]:
        return list(draw(settings.utterances, rng))

    for utterances in loop.drawn(utterances_of, loop.steps, workers):
        loop.begin()
        found = loss(listener, utterances)
        loop.advance(using, found)
        total += found.detach()
        if loop.step % judge_every == 0 or loop.step == loop.steps:
            rates = {f"cer_{name}": judge(listener, some) for name, some in judged.items()}
            loop.report(ctc=float(total) / judge_every, **rates)
            total.zero_()
            listener.train()
    loop.save()
