"""The agents of a call centre: who answers which number, when, how, and what happens otherwise.

``agents:`` in the file of settings names them; a plain ``agent:`` is the short form for one agent
that answers every number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from agent.phone_number import PhoneNumber, checked_number, number_as_text
from agent.section import Section
from agent.settings import AgentSettings, Settings
from agent.tools.building import build_tools
from agent.tools.settings import FunctionSettings, TransferSettings
from agent.tools.tool import Tool
from agent.yaml_document import Location
from telephony.hours import Hours
from telephony.outbound.settings import OutboundSettings
from telephony.phone_settings import PhoneSettings
from telephony.records.redaction import Redaction
from telephony.sentences import Sentences, sentences

ANY_NUMBER = "*"
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def _own(number: str) -> str:
    return number if number == ANY_NUMBER else checked_number(number)


def _some(numbers: tuple[str, ...]) -> tuple[str, ...]:
    # Not a minimal length: pydantic finds the list empty where its numbers are wrong.
    if not numbers:
        raise ValueError("expected at least one number")
    return numbers


def _language(tag: str) -> str:
    if _LANGUAGE.fullmatch(tag) is None:
        raise ValueError(f"expected a language tag such as en-US, got {tag!r}")
    return tag


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("expected words, got none")
    return text


Words = Annotated[str, AfterValidator(_words)]
OwnNumber = Annotated[str, BeforeValidator(number_as_text), AfterValidator(_own)]


class Limits(Section):
    """What an agent may take.

    Attributes:
        calls: Its calls at once, beside what all agents share; None: no limit of its own.
        call_secs: After so long the agent says goodbye; None: never.
        warning_secs: So long before that it says that the call has to end, where the call is
            longer; None: it does not.
    """

    calls: int | None = Field(default=None, ge=1)
    call_secs: float | None = Field(default=None, gt=0)
    warning_secs: float | None = Field(default=60.0, gt=0)


class Busy(Section):
    """What happens to a call for which there is no place.

    Attributes:
        then: ``wait`` with a spoken message, ``forward`` to a number, or ``refuse``.
        say: The words, in the carrier's voice; None: our own in the agent's language.
        number: Where ``forward`` leads, and where calls go that have waited in vain or find no
            engine.
        longest_wait_secs: After so long a waiting call is forwarded if there is a number, else
            refused.
    """

    then: Literal["wait", "forward", "refuse"] = "refuse"
    say: Words | None = None
    number: PhoneNumber | None = None
    longest_wait_secs: float = Field(default=120.0, gt=0, le=300)

    @model_validator(mode="after")
    def _whole(self) -> Busy:
        if self.then == "forward" and self.number is None:
            raise ValueError("forward needs a number")
        return self


class Outside(Section):
    """What happens to a call outside the hours.

    Attributes:
        then: ``agent``: another one answers; ``forward`` to a number; or ``refuse``.
        say: The words, in the carrier's voice; None: our own in the agent's language.
        number: Where ``forward`` leads.
        agent: The name of who answers instead; that agent's own hours do not count.
    """

    then: Literal["agent", "forward", "refuse"] = "refuse"
    say: Words | None = None
    number: PhoneNumber | None = None
    agent: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Outside:
        if self.then == "forward" and self.number is None:
            raise ValueError("forward needs a number")
        if self.then == "agent" and self.agent is None:
            raise ValueError("agent needs the name of an agent")
        return self


class Agent(AgentSettings):
    """One agent.

    Attributes:
        numbers: The numbers that it answers (E.164), or ``"*"``: those that no other agent has.
        language: Of the sentences that the carrier's voice says, a tag such as ``en-US`` or
            ``zh-CN``. What the agent itself speaks, its instructions say.
        limits: What it may take.
        hours: When it answers; None: always.
        outside: What happens outside the hours.
        busy: What happens when there is no place.
        goodbye: What it says word for word before it has to end a call; None: our own words in its
            language.
        phone: Keys, recordings, transfers.
        outbound: How it calls people; None: it does not.
    """

    numbers: Annotated[tuple[OwnNumber, ...], AfterValidator(_some)] = (ANY_NUMBER,)
    language: Annotated[str, AfterValidator(_language)] = "en-US"
    greeting: Words | None = AgentSettings.model_fields["greeting"].default
    greeting_text: Words | None = None
    instructions: Words | None = None
    limits: Limits = Limits()
    hours: Hours | None = None
    outside: Outside = Outside()
    busy: Busy = Busy()
    goodbye: Words | None = None
    phone: PhoneSettings = PhoneSettings()
    outbound: OutboundSettings | None = None

    @property
    def sentences(self) -> Sentences:
        """What callers are told where the settings say nothing else."""
        return sentences(self.language)

    @cached_property
    def toolbox(self) -> tuple[Tool, ...]:
        """Its tools, made once for all calls.

        Raises:
            ValueError: One cannot be made; names it.
        """
        return tuple(build_tools(self.tools))

    @property
    def redaction(self) -> Redaction:
        """What is masked in the records of its calls."""
        return Redaction(frozenset(self.redact), self.private_arguments)

    @property
    def may_transfer(self) -> bool:
        """Whether a tool might send a call on."""
        return any(isinstance(tool, TransferSettings | FunctionSettings) for tool in self.tools)


class Agents:
    """Who answers which number."""

    def __init__(self, agents: Mapping[str, Agent]):
        """Know agents by their names, of which no two have the same number."""
        self._agents = dict(agents)
        self._numbers = {number: name for name, one in agents.items() for number in one.numbers}

    def __iter__(self) -> Iterator[str]:
        """The agents' names."""
        return iter(self._agents)

    def __getitem__(self, name: str) -> Agent:
        """The agent of a name."""
        return self._agents[name]

    def answering(self, called: str) -> str | None:
        """The name of the agent that has a number, or else every number; None if none does."""
        return self._numbers.get(called, self._numbers.get(ANY_NUMBER))


