"""Scenarios: what a scripted caller says, when, and what must come back."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from telephony.simulator.expectation import CallExpectation, Expectation, Expression, Phrase
from telephony.simulator.network import Network
from telephony.simulator.noise import Codec, Noise
from telephony.simulator.part import Part
from telephony.simulator.spoken_text import VoiceField, without_breaks


class AfterAgent(Part):
    """Speak when the agent has been heard and then been silent for a while."""

    silence_ms: int = Field(default=900, ge=20)


class DuringAgent(Part):
    """Speak over the agent, so long after its answer became audible: a barge-in."""

    after_ms: int = Field(ge=0)


class AfterCaller(Part):
    """Speak so long after one's own last line ended, whatever the agent does."""

    after_ms: int = Field(ge=0)


class Moment(Part):
    """When something happens: exactly one of the fields.

    Attributes:
        after_agent: After the agent's answer.
        during_agent: In the middle of the agent's answer.
        after_caller: After the caller's own last line: somebody who goes on after a pause.
        at_ms: At a time, counted from the start of the media stream.
    """

    after_agent: AfterAgent | None = None
    during_agent: DuringAgent | None = None
    after_caller: AfterCaller | None = None
    at_ms: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> "Moment":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of after_agent, during_agent, after_caller and at_ms"
            )
        return self


def _moment(value: Any) -> Any:
    return {"after_agent": {}} if value == "after_agent" else value


When = Annotated[Moment, BeforeValidator(_moment)]


class Turn(Part):
    """One thing that the caller does: says words, presses keys, or stays silent.

    Attributes:
        wav: The recording: mono WAV at 16 or 8 kHz; a relative path starts at the scenario's file.
        digits: Keys to press, of ``0123456789*#ABCD``; ``w`` waits half a second.
        silence_ms: The caller says nothing for so long, whatever the agent does.
        say: The words: of the recording, for reports; without one a synthetic voice speaks them,
            and ``<break time="800ms"/>`` is a pause.
        voice: Whose; the scenario's if not given.
        gain_db: Louder or softer than the scenario's other lines.
        backchannel: A murmur that means "go on": the agent must talk on, and the caller keeps
            listening to the same answer.
        when: When to start, by default after the agent's answer to what came before.
        expect: What must come back.
    """

    wav: Path | None = None
    digits: str | None = Field(default=None, pattern=r"^[0-9*#A-Dw]*[0-9*#A-D][0-9*#A-Dw]*$")
    silence_ms: int | None = Field(default=None, gt=0)
    say: str = Field(default="", validate_default=True)
    voice: VoiceField | None = None
    gain_db: float = 0.0
    backchannel: bool = False
    when: When = Moment(after_agent=AfterAgent())
    expect: Expectation = Expectation()

    @field_validator("digits", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int):
            # YAML has already made 83 of 0123.
            raise ValueError("write digits in quotes")
        return value

    @field_validator("say")
    @classmethod
    def _words(cls, value: str, info: ValidationInfo) -> str:
        given = info.data
        silent = given.get("digits") is not None or given.get("silence_ms") is not None
        if not silent and not without_breaks(value):
            raise ValueError("the words are needed, for a recording too")
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> "Turn":
        kinds = [n for n in ("wav", "digits", "silence_ms") if getattr(self, n) is not None]
        if len(kinds) > 1:
            raise ValueError(f"{kinds[0]} and {kinds[1]}: a turn is one or the other")
        if self.backchannel and self.when.during_agent is None:
            raise ValueError("backchannel: needs when.during_agent")
        if self.backchannel and "expect" in self.model_fields_set:
            raise ValueError("backchannel: expects that the agent talks on, and nothing else")
        return self

    @model_validator(mode="after")
    def _barge_in_checks(self) -> "Turn":
        wants = self.expect.silent_within_ms is not None or self.expect.history_cut
        if wants and self.when.during_agent is None:
            raise ValueError("silent_within_ms and history_cut need a turn with when.during_agent")
        return self

    @property
    def is_spoken(self) -> bool:
        """Words are said, by a recording or a synthetic voice."""
        return self.digits is None and self.silence_ms is None

    @property
    def label(self) -> str:
        """What the caller does, for reports."""
        if self.digits is not None:
            return f"[presses {self.digits}]" + (f" {self.say}" if self.say else "")
        if self.silence_ms is not None:
            return f"[is silent for {self.silence_ms / 1000:g} s]"
        return without_breaks(self.say)


class Greeting(Part):
    """The agent speaks first, and what it says."""

    expect: Expectation = Expectation()


