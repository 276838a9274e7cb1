"""``glm-voice check``: what is wrong with a file of settings, or will not do what it seems to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

from agent.settings import load_settings
from agent.yaml_document import Document, Location, Mistake, MistakesError
from telephony.agents import ANY_NUMBER, Agent, CallCentre


def check(
    path: Path, today: date, environ: Mapping[str, str] | None = None
) -> tuple[list[Mistake], list[Mistake]]:
    """Check a file of settings.

    Args:
        path: The file.
        today: From which holidays are past.
        environ: Environment variables; None takes the process's own.

    Returns:
        Mistakes, with which the gateway does not start, and, where there are none, warnings.
    """
    try:
        settings = load_settings(path, environ, CallCentre)
    except MistakesError as error:
        return error.mistakes, []
    document = Document(path)
    return [], [document.mistake(*warning) for warning in _warnings(settings, today)]


def _warnings(settings: CallCentre, today: date) -> Iterator[tuple[Location, str]]:
    gateway = settings.gateway
    for name, read in (
        ("auth_token_file", gateway.read_auth_token),
        ("operator_token_file", gateway.read_operator_token),
    ):
        try:
            read()
        except ValueError as error:
            yield ("gateway", name), str(error)
    yield from settings.unusable_tools()
    agents: dict[Location, Agent] = {("agents", n): agent for n, agent in settings.agents.items()}
    for place, agent in (agents or {("agent",): settings.agent}).items():
        for location, message in _agent_warnings(agent, today):
            where = (*place, *location)
            yield where, f"{'.'.join(map(str, where))}: {message}"
    if settings.agents and settings.staff.answering(ANY_NUMBER) is None:
        yield ("agents",), f'agents: calls to other numbers are refused; "{ANY_NUMBER}" takes them'


def _agent_warnings(agent: Agent, today: date) -> Iterator[tuple[Location, str]]:
    if agent.greeting_text is not None and "greeting" in agent.model_fields_set:
        yield ("greeting",), "is not used: greeting_text is said word for word"
    hours = agent.hours
    if hours is None and "outside" in agent.model_fields_set:
        yield ("outside",), "is not used without hours"
    if hours is not None and not any(hours.open.values()):
        yield ("hours", "open"), "no day has times: it is always closed"
    if hours is not None and hours.holidays and all(d.last < today for d in hours.holidays):
        yield ("hours", "holidays"), "all of them are past"
    limits = agent.limits
    if limits.warning_secs is None or (limits.call_secs or 0) <= limits.warning_secs:
        if "warning_secs" in limits.model_fields_set:
            yield ("limits", "warning_secs"), "is not used: no call is that long"
        if agent.turn_taking.time_warning is not None:
            yield ("turn_taking", "time_warning"), "is not used: no call is warned of its end"
    if agent.busy.then == "refuse" and "longest_wait_secs" in agent.busy.model_fields_set:
        yield ("busy", "longest_wait_secs"), "is not used: calls are refused at once"
