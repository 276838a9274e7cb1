"""Dates and clock times of an English text, written one way however they were said.

"6:30 p.m.", "18:30", "six thirty in the evening" and "half past six pm" all become ``6:30 pm``;
"March 3rd, 2025", "the third of March twenty twenty-five" and "2025-03-03" become ``--03-03 2025``.
The less certain part is a token of its own, so that the more general of two texts is found in the
other: "6:30" in "half past six in the evening", "3 March" in "March third, 2025". Dates in figures
with slashes are left alone: whether day or month comes first, nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.evaluation.text import TOKEN, in_digits, one_form

_MOMENT_TOKEN = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}:[0-5]\d(?!\d)|{TOKEN.pattern}")
_MONTH_NAMES = """\
january february march april may june july august september october november december"""
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES.split(), 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_ORDINAL_NAMES = """\
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth \
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"""
_ORDINALS = {name: number for number, name in enumerate(_ORDINAL_NAMES.split(), 1)}
_ORDINALS |= {"thirtieth": 30}
_SUFFIXES = {"st", "nd", "rd", "th"}
_HALF_OF_DAY: dict[tuple[str, ...], str] = {
    ("am",): "am",
    ("pm",): "pm",
    ("a", "m"): "am",
    ("p", "m"): "pm",
    ("in", "the", "morning"): "am",
    ("in", "the", "afternoon"): "pm",
    ("in", "the", "evening"): "pm",
    ("at", "night"): "night",
}
_NAMED = {"noon": "pm", "midday": "pm", "midnight": "am"}
_OCLOCK = {"o'clock", "oclock"}
_ZERO = {"oh", "o", "0"}


def with_moments(text: str) -> list[str]:
    """The words of a text as :func:`agent.evaluation.text.units` has them, moments in one form.

    An ordinal number becomes ``#`` and its digits.
    """
    tokens = _ordinals(in_digits(_MOMENT_TOKEN.findall(one_form(text))))
    out: list[str] = []
    position = 0
    while position < len(tokens):
        found = _date(tokens[position:]) or _time(tokens[position:])
        if found is None:
            out.append(tokens[position])
            position += 1
        else:
            moment, length = found
            out += moment
            position += length
    return out


def _ordinals(tokens: Sequence[str]) -> list[str]:
    out: list[str] = []
    for token in tokens:
        last = out[-1] if out else ""
        if token in _SUFFIXES and last.isdecimal():
            out[-1] = f"#{int(last)}"
        elif token in _ORDINALS:
            number = _ORDINALS[token]
            if number < 10 and last in ("20", "30"):
                out[-1] = f"#{int(last) + number}"
            else:
                out.append(f"#{number}")
        else:
            out.append(token)
    return out


def _date(tokens: Sequence[str]) -> tuple[list[str], int] | None:
    """A date at the beginning of tokens, and how many of them it takes."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", tokens[0]):
        return ["-" + tokens[0][4:], tokens[0][:4]], 1
    if month := _MONTHS.get(tokens[0]):
        at = 2 if tokens[1:2] == ["the"] else 1
        day = _day(tokens[at : at + 1])
    else:
        at = 1 if tokens[0] == "the" else 0
        day = _day(tokens[at : at + 1])
        at += 2 if tokens[at + 1 : at + 2] == ["of"] else 1
        month = _MONTHS.get(tokens[at]) if at < len(tokens) else None
    at += 1
    if day is None or month is None:
        return None
    year, length = _year(tokens[at:])
    return [f"--{month:02}-{day:02}", *year], at + length


def _day(tokens: Sequence[str]) -> int | None:
    digits = tokens[0].removeprefix("#") if tokens else ""
    return int(digits) if digits.isdecimal() and 1 <= int(digits) <= 31 else None


def _year(tokens: Sequence[str]) -> tuple[list[str], int]:
    """A year of four digits, or one said as "twenty twenty-five" or "twenty oh five"."""
    first, second, third = (*tokens[:3], "", "", "")[:3]
    if re.fullmatch(r"[12]\d{3}", first):
        return [first], 1
    if first in ("19", "20"):
        if re.fullmatch(r"[1-9]\d", second):
            return [first + second], 2
        if second in _ZERO and re.fullmatch(r"\d", third):
            return [f"{first}0{third}"], 3
    return [], 0


def _time(tokens: Sequence[str]) -> tuple[list[str], int] | None:
    """A clock time at the beginning of tokens, and how many of them it takes."""
    if tokens[0] in _NAMED:
        return ["12:00", _NAMED[tokens[0]]], 1
    hour, minute, length, sure = _past(tokens) or _figures(tokens) or (-1, 0, 0, False)
    if not 0 <= hour <= 23:
        return None
    half, more = _half_of_day(tokens[length:])
    if half is None and not sure:
        return None
    if half == "night":
        half = "pm" if 6 <= hour < 12 else "am"
    if hour > 12 or hour == 0:
        half = "pm" if hour else "am"
    moment = [f"{(hour - 1) % 12 + 1}:{minute:02}"]
    return moment + ([half] if half else []), length + more


def _past(tokens: Sequence[str]) -> tuple[int, int, int, bool] | None:
    """Hour, minute, how many tokens they take, and that it is a time: "quarter to seven"."""
    at = 1 if tokens[:2] == ["a", "quarter"] else 0
    word = tokens[at]
    minutes = {"half": 30, "quarter": 15}.get(word, int(word) if word.isdecimal() else 60)
    counted = tokens[at + 1 : at + 2] in (["minutes"], ["minute"])
    at += 1 + counted
    way, hour = (*tokens[at : at + 2], "", "")[:2]
    if minutes >= 60 or not hour.isdecimal() or not 1 <= int(hour) <= 12:
        return None
    if way == "past":
        return int(hour), minutes, at + 2, True
    # "Ten to six" may be opening hours.
    if way == "to" and (word == "quarter" or counted):
        return (int(hour) - 2) % 12 + 1, 60 - minutes, at + 2, True
    return None


def _figures(tokens: Sequence[str]) -> tuple[int, int, int, bool] | None:
    """The same of a time in figures; it is sure to be one if it has a colon or "o'clock"."""
    first, second, third = (*tokens[:3], "", "", "")[:3]
    if ":" in first:
        hour, minute = first.split(":")
        return int(hour), int(minute), 1, True
    if not first.isdecimal() or not int(first) <= 23:
        return None
    if second in _OCLOCK:
        return int(first), 0, 2, True
    if second in _ZERO and re.fullmatch(r"\d", third):
        return int(first), int(third), 3, False
    if re.fullmatch(r"[1-5]\d", second):
        return int(first), int(second), 2, False
    return int(first), 0, 1, False


def _half_of_day(tokens: Sequence[str]) -> tuple[str | None, int]:
    for words, half in _HALF_OF_DAY.items():
        if tuple(tokens[: len(words)]) == words:
            return half, len(words)
    return None, 0
