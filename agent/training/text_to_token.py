"""The text-to-token model: a language model that gives a text's speech codes, without any sound.

It has the class and the file layout of the language model, and learns from pairs of text and codes
(:mod:`agent.training.sequences`, reading). With it, text alone becomes interleaved speech and text,
and turns of a dialogue that nobody recorded become speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from agent.speech.language_model import LanguageModel
from agent.speech.sampling import sample
from agent.training.examples import Example
from agent.training.mix import Mix, Source
from agent.training.recipe import Section
from agent.training.sequences import Sequences
from agent.training.shards import Shards
from agent.training.tuning import NewModel, Tuning, begin, held_out_examples, tune, write

TOKENS_A_WORD = 25  # two seconds: no text takes longer, unless the model does not find its end


class TextToToken:
    """Says texts in speech codes.

    Args:
        model: A language model that has learnt to read.
    """

    def __init__(self, model: LanguageModel):
        self._model = model
        self._sequences = Sequences(model.text_tokenizer, model.config.seq_length)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "cpu") -> TextToToken:
        """Load its directory.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        return cls(LanguageModel.from_pretrained(path, device))

    @property
    def codes(self) -> int:
        """Number of speech codes."""
        return self._model.text_tokenizer.audio_count

    @torch.no_grad()
    def say(
        self,
        texts: Sequence[str],
        temperature: float = 0.0,
        seed: int = 0,
        styles: Sequence[str | None] | None = None,
    ) -> list[list[int]]:
        """Codes of texts, said side by side.

        Args:
            texts: What to say.
            temperature: 0 takes the most likely code.
            seed: Makes it repeatable.
            styles: How to say each.

        Returns:
            0-based codes of each, at most two seconds a word.
        """
        model, tokenizer = self._model, self._model.text_tokenizer
        manners = styles or [None] * len(texts)
        rows = [self._sequences.to_read(t, s) for t, s in zip(texts, manners, strict=True)]
        limits = [TOKENS_A_WORD * max(1, len(text.split())) for text in texts]
        room = model.config.seq_length
        limits = [min(n, room - len(row)) for n, row in zip(limits, rows, strict=True)]
        generators = [
            torch.Generator(model.device).manual_seed(seed + n) for n in range(len(texts))
        ]
        caches = [model.cache(len(row) + 64) for row in rows]
        first, end = tokenizer.audio_offset, self._sequences.end_of_audio
        allowed = torch.full((model.config.padded_vocab_size,), -torch.inf, device=model.device)
        allowed[first : first + tokenizer.audio_count] = 0.0
        allowed[end] = 0.0
        said: list[list[int]] = [[] for _ in texts]
        going = [n for n in range(len(texts)) if limits[n] > 0]
        while going:
            lengths = [len(rows[n]) for n in going]
            ids = torch.tensor([i for n in going for i in rows[n]], device=model.device)
            last = torch.tensor(lengths, device=model.device).cumsum(0) - 1
            logits = model(ids, lengths, [caches[n] for n in going], last) + allowed
            still = []
            for n, scores in zip(going, logits, strict=True):
                token = sample(scores, temperature, 1.0, generators[n])
                if token != end:
                    said[n].append(token - first)
                    rows[n] = [token]
                    if len(said[n]) < limits[n]:
                        still.append(n)
            going = still
        return said


class Settings(Section):
    """The recipe.

    Attributes:
        pairs: Shards with ``text`` and codes; ``style`` where a sample has one.
        model: Sizes of a model that begins from nothing; None needs a checkpoint to start from.
        train: How it is trained.
    """

    section = "text_to_token"

    pairs: Path
    model: NewModel | None = None
    train: Tuning


def run(settings: Settings, start: Path | None, out: Path, to: Path | None) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        start: A checkpoint to begin with; None where the recipe has sizes.
        out: Directory of the training.
        to: Directory of the checkpoint to write; None to write none.

    Raises:
        ValueError: Neither or both of checkpoint and sizes, or no pairs to learn from.
        CheckpointError: The checkpoint is missing or damaged.
    """
    pairs = Shards(settings.pairs, ["text"])
    layout, model = begin(settings.model, start, settings.train, pairs.texts(), out)
    sequences = Sequences(model.text_tokenizer, settings.train.longest)

    def example(index: int, _rng: np.random.Generator) -> Example | None:
        return read(pairs, index, sequences)

    train, held_out = pairs.split()
    mix = Mix({"pairs": Source(1.0, train, example)}, settings.train.seed)
    judged = held_out_examples([(held_out, example)], settings.train.judged)
    tune(model, mix, judged, settings.train, out)
    if to:
        write(model, settings.train, layout, to)


def read(pairs: Shards, index: int, sequences: Sequences) -> Example | None:
    """A sample of text and codes as an example of reading; None if it cannot be used."""
    for _, pair in pairs.read([index]):
        if len(pair.codes):
            text, style = str(pair.entry["text"]), pair.entry.get("style")
            return sequences.reading(text, pair.codes.tolist(), style)
    return None
