"""A table of facts as a tool."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from agent.tools.arguments import Arguments
from agent.tools.call import Call
from agent.tools.settings import LookUpSettings
from agent.tools.tool import Tool, ToolResult
from agent.yaml_document import read_mapping

_SIMILAR = 0.75
"""Least likeness (difflib's ratio) at which a key that was not quite hit is taken."""


def look_up_tool(settings: LookUpSettings) -> Tool:
    """Make a tool of a table.

    Raises:
        ValueError: The table's file cannot be read, or two of its keys are the same words.
    """
    facts = settings.facts if settings.file is None else _read(settings.file)
    assert facts is not None
    table: dict[str, str] = {}
    for key, fact in facts.items():
        if _plain(key) in table:
            raise ValueError(f"facts: {key!r} is there twice")
        table[_plain(key)] = fact

    async def work(arguments: dict[str, Any], call: Call) -> ToolResult:
        asked = arguments[settings.parameter]
        found = _plain(asked)
        if found not in table:
            near = difflib.get_close_matches(found, table, n=1, cutoff=_SIMILAR)
            if not near:
                known = f"nothing is known of {asked!r}, but of {', '.join(facts)}"
                return ToolResult(settings.unknown or known)
            found = near[0]
        return ToolResult(table[found])

    about = Field(..., description="What to look up.")
    arguments = Arguments(settings.name, {settings.parameter: (str, about)})
    return Tool(settings, settings.description, arguments, work)


def _plain(text: str) -> str:
    """Words in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _read(path: Path) -> Mapping[str, str]:
    content = read_mapping(path)
    if not content:
        raise ValueError(f"{path}: expected facts, got none")
    for key, fact in content.items():
        if not isinstance(key, str) or not isinstance(fact, str):
            raise ValueError(f"{path}: {key!r}: expected text for a key and for its fact")
    return content
