"""Masks what nobody should read in a record, before it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from agent.events import JSON
from telephony.records.spoken_digits import Digits, runs, settled

CARD, ID, DIGITS, PRIVATE = "[card]", "[id]", "[digits]", "[private]"
_LEAST, _LEAST_IN_PAIRS = 4, 6
"""Digits that make a run; a time of day ("ten thirty") is no run in pairs."""
_CARD_DIGITS = range(12, 20)
_WITH_LETTERS = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,3}[ -]?\d{6,9}[A-Z]?(?![A-Za-z0-9])")
_LETTERS_AT_END = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,3}[ -]?\d*[A-Z]?$")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"

Kind = Literal["digits", "cards", "ids"]
Span = tuple[int, int, str]


@dataclass(frozen=True)
class Redaction:
    """What is masked.

    Attributes:
        kinds: ``cards``: card numbers; ``ids``: identity numbers; ``digits``: every run of at least
            four digits.
        private: Arguments of tools, dotted where they lie within others, whose values are masked
            wherever they occur.
    """

    kinds: frozenset[Kind] = frozenset()
    private: tuple[str, ...] = ()


class Redactor:
    """Masks the texts of one call.

    Attributes:
        active: There is something to mask.
    """

    def __init__(self, redaction: Redaction):
        """Begin without anybody's private values."""
        self.active = bool(redaction.kinds or redaction.private)
        self._redaction = redaction
        self._values: list[str] = []

    def text(self, text: str) -> str:
        """A text with everything masked."""
        return _masked(text, self.spans(text))

    def beginning(self, text: str, whole: str) -> str:
        """The beginning of a text, masked as it is in the whole: a number may be cut in two."""
        if not whole.startswith(text):
            return self.text(text)
        spans = [span for span in self.spans(whole) if span[0] < len(text)]
        return _masked(text, [(start, min(end, len(text)), mask) for start, end, mask in spans])

    def settled(self, text: str) -> int:
        """How many characters of a text that is still growing can be masked by themselves."""
        limit = settled(text)
        # Letters that the digits behind them would belong to.
        for end in (len(text), limit):
            if letters := _LETTERS_AT_END.search(text[:end]):
                limit = min(limit, letters.start())
        for value in self._values:
            for length in range(len(value) - 1, 0, -1):
                if text[:limit].lower().endswith(value[:length].lower()):
                    limit -= length
                    break
        return limit

    def value(self, value: JSON) -> JSON:
        """A value with the texts and numbers in it masked; the names of fields stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        if isinstance(value, int) and not isinstance(value, bool):
            masked = self.text(str(value))
            return value if masked == str(value) else masked
        return value

    def keep_private(self, arguments: Mapping[str, JSON]) -> list[str]:
        """Learn the private values among a tool's arguments.

        Returns:
            Those that were not known.
        """
        new = []
        for path in self._redaction.private:
            value: JSON = dict(arguments)
            for name in path.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            for text in _texts(value):
                if len(text) > 1 and text not in self._values:
                    self._values.append(text)
                    new.append(text)
        # The longest first: a part of a name must not spoil the whole.
        self._values.sort(key=len, reverse=True)
        return new

    def spans(self, text: str) -> list[Span]:
        """What is masked in a text: from, to, and by what; in order, without overlaps."""
        kinds = self._redaction.kinds
        found = private_spans(text, self._values)
        if "ids" in kinds:
            found += [(*match.span(), ID) for match in _WITH_LETTERS.finditer(text)]
        for run in runs(text) if kinds else ():
            found += _in_run(run, kinds)
        return _apart(found)


def private_spans(text: str, values: Iterable[str]) -> list[Span]:
    """Where private values stand in a text, as words."""
    found = []
    for value in values:
        left = r"(?<!\w)" if value[0].isascii() else ""
        right = r"(?!\w)" if value[-1].isascii() else ""
        pattern = re.compile(left + re.escape(value) + right, re.IGNORECASE)
        found += [(*match.span(), PRIVATE) for match in pattern.finditer(text)]
    return found


def without(value: JSON, words: Iterable[str]) -> JSON:
    """A value without some private words, which are masked."""
    words = list(words)
    if isinstance(value, str):
        return _masked(value, _apart(private_spans(value, words)))
    if isinstance(value, dict):
        return {name: without(inner, words) for name, inner in value.items()}
    if isinstance(value, list):
        return [without(inner, words) for inner in value]
    return value


def _texts(value: JSON) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value).strip()


def _masked(text: str, spans: Iterable[Span]) -> str:
    parts, at = [], 0
    for start, end, mask in spans:
        parts += [text[at:start], mask]
        at = end
    return "".join([*parts, text[at:]])


def _apart(spans: Iterable[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[0], -s[1])):
        if kept and span[0] < kept[-1][1]:
            # What overlaps is masked by one mask.
            start, end, mask = kept[-1]
            kept[-1] = (start, max(end, span[1]), mask)
        else:
            kept.append(span)
    return kept


def _in_run(run: list[Digits], kinds: frozenset[Kind]) -> list[Span]:
    """What is masked in a run: the longest piece that passes a check, then what is left of it."""
    for kind, mask, check in _CHECKED:
        if kind not in kinds:
            continue
        if place := _place(run, check):
            begin, end = place
            masked = (run[begin].start, run[end - 1].end, mask)
            left, right = run[:begin], run[end:]
            return [*_in_run(left, kinds), masked, *_in_run(right, kinds)]
    count = sum(len(piece.value) for piece in run)
    if "ids" in kinds and count == 9 and _is_social_security("".join(p.value for p in run)):
        return [(run[0].start, run[-1].end, ID)]
    least = _LEAST_IN_PAIRS if any(piece.pair for piece in run) else _LEAST
    if "digits" in kinds and count >= least:
        return [(run[0].start, run[-1].end, DIGITS)]
    return []


def _place(run: list[Digits], check: Callable[[str], bool]) -> tuple[int, int] | None:
    best: tuple[int, int] | None = None
    for begin in range(len(run)):
        digits = ""
        for end, piece in enumerate(run[begin:], begin + 1):
            digits += piece.value
            if len(digits) > _CARD_DIGITS[-1]:
                break
            if check(digits) and (best is None or end - begin > best[1] - best[0]):
                best = (begin, end)
    return best


def _is_card(digits: str) -> bool:
    """Luhn's check, over the lengths that cards have."""
    if len(digits) not in _CARD_DIGITS or not digits.isdecimal() or not digits.strip("0"):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _is_resident_id(digits: str) -> bool:
    """China's identity number: 18 characters with a date of birth and a check (GB 11643)."""
    if len(digits) != 18 or not digits[:17].isdecimal():
        return False
    try:
        date(int(digits[6:10]), int(digits[10:12]), int(digits[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(digits, _WEIGHTS, strict=False))
    return _CHECKS[total % 11] == digits[17]


def _is_social_security(digits: str) -> bool:
    """The USA's social security number: nine digits, some of which are never given out."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return digits.isdecimal() and not (
        area in ("000", "666") or area >= "900" or group == "00" or serial == "0000"
    )


_CHECKED: tuple[tuple[Kind, str, Callable[[str], bool]], ...] = (
    ("ids", ID, _is_resident_id),
    ("cards", CARD, _is_card),
)
