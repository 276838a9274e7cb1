"""Finds digits in what was said: written, and spoken in English and Mandarin.

"4111-1111", "four one double one", "forty-one eleven" and 四幺幺幺 are runs of digits. Number words
that tell an amount (a hundred, 二十) are not: nobody reads out a card in hundreds.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_ONES = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
} | {"oh": "0", "o": "0", "nought": "0", "niner": "9"}
_LATE_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TEENS = {
    word: str(value) for value, word in enumerate(("ten", "eleven", "twelve", *_LATE_TEENS), 10)
}
_TENS = {
    word: str(value)
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
    )
}
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_MANDARIN = {char: str(value) for value, char in enumerate("零一二三四五六七八九")} | {
    "〇": "0",
    "○": "0",
    "幺": "1",
}
_WORDS = "|".join([*_ONES, *_TEENS, *_TENS, *_TIMES])
_TOKEN = re.compile(
    rf"\d+|[{''.join(_MANDARIN)}]|(?<=\d)[xX](?![A-Za-z])|(?<![A-Za-z])(?:{_WORDS})(?![A-Za-z'’])",
    re.IGNORECASE,
)
_FILLERS = "um|uh|er|erm|ah|and|then|dash|hyphen|minus|space|dot|slash"
_BETWEEN = rf"(?:[\s\-‐-―.,/()+·、，．。_嗯呃杠]|(?<![A-Za-z])(?:{_FILLERS})(?![A-Za-z]))*"
_GAP = re.compile(_BETWEEN, re.IGNORECASE)
_UNIT_FOLLOWS = re.compile(r"[\s\-]+")
_OPEN_END = re.compile(rf"{_BETWEEN}[A-Za-z'’]*", re.IGNORECASE)
_PART_OF_WORD = re.compile(r"[^\W\d_]*['’]?[^\W\d_]*$")


@dataclass(frozen=True)
class Digits:
    """A piece of a run.

    Attributes:
        start: Its first character in the text.
        end: The one after its last.
        value: One or more of 0 to 9; X where an identity number ends with it.
        pair: It is a number word of two digits, as in "forty-one eleven".
    """

    start: int
    end: int
    value: str
    pair: bool = False


def runs(text: str) -> list[list[Digits]]:
    """Find the runs of digits.

    Args:
        text: What was said or written.

    Returns:
        Each run's pieces in order; between two pieces of a run there is nothing that counts.
    """
    found: list[list[Digits]] = []
    for piece in _pieces(text):
        if found and _GAP.fullmatch(text, found[-1][-1].end, piece.start):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def settled(text: str) -> int:
    """How many characters of a text that is still growing can no longer be part of a new run."""
    end = _PART_OF_WORD.search(text)
    limit = end.start() if end else len(text)
    last: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        if last and not _GAP.fullmatch(text, last[-1].end(), token.start()):
            last = []
        last.append(token)
    if last and _OPEN_END.fullmatch(text, last[-1].end()):
        limit = min(limit, last[0].start())
    return limit


def _pieces(text: str) -> Iterator[Digits]:
    tokens = list(_TOKEN.finditer(text))
    at = 0
    while at < len(tokens):
        token = tokens[at]
        word = token[0].lower()
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        joined = following is not None and bool(
            _UNIT_FOLLOWS.fullmatch(text, token.end(), following.start())
        )
        unit = _ONES.get(following[0].lower()) if following is not None and joined else None
        at += 1
        if word in _TIMES:
            if following is None or not joined:
                continue
            value = unit or (following[0] if len(following[0]) == 1 else "")
            if not value.isdecimal():
                continue
            yield Digits(token.start(), following.end(), value * _TIMES[word])
            at += 1
        elif word in _TENS:
            if following is not None and unit not in (None, "0"):
                yield Digits(token.start(), following.end(), f"{_TENS[word]}{unit}", True)
                at += 1
            else:
                yield Digits(token.start(), token.end(), f"{_TENS[word]}0", True)
        elif word in _TEENS:
            yield Digits(token.start(), token.end(), _TEENS[word], True)
        elif word == "x":
            yield Digits(token.start(), token.end(), "X")
        else:
            value = _ONES.get(word) or _MANDARIN.get(word) or ""
            if not value:
                value = "".join(str(unicodedata.digit(char)) for char in word)
            yield Digits(token.start(), token.end(), value)
