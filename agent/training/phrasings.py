"""What is said on the nano checkpoint's line: intents, answers and the ways callers put them.

A corpus file (``agent/nano/corpus.yaml``) writes phrasings as short templates; this module expands
them into sentences, the same ones for the same seed.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.evaluation.text import words
from agent.training.recipe import read_mapping

_CHOICE = re.compile(r"\{([^{}]*)\}")
_FIELDS = {"name", "answer", "instruction", "train", "held_out", "fill", "phrasings", "renderings"}
DEFAULT_PHRASINGS = 80
DEFAULT_RENDERINGS = 4


@dataclass(frozen=True)
class Intent:
    """One thing a caller may want.

    Attributes:
        name: Its name in tables and indexes.
        answer: The one answer the agent gives.
        instruction: Typed instruction that stands in for a caller, or None.
        train: Sentences of callers to train on; empty for an intent with only an instruction.
        held_out: Sentences never trained on.
        renderings: In how many voices each training sentence is spoken.
    """

    name: str
    answer: str
    instruction: str | None
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    renderings: int


@dataclass(frozen=True)
class Line:
    """Everything that is said on one phone line."""

    name: str
    intents: tuple[Intent, ...]


def expand(template: str) -> list[str]:
    """Return every sentence a template stands for.

    Args:
        template: Text in which ``{a|b|}`` is any one of its choices; braces do not nest.

    Raises:
        ValueError: A brace is left without its partner.
    """
    parts = _CHOICE.split(template)
    if any(brace in part for part in parts for brace in "{}"):
        raise ValueError(f"unbalanced braces in template {template!r}")
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return [" ".join("".join(pick).split()) for pick in itertools.product(*choices)]


def as_sentence(text: str) -> str:
    """Return the text with a capital at its start and a full stop, unless it ends in ``?``."""
    text = re.sub(r"\s+([,.?])", r"\1", text.strip())
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?" else text + "."


def _selection(
    templates: list[str], excluded: list[str], limit: int, rng: random.Random
) -> list[str]:
    """Choose about ``limit`` sentences, every template and every word first."""
    taboo = {tuple(words(text)) for text in excluded}
    groups = [
        [text for text in expand(template) if tuple(words(text)) not in taboo]
        for template in templates
    ]
    groups = [group for group in groups if group]
    for group in groups:
        rng.shuffle(group)
    chosen: dict[str, None] = dict.fromkeys(group[0] for group in groups)
    known = {word for text in chosen for word in words(text)}
    rest = [text for group in groups for text in group[1:]]
    rng.shuffle(rest)
    for text in rest:
        if not known.issuperset(words(text)):
            chosen[text] = None
            known.update(words(text))
    # Each template in turn, so that one with many choices does not drown the others.
    for texts in itertools.zip_longest(*(group[1:] for group in groups)):
        for text in texts:
            if text is not None and len(chosen) < limit:
                chosen[text] = None
    return list(chosen)


def _lines(block: object, where: str, fill: dict[str, str]) -> list[str]:
    if block is None:
        return []
    if not isinstance(block, str):
        raise ValueError(f"{where} must be text with one phrasing a line")
    for key, value in fill.items():
        block = block.replace(key, value)
    return [line.strip() for line in block.splitlines() if line.strip()]


def _politely(text: str, document: dict[str, Any], rng: random.Random) -> str:
    """Put an opener before and a closer after some of the sentences."""
    end = "?" if text.endswith("?") else ""
    text = text.removesuffix("?")
    if rng.random() < float(document.get("opener_share", 0.0)):
        text = f"{rng.choice(document['openers'])} {text}"
    if rng.random() < float(document.get("closer_share", 0.0)):
        text = f"{text}, {rng.choice(document['closers'])}"
    return text + end


def read_line(path: str | Path, seed: int = 0) -> Line:
    """Read a corpus file.

    Args:
        path: The YAML file.
        seed: Decides which sentences of the templates are taken.

    Raises:
        ValueError: A field is missing, unknown or of the wrong kind; the message names it.
    """
    document = read_mapping(Path(path))
    if not isinstance(document.get("intents"), list):
        raise ValueError(f"{path}: expected a mapping with a list 'intents'")
    intents: list[Intent] = []
    for entry in document["intents"]:
        where = f"{path}: intent {entry.get('name')!r}"
        if unknown := set(entry) - _FIELDS:
            raise ValueError(f"{where}: unknown field {sorted(unknown)[0]!r}")
        if not isinstance(entry.get("name"), str) or not isinstance(entry.get("answer"), str):
            raise ValueError(f"{where}: 'name' and 'answer' must be text")
        rng = random.Random(f"{seed} {entry['name']}")
        fill = entry.get("fill", {})
        templates = _lines(entry.get("train"), f"{where}: 'train'", fill)
        held_out = _lines(entry.get("held_out"), f"{where}: 'held_out'", fill)
        limit = int(entry.get("phrasings", DEFAULT_PHRASINGS))
        train = [_politely(t, document, rng) for t in _selection(templates, held_out, limit, rng)]
        unique = tuple(dict.fromkeys(as_sentence(text) for text in train))
        intents.append(
            Intent(
                name=entry["name"],
                answer=entry["answer"],
                instruction=entry.get("instruction"),
                train=unique,
                held_out=tuple(held_out),
                renderings=int(entry.get("renderings", DEFAULT_RENDERINGS)),
            )
        )
    return Line(name=str(document.get("name", "")), intents=tuple(intents))


def unheard_words(line: Line) -> set[str]:
    """Return words of held-out sentences that no training sentence contains."""
    trained = {w for intent in line.intents for text in intent.train for w in words(text)}
    held_out = {w for intent in line.intents for text in intent.held_out for w in words(text)}
    return held_out - trained
