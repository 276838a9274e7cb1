"""Keeps out of a recording's sound what is kept out of the record's text.

What was said is known by turn, not by word: where a turn's text has something to be masked, the
whole turn of that side is silenced. What the model does not write down cannot be found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.events import JSON, CallObserver
from telephony.recorders import Recorder
from telephony.recording import Side
from telephony.records.redaction import Redaction, Redactor

_BEFORE_SECONDS = 1.0
"""So long a voice may have been there before it was noticed."""


@dataclass
class _Said:
    """One side's part of a turn.

    Attributes:
        since: Where it begins in the recording, in seconds.
        until: Where it ends; None: not yet.
        text: Its words so far.
        hidden: It has been silenced, as far as it goes.
    """

    since: float
    until: float | None = None
    text: str = ""
    hidden: bool = False


class SoundRedaction:
    """Listens to a call's events on their way to the record; a :class:`CallObserver`."""

    def __init__(
        self,
        record: CallObserver,
        redaction: Redaction,
        hides: Callable[[str], bool],
        recorder: Recorder,
    ):
        """Begin with nothing said.

        Args:
            record: Gets every event.
            redaction: What is masked in the record.
            hides: Whether something else in a text is masked there.
            recorder: Records the sound.
        """
        self._record = record
        self._redactor = Redactor(redaction)
        self._hides = hides
        self._recorder = recorder
        self._speaking: float | None = None
        self._said: dict[tuple[Side, int], _Said] = {}

    def event(self, name: str, /, **fields: JSON) -> None:
        """Pass an event on, and silence what it shows to be private."""
        self._record.event(name, **fields)
        now, turn = self._recorder.seconds, fields.get("turn")
        if name == "caller_speech_started" and self._speaking is None:
            self._speaking = max(0.0, now - _BEFORE_SECONDS)
        if not isinstance(turn, int):
            return
        text = str(fields.get("text") or "")
        match name:
            case "turn_decided":
                since, self._speaking = self._speaking, None
                self._said["caller", turn] = _Said(now if since is None else since, now)
            case "caller_text":
                self._tell("caller", turn, text)
            case "answer_started":
                self._said["agent", turn] = _Said(now)
            case "agent_text":
                self._tell("agent", turn, text)
            case "heard":
                self._end(turn, now)
            case "tool_call" if isinstance(arguments := fields.get("arguments"), dict):
                if self._redactor.keep_private(arguments):
                    # Said by the caller, whether the model has written that down or not.
                    self._hide("caller", turn)
                    self._look_again()

    def _tell(self, side: Side, turn: int, text: str) -> None:
        said = self._said.get((side, turn))
        if said is not None:
            said.text += text
            if self._is_private(said.text):
                self._hide(side, turn)

    def _end(self, turn: int, now: float) -> None:
        said = self._said.get(("agent", turn))
        if said is not None:
            said.until = now
            if said.hidden or self._is_private(said.text):
                self._hide("agent", turn)

    def _look_again(self) -> None:
        """A value has become private that was said before."""
        for (side, turn), said in self._said.items():
            if not said.hidden and self._is_private(said.text):
                self._hide(side, turn)

    def _hide(self, side: Side, turn: int) -> None:
        said = self._said.get((side, turn))
        if said is not None:
            said.hidden = True
            if said.until is not None:
                self._recorder.redact(side, said.since, said.until)

    def _is_private(self, text: str) -> bool:
        return self._redactor.text(text) != text or self._hides(text)
