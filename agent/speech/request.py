"""What a turn asks for: the REQUEST string that travels with a call through the models."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class KnownAnswer:
    """An answer that was given before.

    Attributes:
        text: Its words.
        speech: Its speech tokens.
        tool_call: The call of a tool that ended it, as the language model gives one; else empty.
    """

    text: str = ""
    speech: tuple[int, ...] = ()
    tool_call: str = ""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: Names the field and what was expected.
        """
        for name in ("text", "tool_call"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"request field 'answered.{name}' is not a text")
        codes = self.speech
        if not isinstance(codes, tuple) or not all(type(code) is int for code in codes):
            raise ValueError("request field 'answered.speech' is not a list of whole numbers")

    @classmethod
    def read(cls, value: object) -> KnownAnswer:
        """What :func:`dataclasses.asdict` made of one, by way of JSON.

        Raises:
            ValueError: Not an object, an unknown field, or a wrong value.
        """
        known = [item.name for item in fields(cls)]
        if not isinstance(value, dict) or not value.keys() <= set(known):
            raise ValueError(f"request field 'answered' is not an object of {', '.join(known)}")
        codes = value.get("speech", [])
        return cls(**{**value, "speech": tuple(codes) if isinstance(codes, list) else codes})


@dataclass(frozen=True)
class TurnRequest:
    """One turn's settings; every field has a default, so ``{}`` is a complete request.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token.
        top_p: Share of the probability to sample from, in (0, 1].
        max_new_tokens: Longest answer, text and speech tokens together.
        repetition_guard: Keep the answer from going round in circles (agent.speech.repetition).
        seed: Seeds the session's random numbers before this turn; None leaves them as they are.
        instruction: A typed instruction in place of speech.
        say: Text that must be said word for word.
        result: What the tool gave back that the answer before called, in place of speech.
        result_before: The same, where the caller has spoken since: it stands before this turn.
        heard_seconds: History edit before this turn: so much of the previous answer's audio was
            heard; the rest of that answer is forgotten, but for a call of a tool that a result
            follows. None keeps all of it.
        system: Another system prompt for the session.
        listen: The caller still speaks: read along, answer nothing.
        goes_on: The conversation has begun: an error where its history is not held (any more).
        answered: The turn was answered before, by a server that is gone: take it and its answer
            into the history, and answer nothing.
        early: The turn may not be over: answer what there is of it, but let it go on. The answer
            counts unless it is taken back.
        retract: With a stop: the answer was early and the turn went on; forget both.
        transcribe: Write down the caller's words in the session's last turn instead of answering.
        close: The call is over: forget the session.
        decoded: Speech tokens of the running answer that have become audio (from the decoder).
        timing: Seconds spent on the way so far, by name of the step.
    """

    temperature: float = 0.2
    top_p: float = 0.8
    max_new_tokens: int = 2000
    repetition_guard: bool = True
    seed: int | None = None
    instruction: str | None = None
    say: str | None = None
    result: str | None = None
    result_before: str | None = None
    heard_seconds: float | None = None
    system: str | None = None
    listen: bool = False
    goes_on: bool = False
    answered: KnownAnswer | None = None
    early: bool = False
    retract: bool = False
    transcribe: bool = False
    close: bool = False
    decoded: int | None = None
    timing: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: Names the field, its value and what was expected.
        """
        self._number("temperature", low=0.0)
        self._number("top_p", low=0.0, high=1.0)
        if self.top_p == 0.0:
            raise ValueError("request field 'top_p' is 0.0, expected a number above 0, at most 1")
        self._whole("max_new_tokens", low=1)
        self._whole("seed", low=0, optional=True)
        self._whole("decoded", low=0, optional=True)
        self._number("heard_seconds", low=0.0, optional=True)
        for name in ("instruction", "say", "result", "result_before", "system"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"request field {name!r} is {value!r}, expected text or null")
        flags = ("repetition_guard", "listen", "goes_on", "early", "retract", "transcribe", "close")
        for name in flags:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"request field {name!r} is {value!r}, expected true or false")
        if not isinstance(self.timing, dict) or not all(
            isinstance(name, str) and _is_number(value) for name, value in self.timing.items()
        ):
            raise ValueError("request field 'timing' is not an object of seconds by name")

    @property
    def typed(self) -> bool:
        """Whether it asks for something other than an answer to what was spoken."""
        return not (self.instruction is self.say is self.result is None)

    def _number(
        self, name: str, low: float, high: float = math.inf, optional: bool = False
    ) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if not _is_number(value) or not low <= value <= high:
            most = f" and at most {high}" if high < math.inf else ""
            raise ValueError(
                f"request field {name!r} is {value!r}, expected a number of at least {low}{most}"
            )

    def _whole(self, name: str, low: int, optional: bool = False) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(
                f"request field {name!r} is {value!r}, expected a whole number of at least {low}"
            )

    def to_json(self) -> str:
        """The fields that differ from their defaults, as a JSON object."""
        default = TurnRequest()
        values = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != getattr(default, item.name)
        }
        return json.dumps(values, default=asdict)

    @classmethod
    def from_json(cls, text: str) -> TurnRequest:
        """Read a request; an empty string means the default one.

        Raises:
            ValueError: Not a JSON object, an unknown field, or a wrong value; names the field.
        """
        if not text:
            return cls()
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"request is not JSON: {error.msg}") from error
        if not isinstance(value, dict):
            raise ValueError(f"request is a JSON {type(value).__name__}, expected an object")
        known = {item.name for item in fields(cls)}
        for name in value:
            if name not in known:
                raise ValueError(
                    f"request field {name!r} is unknown, expected one of {', '.join(sorted(known))}"
                )
        if value.get("answered") is not None:
            value["answered"] = KnownAnswer.read(value["answered"])
        return cls(**value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
