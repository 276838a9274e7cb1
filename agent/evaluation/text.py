"""Texts as they are compared: words, characters, answers, and the edits between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh"]

_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc`", "''''")
# Letters and digits of any script; inside a word also an apostrophe or a decimal point.
TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*")
"""Words and numerals of a text in :func:`one_form`."""
_ARTICLES = {"a", "an", "the"}
_NUMBERS = """\
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen \
sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_NUMBERS.split())}
_SMALL |= {word: 20 + 10 * index for index, word in enumerate(_TENS.split())}
_LARGE = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}


def words(text: str) -> list[str]:
    """Return the words of an English text without numerals, in lower case, no punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Insertions, deletions and replacements that turn one sequence into the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def word_errors(reference: str, hypothesis: str) -> int:
    """Return the least number of :func:`words` to replace, delete or insert."""
    return edit_distance(words(reference), words(hypothesis))


def units(text: str, language: Language) -> list[str]:
    """What an error rate counts: words of English, characters of Mandarin.

    Case, punctuation, the form of characters (NFKC) and, in English, whether a number is written
    in digits make no difference. Letters and digits in a Mandarin text count one by one.
    """
    found = TOKEN.findall(one_form(text))
    if language == "zh":
        return [character for token in found for character in token if character.isalnum()]
    return in_digits(found)


def one_form(text: str) -> str:
    """Return a text in lower case, its characters and apostrophes in one form (NFKC)."""
    return unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()


def characters(text: str) -> list[str]:
    """Letters and digits of a text and one blank between words, as :func:`units` reads it."""
    return list(" ".join(units(text, "en")))


def answer_words(text: str, language: Language = "en") -> list[str]:
    """An answer as question answering compares it: :func:`units` without articles.

    TriviaQA and SQuAD drop case, punctuation and articles; that numbers may be words is added,
    since an answer that was spoken has no digits, and so is that an apostrophe makes no difference.
    """
    found = [unit.replace("'", "") for unit in units(text, language)]
    return [unit for unit in found if unit not in _ARTICLES] or found


def contains_answer(text: str, answers: Sequence[str], language: Language = "en") -> bool:
    """Whether one of the answers stands in a text as a run of whole words (or characters)."""
    said = answer_words(text, language)
    for answer in answers:
        wanted = answer_words(answer, language)
        starts = range(len(said) - len(wanted) + 1)
        if wanted and any(said[start : start + len(wanted)] == wanted for start in starts):
            return True
    return False


def is_answer(text: str, answers: Sequence[str], language: Language = "en") -> bool:
    """Whether a text is one of the answers and says nothing else."""
    said = answer_words(text, language)
    return bool(said) and any(said == answer_words(answer, language) for answer in answers)


def in_digits(tokens: Sequence[str]) -> list[str]:
    """Write runs of number words in digits: "one hundred and ninety three" is "193".

    Args:
        tokens: words in lower case and numerals, whose thousands a comma may separate.
    """
    tokens = [token.replace(",", "") if token[0].isdigit() else token for token in tokens]
    out: list[str] = []
    position = 0
    while position < len(tokens):
        value, end = _number(tokens, position)
        out.append(tokens[position] if value is None else str(value))
        position = max(end, position + 1)
    return out


def _number(tokens: Sequence[str], start: int) -> tuple[int | None, int]:
    """Read one number at a position; returns it, or None, and where it ends."""
    total, group, last = 0, None, 0
    position = start
    while position < len(tokens):
        token = tokens[position]
        if token in _SMALL:
            value = _SMALL[token]
            # "twenty three" is one number, "two three" and "twenty thirty" are two.
            follows = last == 100 or (20 <= last < 100 and last % 10 == 0 and 0 < value < 10)
            if group is not None and not follows:
                break
            group, last = (group or 0) + value, value
        elif token == "hundred" and group is not None and 0 < group < 100:
            group, last = group * 100, 100
        elif token in _LARGE and group is not None:
            total, group, last = total + group * _LARGE[token], None, 100
            if position + 1 == len(tokens) or tokens[position + 1] not in {*_SMALL, "and"}:
                return total, position + 1
        elif token == "and" and last == 100 and tokens[position + 1 : position + 2]:
            if tokens[position + 1] not in _SMALL:
                break
        else:
            break
        position += 1
    if group is None and not total:
        return None, start
    return total + (group or 0), position
