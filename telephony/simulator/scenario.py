"""Scenarios: what a scripted caller says, when, and what must come back."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from telephony.simulator.network import Network
from telephony.simulator.part import Part, read_part


class AfterAgent(Part):
    """Speak when the agent has been heard and then been silent for a while."""

    silence_ms: int = Field(default=900, ge=20)


class DuringAgent(Part):
    """Speak over the agent, so long after its answer became audible: a barge-in."""

    after_ms: int = Field(ge=0)


class Moment(Part):
    """When something happens: exactly one of the fields.

    Attributes:
        after_agent: After the agent's answer.
        during_agent: In the middle of the agent's answer.
        at_ms: At a time, counted from the start of the media stream.
    """

    after_agent: AfterAgent | None = None
    during_agent: DuringAgent | None = None
    at_ms: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> "Moment":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of after_agent, during_agent and at_ms")
        return self


def _moment(value: Any) -> Any:
    return {"after_agent": {}} if value == "after_agent" else value


When = Annotated[Moment, BeforeValidator(_moment)]


class Expectation(Part):
    """What must hold for a turn; every field that is given becomes a check of its own.

    Attributes:
        answered: Whether the agent must say something after the turn, or must not.
        matches: Regular expression found somewhere in the agent's text, in any case of letters.
        words: Each occurs in the agent's text as a word, or as words in a row.
        similar_to: A text that the agent's should resemble.
        similarity: How much, from 0 to 1: share of words in common order (difflib's ratio).
        answer_within_ms: Longest voice-to-voice time.
        silent_within_ms: For a barge-in: the agent falls silent so soon after the caller's first
            audible sample.
        history_cut: For a barge-in: the agent's history keeps less than all of the answer that
            was cut off, and only its beginning.
    """

    answered: bool = True
    matches: str | None = None
    words: tuple[str, ...] = ()
    similar_to: str | None = None
    similarity: float = Field(default=0.7, ge=0, le=1)
    answer_within_ms: float | None = Field(default=None, gt=0)
    silent_within_ms: float | None = Field(default=None, gt=0)
    history_cut: bool = False

    @field_validator("matches")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value


class Turn(Part):
    """One thing that the caller says.

    Attributes:
        say: Its words, for reports.
        wav: The recording: mono WAV at 16 or 8 kHz; a relative path starts at the scenario's file.
        when: When to start, by default after the agent's answer to what came before.
        expect: What must come back.
    """

    say: str
    wav: Path
    when: When = Moment(after_agent=AfterAgent())
    expect: Expectation = Expectation()

    @model_validator(mode="after")
    def _barge_in_checks(self) -> "Turn":
        wants = self.expect.silent_within_ms is not None or self.expect.history_cut
        if wants and self.when.during_agent is None:
            raise ValueError("silent_within_ms and history_cut need a turn with when.during_agent")
        return self


class Greeting(Part):
    """The agent speaks first, and what it says."""

    expect: Expectation = Expectation()


def _greeting(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    return value


class Scenario(Part):
    """One call from the caller's side.

    Attributes:
        format: Version of this format.
        name: Short, for reports.
        description: What is rehearsed.
        caller: The number that calls.
        called: The number that is called.
        greeting: What is expected before the caller says anything (``true``: anything audible);
            None where the caller speaks first.
        turns: What the caller says, in order.
        hang_up: When the caller hangs up after the last turn.
        patience_ms: How long the caller waits for the agent to say something before it goes on.
        longest_ms: The caller hangs up after so long, whatever happens.
        network: What the network does to the call.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    description: str = ""
    caller: str = "+15550100001"
    called: str = "+15550100002"
    greeting: Annotated[Greeting | None, BeforeValidator(_greeting)] = None
    turns: tuple[Turn, ...] = Field(min_length=1)
    hang_up: When = Moment(after_agent=AfterAgent())
    patience_ms: int = Field(default=8000, gt=0)
    longest_ms: int = Field(default=180_000, gt=0)
    network: Network = Network()

    @model_validator(mode="after")
    def _nothing_to_interrupt(self) -> "Scenario":
        if self.greeting is None and self.turns[0].when.during_agent is not None:
            raise ValueError("turns.0.when.during_agent: nothing to interrupt without a greeting")
        return self


def load_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Args:
        path: A YAML file.

    Returns:
        The scenario; its WAV paths are absolute or relative to the working directory.

    Raises:
        ValueError: The file cannot be read or is no YAML mapping, or a field is unknown, missing or
            wrong; the message names the file and the field.
    """
    scenario = read_part(path, Scenario)
    turns = tuple(
        turn.model_copy(update={"wav": path.parent / turn.wav}) for turn in scenario.turns
    )
    return scenario.model_copy(update={"turns": turns})
