"""Whether a text says something, however it is written.

A spoken answer has no digits, a text channel may have them, and a recogniser has its own habits. So
two texts are compared in several readings, and agreement in one of them is enough: the words as
they stand; numbers in digits, with money and per cent in words; dates and clock times in one form;
digits that follow each other run together, as in a telephone number or a year. A text with Chinese
characters is compared character by character.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from agent.evaluation.moments import with_moments
from agent.evaluation.text import units

_CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yuan"}
_MONEY = re.compile(r"([$€£¥])\s?(\d+(?:[.,]\d+)*)")
_CHINESE = re.compile(r"[\u3400-\u9fff]")


def plain_words(text: str) -> list[str]:
    """A text as lower-case words without punctuation, numbers as they stand."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def says(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as a run of whole words, in one of the readings.

    A phrase without a word or a number stands in no text.
    """
    return any(_contains(said, wanted) for said, wanted in _readings(text, phrase))


def similarity(one: str, other: str) -> float:
    """How much two texts have in common, from 0 to 1: difflib's ratio over their words.

    Of the readings, the one in which they are most alike counts.
    """
    return max(
        difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
        for a, b in _readings(one, other)
    )


def _readings(one: str, other: str) -> list[tuple[list[str], list[str]]]:
    if _CHINESE.search(one + other):
        return [(units(one, "zh"), units(other, "zh"))]
    return list(zip(_english(one), _english(other), strict=True))


def _english(text: str) -> list[list[str]]:
    written = _MONEY.sub(lambda found: f"{found[2]} {_CURRENCIES[found[1]]}", text)
    written = written.replace("%", " percent ")
    numbers = _decimals(units(written, "en"))
    return [plain_words(text), numbers, _decimals(with_moments(written)), _runs(numbers)]


def _decimals(tokens: Sequence[str]) -> list[str]:
    """Join "5 point 2 5" to "5.25", and drop zeros at the end of decimals."""
    out: list[str] = []
    fraction = False
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token == "point" and out and out[-1].isdecimal() and following.isdecimal():
            out[-1] += "."
            fraction = True
        elif fraction and token.isdecimal():
            out[-1] += token
        else:
            fraction = False
            out.append(token)
    return [
        token.rstrip("0").rstrip(".") if re.fullmatch(r"\d+\.\d+", token) else token
        for token in out
    ]


def _runs(tokens: Sequence[str]) -> list[str]:
    """Join numbers that follow each other, and the "oh" between them: "5 5 oh 1" is "5501"."""
    out: list[str] = []
    for token in tokens:
        in_run = bool(out) and out[-1].isdecimal()
        if in_run and (token.isdecimal() or token in ("oh", "o")):
            out[-1] += token if token.isdecimal() else "0"
        else:
            out.append(token)
    return out


def _contains(said: Sequence[str], wanted: Sequence[str]) -> bool:
    starts = range(len(said) - len(wanted) + 1)
    return bool(wanted) and any(said[at : at + len(wanted)] == wanted for at in starts)