def _greeting(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    return value


class Transition(Part):
    """Where a caller with a goal goes next. Every condition that is given must hold.

    Attributes:
        words: Each occurs in the agent's text as a word, or as words in a row; how numbers, dates
            and clock times are written makes no difference.
        matches: Regular expression found somewhere in the agent's text, in any case of letters.
        silent: The agent said nothing; ``false``: it said something.
        visits: The state has been entered at least so often, this time included.
        to: The next state.
    """

    words: tuple[Phrase, ...] = ()
    matches: Expression | None = None
    silent: bool | None = None
    visits: int | None = Field(default=None, ge=1)
    to: str


def _lines(value: Any) -> Any:
    lines = value if isinstance(value, list | tuple) else [value]
    return [{"say": line} if isinstance(line, str) else line for line in lines]


class State(Part):
    """What a caller with a goal says, and what it does with the answer.

    Attributes:
        say: Lines (words, or turns without ``when``). The first is said on the first visit, the
            next on the second, and so on; the last is repeated.
        listen: When the caller has heard enough to react.
        next: Tried in order; without one that holds, the state is entered again.
        success: Set in a final state: whether the caller got what it wanted.
    """

    say: Annotated[tuple[Turn, ...], BeforeValidator(_lines)] = ()
    listen: When = Moment(after_agent=AfterAgent())
    next: tuple[Transition, ...] = ()
    success: bool | None = None

    @model_validator(mode="after")
    def _shape(self) -> "State":
        if self.success is None and not self.say:
            raise ValueError("say: a state that is not final needs a line")
        if self.success is None and not self.next:
            raise ValueError("give next, or success in a final state")
        if self.success is not None and self.next:
            raise ValueError("a state has success or next, not both")
        if any("when" in line.model_fields_set for line in self.say):
            raise ValueError("say: a line of a state has no when; see listen")
        return self


class Goal(Part):
    """What the caller wants, as a state machine that reacts to what the agent says.

    Attributes:
        states: By name. One at least has ``success: true``.
        start: The first state.
        longest_turns: After so many lines the caller gives up.
    """

    states: dict[str, State] = Field(min_length=2)
    start: str
    longest_turns: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _connected(self) -> "Goal":
        named = {self.start: "start"}
        for name, state in self.states.items():
            named |= {to.to: f"states.{name}.next" for to in state.next}
        for name, where in named.items():
            if name not in self.states:
                raise ValueError(f"{where}: no state named {name!r}")
        if self.states[self.start].success is not None:
            raise ValueError("start: a final state")
        if not any(state.success for state in self.states.values()):
            raise ValueError("states: none has success: true")
        return self

    @property
    def lines(self) -> tuple[Turn, ...]:
        """Every line that may be said, state by state."""
        return tuple(line for state in self.states.values() for line in state.say)


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
        goal: What the caller wants instead, where it is to react to the agent.
        hang_up: When the caller hangs up after the last turn.
        patience_ms: How long the caller waits for the agent to say something before it goes on.
        longest_ms: The caller hangs up after so long, whatever happens.
        voice: Who speaks the lines that are not recorded; flite's rms, else espeak-ng, else nano.
        noise: What is heard behind the caller.
        gain_db: How loud caller and noise arrive.
        codec: Codecs of the caller's way to Twilio, in order.
        seed: Of everything that is drawn.
        not_judged: What a scenario of another format asks for and a call cannot tell.
        expect: What must hold for the call as a whole.
        network: What the network does to the call.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    description: str = ""
    caller: str = "+15550100001"
    called: str = "+15550100002"
    greeting: Annotated[Greeting | None, BeforeValidator(_greeting)] = None
    turns: tuple[Turn, ...] = ()
    goal: Goal | None = None
    hang_up: When = Moment(after_agent=AfterAgent())
    patience_ms: int = Field(default=8000, gt=0)
    longest_ms: int = Field(default=180_000, gt=0)
    voice: VoiceField | None = None
    noise: Noise | None = None
    gain_db: float = Field(default=0.0, ge=-60, le=30)
    codec: tuple[Codec, ...] = ()
    seed: int = 0
    not_judged: tuple[str, ...] = ()
    expect: CallExpectation = CallExpectation()
    network: Network = Network()

    @model_validator(mode="after")
    def _something_to_say(self) -> "Scenario":
        if bool(self.turns) == (self.goal is not None):
            raise ValueError("give exactly one of turns and goal, and at least one turn")
        return self

    @model_validator(mode="after")
    def _nothing_to_interrupt(self) -> "Scenario":
        if self.greeting is None and self.turns and self.turns[0].when.during_agent is not None:
            raise ValueError("turns.0.when.during_agent: nothing to interrupt without a greeting")
        return self

    @property
    def lines(self) -> tuple[Turn, ...]:
        """Everything that the caller may say: the turns, or every line of the goal's states."""
        return self.goal.lines if self.goal is not None else self.turns


def load_scenario(path: Path) -> Scenario:
    """Read a file that stands for one call.

    Args:
        path: A YAML file, or any that :func:`telephony.simulator.load_scenarios` reads.

    Returns:
        The scenario; its WAV paths are absolute or relative to the working directory.

    Raises:
        ValueError: The file cannot be read or is no YAML mapping, a field is unknown, missing or
            wrong, or it stands for several calls; the message names the file and the field.
    """
    # That module reads what this one describes.
    from telephony.simulator.loading import load_scenarios

    scenarios = load_scenarios(path)
    if len(scenarios) > 1:
        raise ValueError(f"{path}: stands for {len(scenarios)} calls, expected one")
    return scenarios[0]
