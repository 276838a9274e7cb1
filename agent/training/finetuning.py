"""Supervised fine-tuning on spoken dialogues (arXiv 2412.02612, section 4.2).

The published run shows every dialogue twice, once with the loss of the speech masked and once with
that of the text: text is learnt sooner, so 4 epochs go to text and 20 to speech. Weights of the two
losses do the same in one pass; 1 to 5 is that proportion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from loguru import logger

from agent.training.dialogues import Dialogues
from agent.training.examples import Example
from agent.training.mix import Mix, Source
from agent.training.recipe import Section
from agent.training.shards import Shards
from agent.training.tuning import NewModel, Tuning, begin, held_out_examples, tune, write


class Dialogue(Section):
    """A data set of dialogues and its share of the ids."""

    data: Path
    share: float = 1.0


class Settings(Section):
    """The recipe.

    Attributes:
        dialogues: Data sets by name, each with its share: conversations, styles, tools.
        model: Sizes of a model that begins from nothing; None needs a checkpoint to start from.
        train: How it is trained.
    """

    section = "finetune"

    dialogues: dict[str, Dialogue]
    model: NewModel | None = None
    train: Tuning


class Reader:
    """Makes examples of a data set's dialogues; one that cannot be used is named once."""

    def __init__(self, name: str, shards: Shards, dialogues: Dialogues, longest: int):
        self._name, self._shards, self._dialogues = name, shards, dialogues
        self._longest = longest
        self._unusable: set[int] = set()

    @property
    def left_out(self) -> int:
        """How many dialogues have been left out so far, the corrupt ones aside."""
        return len(self._unusable)

    def __call__(self, index: int, _rng: np.random.Generator | None = None) -> Example | None:
        """The example of a dialogue, or None."""
        if index in self._unusable:
            return None
        for _, sample in self._shards.read([index]):
            try:
                example = self._dialogues.example(sample.entry, sample.codes.tolist())
                if len(example.ids) <= self._longest:
                    return example
                problem = f"{len(example.ids)} ids, of at most {self._longest}"
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = str(error)
            self._unusable.add(index)
            dialogue = sample.entry["id"]
            logger.warning("dialogue left out", data=self._name, dialogue=dialogue, problem=problem)
        return None


def run(settings: Settings, start: Path | None, out: Path, to: Path | None) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        start: A checkpoint to begin with; None where the recipe has sizes.
        out: Directory of the training.
        to: Directory of the checkpoint to write; None to write none.

    Raises:
        ValueError: Neither or both of checkpoint and sizes, or no dialogue to learn from.
        CheckpointError: The checkpoint is missing or damaged.
    """
    data = {name: Shards(one.data, ["turns"]) for name, one in settings.dialogues.items()}
    texts = (
        str(turn["text"])
        for shards in data.values()
        for index in range(len(shards))
        for turn in shards.entry(index)["turns"]
        if "text" in turn
    )
    layout, model = begin(settings.model, start, settings.train, texts, out)
    dialogues = Dialogues(model.text_tokenizer)
    sources, judged = {}, []
    for name, shards in data.items():
        reader = Reader(name, shards, dialogues, settings.train.longest)
        train, held_out = shards.split()
        sources[name] = Source(settings.dialogues[name].share, train, reader)
        judged.append((held_out, reader))
    examples = held_out_examples(judged, settings.train.judged)
    tune(model, Mix(sources, settings.train.seed), examples, settings.train, out)
    if to:
        write(model, settings.train, layout, to)
