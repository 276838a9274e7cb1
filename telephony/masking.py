"""Keeps what the caller typed out of the call's record."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.events import JSON, CallObserver

_RUN = re.compile(r"\d(?:[ .,-]{0,2}\d)*")
_SHORTEST = 3
"""Shorter entries are choices from a menu, and would black out half a record."""
_SHORTEST_PART = 2
_WORDS = frozenset({"text", "heard_text", "arguments", "result", "error", "message", "summary"})
"""Fields in which what somebody said can stand; the others count and identify."""
_KEPT = "message_taken"
"""Of an event that is nothing without its digits, only secrets are masked."""


class MaskedRecord:
    """A call's record in which typed digits are asterisks; a :class:`CallObserver`.

    Masked is every run of digits that is part of an entry or has one in it, however it is broken
    up: a text comes in pieces, and a model says one digit after the other.
    """

    def __init__(self, record: CallObserver):
        """Write into a record.

        Args:
            record: Gets the events.
        """
        self._record = record
        self._typed: list[str] = []
        self._secrets: list[str] = []

    def mask(self, digits: str, secret: bool) -> None:
        """Keep an entry out of everything that follows.

        Args:
            digits: The keys.
            secret: Keep it out of messages for somebody else, too.
        """
        plain = re.sub(r"\D", "", digits)
        if len(plain) >= _SHORTEST:
            self._typed.append(plain)
            if secret:
                self._secrets.append(plain)

    def hides(self, text: str) -> bool:
        """Whether a text has an entry in it."""
        return _masked(text, self._typed) != text

    def event(self, name: str, /, **fields: JSON) -> None:
        """Pass an event on, masked."""
        hidden = self._secrets if name == _KEPT else self._typed
        if hidden:
            masked = {key: _masked(fields[key], hidden) for key in fields.keys() & _WORDS}
            fields = {**fields, **masked}
        self._record.event(name, **fields)


def _masked(value: JSON, hidden: Sequence[str]) -> JSON:
    match value:
        case str():
            return _RUN.sub(lambda run: _stars(run.group(), hidden), value)
        case list():
            return [_masked(one, hidden) for one in value]
        case dict():
            return {key: _masked(one, hidden) for key, one in value.items()}
        case int() if not isinstance(value, bool) and _is_hidden(str(value), hidden):
            return "*" * len(str(value))
    return value


def _stars(run: str, hidden: Sequence[str]) -> str:
    return re.sub(r"\d", "*", run) if _is_hidden(re.sub(r"\D", "", run), hidden) else run


def _is_hidden(digits: str, hidden: Sequence[str]) -> bool:
    if len(digits) < _SHORTEST_PART:
        return False
    return any(digits in typed or typed in digits for typed in hidden)
