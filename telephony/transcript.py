"""What was said on a call, turn by turn, for whoever takes the call over."""

from __future__ import annotations

from agent.events import JSON, CallObserver


class Transcript:
    """Listens to a call's events on their way to the record; a :class:`CallObserver`."""

    def __init__(self, record: CallObserver):
        """Begin with nothing said.

        Args:
            record: Gets every event.
        """
        self._record = record
        self._caller: dict[int, str] = {}
        self._agent: dict[int, str] = {}

    def event(self, name: str, /, **fields: JSON) -> None:
        """Pass an event on, and keep what was said."""
        self._record.event(name, **fields)
        turn, text = fields.get("turn"), fields.get("text")
        if not isinstance(turn, int) or not isinstance(text, str):
            return
        if name == "caller_text":
            self._caller[turn] = text
        elif name in ("answer_finished", "heard"):
            # What was heard comes last, and counts.
            self._agent[turn] = text

    def turns(self) -> list[dict[str, str]]:
        """Who said what, in order: ``{"who": "caller" or "agent", "text": words}``."""
        said: list[dict[str, str]] = []
        for turn in sorted(self._caller.keys() | self._agent.keys()):
            for who, texts in (("caller", self._caller), ("agent", self._agent)):
                if texts.get(turn):
                    said.append({"who": who, "text": texts[turn]})
        return said