class CallCentre(Settings):
    """All settings of ``glm-voice serve``.

    Attributes:
        agent: The only agent, if it is one.
        agents: All agents by name, if there are more.
    """

    agent: Agent = Agent()
    agents: Mapping[str, Agent] = Field(default_factory=dict)

    @property
    def staff(self) -> Agents:
        """All agents."""
        return Agents(self.agents or {"agent": self.agent})

    def build_tools(self) -> None:
        """Make all agents' tools, before calls need them.

        Raises:
            ValueError: Some cannot be made; names them.
        """
        mistakes = [message for _, message in self.unusable_tools()]
        if mistakes:
            raise ValueError("\n".join(mistakes))

    def unusable_tools(self) -> Iterator[tuple[Location, str]]:
        """The agents whose tools cannot be made: where, and why."""
        for section, _, agent in self._named():
            try:
                _ = agent.toolbox
            except ValueError as error:
                yield (*section, "tools"), f"{'.'.join(section)}.tools: {error}"

    def conflicts(self) -> Iterable[tuple[Location, str]]:
        """What is wrong between the agents."""
        if "agent" in self.model_fields_set and "agents" in self.model_fields_set:
            yield ("agent",), "agent: belongs under agents: where that is given"
        places = [
            (("agents", name, "numbers", place), number)
            for name, agent in self.agents.items()
            for place, number in enumerate(agent.numbers)
        ]
        counts = Counter(number for _, number in places)
        for location, number in places:
            if counts[number] > 1:
                field = ".".join(map(str, location))
                told = "every number" if number == ANY_NUMBER else number
                yield location, f"{field}: {told} belongs to more than one agent"
        every = {number for number in counts if number != ANY_NUMBER}
        for section, name, agent in self._named():
            where = ".".join(section)
            if agent.busy.then == "wait" and self.gateway.workers > 1:
                yield (
                    (*section, "busy", "then"),
                    f"{where}.busy.then: calls cannot wait where gateway.workers is more than 1",
                )
            if self.gateway.workers > 1:
                # Twilio's questions about those calls reach whichever process.
                alone: list[Location] = [
                    (*section, "tools", place, "warm")
                    for place, tool in enumerate(agent.tools)
                    if isinstance(tool, TransferSettings) and tool.warm
                ]
                if agent.outbound is not None:
                    alone.append((*section, "outbound"))
                for place_alone in alone:
                    field = ".".join(map(str, place_alone))
                    yield place_alone, f"{field}: not where gateway.workers is more than 1"
            other = agent.outside.agent
            if other is not None and (other == name or other not in self.agents):
                known = ", ".join(one for one in self.agents if one != name) or "none"
                yield (
                    (*section, "outside", "agent"),
                    f"{where}.outside.agent: expected another agent ({known}), got {other!r}",
                )
            for part, onward in (("outside", agent.outside.number), ("busy", agent.busy.number)):
                if onward is not None and onward in (every | {*agent.numbers}):
                    yield (
                        (*section, part, "number"),
                        f"{where}.{part}.number: {onward} is answered by an agent, who would send "
                        "the call round in circles",
                    )

    def _named(self) -> Iterator[tuple[tuple[str, ...], str, Agent]]:
        if self.agents:
            for name, agent in self.agents.items():
                yield ("agents", name), name, agent
        else:
            yield ("agent",), "agent", self.agent
