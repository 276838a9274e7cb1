"""Random sentences: the sounds of English in many neighbourhoods, and no meaning to learn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from agent.training.phrasings import as_sentence

# Names in capitals are drawn from the word list of that name; "words" draws from all of them.
_PATTERNS = (
    "the ADJECTIVES NOUNS VERBS_PAST the NOUNS ADVERBS",
    "NAMES VERBS_PAST a ADJECTIVES NOUNS PREPOSITIONS the NOUNS",
    "PREPOSITIONS the NOUNS, the ADJECTIVES NOUNS VERBS_PAST NAMES",
    "do you VERBS the ADJECTIVES NOUNS PREPOSITIONS the NOUNS?",
    "please VERBS NUMBERS of the ADJECTIVES NOUNS on DAYS",
    "NAMES and NAMES VERBS the NOUNS in PLACES",
    "I will VERBS your NOUNS on DAYS, the ORDINALS of MONTHS",
    "we ADVERBS VERBS our ADJECTIVES NOUNS, but they VERBS a NOUNS",
    "the NOUNS is ADJECTIVES and the NOUNS was ADJECTIVES",
    "can the NOUNS VERBS NUMBERS or NUMBERS more NOUNS at NUMBERS in the morning?",
    "the number is NUMBERS NUMBERS NUMBERS, NUMBERS NUMBERS NUMBERS NUMBERS",
    "it is spelled LETTERS LETTERS LETTERS LETTERS",
    "thank you, NAMES, your NOUNS from PLACES VERBS_PAST the NOUNS",
    "words words words words words words words",
    "words words words words, words words words words words",
    "words words words, words words words. words words words words",
    "what did NAMES VERBS PREPOSITIONS the ADJECTIVES NOUNS?",
    "ADVERBS she VERBS_PAST him PREPOSITIONS their ADJECTIVES NOUNS",
)


class SentenceGenerator:
    """Draws random sentences from word lists.

    Args:
        lists: Word lists by name (``agent/nano/words.yaml``).
        more: Words that only the free patterns draw, such as those of a corpus.
        seed: Same seed, same sentences.
    """

    def __init__(self, lists: Mapping[str, list[str]], more: Iterable[str] = (), seed: int = 0):
        self._lists = {name.upper(): list(words) for name, words in lists.items()}
        pool = {word for words in lists.values() for word in words if len(word) > 1} | set(more)
        self._lists["words"] = sorted(pool)
        self._rng = random.Random(seed)
        # Each list is dealt like a pack of cards: every word comes once before any comes twice.
        self._packs: dict[str, list[str]] = {name: [] for name in self._lists}

    @classmethod
    def from_file(
        cls, path: str | Path, more: Iterable[str] = (), seed: int = 0
    ) -> SentenceGenerator:
        """Read the word lists from a YAML file of name: words parted by spaces."""
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return cls({name: str(text).split() for name, text in document.items()}, more, seed)

    def _draw(self, name: str) -> str:
        pack = self._packs[name]
        if not pack:
            pack.extend(self._lists[name])
            self._rng.shuffle(pack)
        return pack.pop()

    def sentence(self) -> str:
        """Return the next sentence, with a capital and a full stop or question mark."""
        filled = []
        for token in self._rng.choice(_PATTERNS).split():
            name = token.rstrip(",.?")
            filled.append(self._draw(name) + token[len(name) :] if name in self._lists else token)
        text = " ".join(filled)
        return ". ".join(as_sentence(part).removesuffix(".") for part in text.split(". ")) + (
            "" if text.endswith("?") else "."
        )
