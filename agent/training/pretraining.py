"""Pre-training of the language model on a mix of speech and text (arXiv 2412.02612, section 4.1).

Four kinds of data: text, interleaved speech and text (:mod:`agent.training.interleaving`), speech
alone, and pairs of speech and its words, for recognition and for reading. Text keeps a share of
0.3; the published run's Table 2, tokens times epochs, gives the others about 0.61 (interleaved),
0.06 (speech alone) and 0.03 (pairs, both ways together).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.training.examples import Example
from agent.training.mix import Mix, Source
from agent.training.recipe import Section
from agent.training.sequences import Sequences
from agent.training.shards import Sample, Shards
from agent.training.tuning import NewModel, Tuning, begin, held_out_examples, tune, write


class Shares(Section):
    """Shares of the ids; need not add up to 1, and 0 leaves a kind out."""

    text: float = 0.3
    interleaved: float = 0.61
    speech: float = 0.06
    recognition: float = 0.015
    reading: float = 0.015


class Settings(Section):
    """The recipe.

    Attributes:
        text: Shards with ``text``.
        interleaved: Shards that ``train interleave`` wrote.
        speech: Shards with codes; their text, if any, is not looked at.
        pairs: Shards with ``text`` and codes.
        shares: Of the kinds.
        model: Sizes of a model that begins from nothing; None needs a checkpoint to start from.
        train: How it is trained.
    """

    section = "pretrain"

    text: Path | None = None
    interleaved: Path | None = None
    speech: Path | None = None
    pairs: Path | None = None
    shares: Shares = Shares()
    model: NewModel | None = None
    train: Tuning


Make = Callable[[Sequences, Sample], Example | None]


def _interleaved(sequences: Sequences, sample: Sample) -> Example | None:
    codes = sample.codes.tolist()
    parts = sample.entry["parts"]
    return sequences.interleaved([p if isinstance(p, str) else codes[p[0] : p[1]] for p in parts])


KINDS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "text": ("text", ("text",), lambda s, x: s.text(x.entry["text"])),
    "interleaved": ("interleaved", ("parts",), _interleaved),
    "speech": ("speech", (), lambda s, x: s.speech(x.codes.tolist()) if len(x.codes) else None),
    "recognition": (
        "pairs",
        ("text",),
        lambda s, x: s.recognition(x.entry["text"], x.codes.tolist()) if len(x.codes) else None,
    ),
    "reading": (
        "pairs",
        ("text",),
        lambda s, x: s.reading(x.entry["text"], x.codes.tolist()) if len(x.codes) else None,
    ),
}
"""Each kind's field in the settings, what its samples must have, and how its example is made."""


def open_sources(settings: Settings) -> dict[str, Shards]:
    """The data of each kind with a share.

    Raises:
        ValueError: A kind has a share and no directory, or its directory no samples.
    """
    opened = {}
    for kind, (field, required, _) in KINDS.items():
        if getattr(settings.shares, kind) > 0:
            path = getattr(settings, field)
            if path is None:
                raise ValueError(
                    f"field 'pretrain.{field}' is missing: 'pretrain.shares.{kind}' is above 0"
                )
            opened[kind] = Shards(path, required)
    return opened


def run(settings: Settings, start: Path | None, out: Path, to: Path | None) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        start: A checkpoint to begin with; None where the recipe has sizes.
        out: Directory of the training.
        to: Directory of the checkpoint to write; None to write none.

    Raises:
        ValueError: Neither or both of checkpoint and sizes, or a kind of data is missing.
        CheckpointError: The checkpoint is missing or damaged.
    """
    data = open_sources(settings)
    texts = (text for shards in data.values() for text in shards.texts())
    layout, model = begin(settings.model, start, settings.train, texts, out)
    sequences = Sequences(model.text_tokenizer, settings.train.longest)
    sources, judged = {}, []
    for kind, shards in data.items():
        train, held_out = shards.split()
        make = _maker(shards, sequences, KINDS[kind][2])
        sources[kind] = Source(getattr(settings.shares, kind), train, make)
        judged.append((held_out, make))
    examples = held_out_examples(judged, settings.train.judged)
    tune(model, Mix(sources, settings.train.seed), examples, settings.train, out)
    if to:
        write(model, settings.train, layout, to)


def _maker(
    shards: Shards, sequences: Sequences, make: Make
) -> Callable[[int, np.random.Generator], Example | None]:
    def example(index: int, _rng: np.random.Generator) -> Example | None:
        for _, sample in shards.read([index]):
            return make(sequences, sample)
        return None

    return example
