"""Ways to put something: short templates, expanded into sentences.

``{a|b|}`` in a template stands for any one of its choices, also nothing.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence

from agent.evaluation.text import Language, units

_CHOICE = re.compile(r"\{([^{}]*)\}")
_STOPS: dict[Language, tuple[str, str]] = {"en": (".", "?"), "zh": ("。", "？")}


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


def as_sentence(text: str, language: Language = "en") -> str:
    """Return the text with a capital at its start and a full stop, unless it is a question."""
    stop, mark = _STOPS[language]
    text = re.sub(r"\s+([,.?])", r"\1", text.strip())
    text = text[0].upper() + text[1:]
    return text if text.endswith((stop, mark, "?", "!")) else text + stop


def politely(
    text: str,
    language: Language,
    openers: Sequence[str],
    closers: Sequence[str],
    shares: tuple[float, float],
    rng: random.Random,
) -> str:
    """Put an opener before and a closer after some of the sentences.

    Args:
        text: The sentence.
        language: Decides what parts the words are joined by.
        openers: Said before, with their comma.
        closers: Said after.
        shares: How often there is an opener, and a closer.
        rng: Draws them.
    """
    mark = _STOPS[language][1]
    blank, comma = (" ", ", ") if language == "en" else ("", "，")
    end = mark if text.endswith(mark) else ""
    text = text.removesuffix(mark)
    if openers and rng.random() < shares[0]:
        text = f"{rng.choice(openers)}{blank}{text}"
    if closers and rng.random() < shares[1]:
        text = f"{text}{comma}{rng.choice(closers)}"
    return text + end


def select(
    templates: Sequence[str],
    excluded: Sequence[str],
    limit: int,
    language: Language,
    rng: random.Random,
) -> list[str]:
    """Choose about ``limit`` sentences of some templates, every template and every word first.

    Args:
        templates: What sentences are made of.
        excluded: Sentences never to choose.
        limit: About how many.
        language: What a word is; see `agent.evaluation.text.units`.
        rng: Draws them.
    """
    taboo = {tuple(units(text, language)) for text in excluded}
    groups = [
        [text for text in expand(template) if tuple(units(text, language)) not in taboo]
        for template in templates
    ]
    groups = [group for group in groups if group]
    for group in groups:
        rng.shuffle(group)
    chosen: dict[str, None] = dict.fromkeys(group[0] for group in groups)
    known = {word for text in chosen for word in units(text, language)}
    rest = [text for group in groups for text in group[1:]]
    rng.shuffle(rest)
    for text in rest:
        if not known.issuperset(units(text, language)):
            chosen[text] = None
            known.update(units(text, language))
    # Each template in turn, so that one with many choices does not drown the others.
    for texts in itertools.zip_longest(*(group[1:] for group in groups)):
        for text in texts:
            if text is not None and len(chosen) < limit:
                chosen[text] = None
    return list(chosen)
