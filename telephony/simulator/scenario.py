"""Scenarios: what a scripted caller says, when, and what must come back."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from telephony.simulator.expectation import CallExpectation, Expectation
from telephony.simulator.part import Part, explain


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
        expect: What must hold for the call as a whole.
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
    expect: CallExpectation = CallExpectation()

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
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    turns = tuple(
        turn.model_copy(update={"wav": path.parent / turn.wav}) for turn in scenario.turns
    )
    return scenario.model_copy(update={"turns": turns})
