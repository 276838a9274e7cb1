"""Reads scenario files: ours, which may stand for several calls, and those of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agent.yaml_document import read_mapping
from telephony.simulator.expansion import expand
from telephony.simulator.formats import pipecat, tau2
from telephony.simulator.part import explain
from telephony.simulator.scenario import Scenario, Turn


def load_scenarios(path: Path) -> tuple[Scenario, ...]:
    """Read every call that a file stands for.

    Args:
        path: A YAML file of ours; a YAML file of Pipecat's evals with scripted turns; a JSON file
            with the results of a tau2-bench run.

    Returns:
        The scenarios, each with a name of its own; their WAV paths are absolute or relative to the
        working directory.

    Raises:
        ValueError: The file cannot be read or is of no such kind, or a field is unknown, missing or
            wrong; the message names the file and the field.
    """
    if path.suffix == ".json":
        return tau2.load(path)
    if pipecat.recognises(read_mapping(path, _TolerantLoader)):
        return pipecat.load(path)
    content = read_mapping(path)
    try:
        versions = expand(content, path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    scenarios = tuple(_scenario(version, path) for version in versions)
    names = [scenario.name for scenario in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: several calls would be named {name!r}")
    return scenarios


class _TolerantLoader(yaml.SafeLoader):
    """Gives None for tags that YAML does not know, such as Pipecat's ``!include``."""


_TolerantLoader.add_constructor(None, lambda loader, node: None)


def _line_beside(turn: Turn, folder: Path) -> Turn:
    return turn if turn.wav is None else turn.model_copy(update={"wav": folder / turn.wav})


def _scenario(content: Mapping[str, Any], path: Path) -> Scenario:
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    return _beside(scenario, path.parent)


def _beside(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with relative paths of recordings taken from a folder."""
    changes: dict[str, Any] = {"turns": tuple(_line_beside(t, folder) for t in scenario.turns)}
    if scenario.goal is not None:
        states = {
            name: state.model_copy(
                update={"say": tuple(_line_beside(line, folder) for line in state.say)}
            )
            for name, state in scenario.goal.states.items()
        }
        changes["goal"] = scenario.goal.model_copy(update={"states": states})
    noise = scenario.noise
    if noise is not None and noise.wav is not None:
        changes["noise"] = noise.model_copy(update={"wav": folder / noise.wav})
    return scenario.model_copy(update=changes)
