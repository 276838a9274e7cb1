"""One scenario file, several calls: variables, rows of data and paraphrases.

Works on what YAML gave, before it becomes scenarios: ``${name}`` in any text is a variable, and in
the caller's words ``{one|another|}`` is one of its choices, drawn with a seed.
"""

import csv
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from telephony.simulator.part import Part, explain

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_SPOKEN = "say"
_TRIES = 50
Value = str | int | float


class Paraphrases(Part):
    """How often a scenario with choices is drawn.

    Attributes:
        count: Calls that differ in their words, as far as there are so many.
        seed: Same seed, same words.
    """

    count: int = Field(default=1, ge=1, le=1000)
    seed: int = 0


def _counted(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Expansion(Part):
    """The fields of a scenario file that say how many calls it stands for.

    Attributes:
        variables: Values of ``${name}``.
        data: A CSV file with a line of names, or a list of mappings: one call for each row, whose
            values come before those of ``variables``.
        paraphrases: How often the choices in the caller's words are drawn.
    """

    variables: dict[str, Value] = Field(default_factory=dict)
    data: Path | tuple[dict[str, Value], ...] | None = None
    paraphrases: Annotated[Paraphrases, BeforeValidator(_counted)] = Paraphrases()


def expand(content: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Every concrete scenario that a file stands for.

    Args:
        content: The file's mapping.
        folder: Where relative paths of data start.

    Returns:
        Mappings without the fields of :class:`Expansion`, each with a name of its own.

    Raises:
        ValueError: A field, a file or a variable is wrong; the message names it.
    """
    own = {name: content[name] for name in Expansion.model_fields if name in content}
    template = {name: value for name, value in content.items() if name not in own}
    try:
        expansion = Expansion.model_validate(own)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    rows = _rows(expansion, folder)
    wanted = expansion.paraphrases
    if wanted.count > 1 and not _has_choices(template):
        raise ValueError("paraphrases: no line has choices, such as {Hello|Good morning}")
    filled = [_each_text(template, partial(_fill, row), "") for row in rows]
    scenarios = []
    for number, name in enumerate(_names(filled, rows)):
        for draw, version in enumerate(_versions(filled[number], wanted, number), 1):
            if name is not None:
                version["name"] = f"{name} / {draw}" if wanted.count > 1 else name
            scenarios.append(version)
    return scenarios


def _names(
    filled: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Value]]
) -> list[str | None]:
    """What each row's calls are called: the file's name, where need be with the row's or number."""
    names = [content.get("name") for content in filled]
    if not all(isinstance(name, str) for name in names):
        return [None] * len(names)
    if len(set(names)) == len(names):
        return names
    own = [str(row.get("name", "")) for row in rows]
    if len(set(own)) < len(own) or "" in own:
        own = [f"row {number}" for number in range(1, len(rows) + 1)]
    return [f"{name} / {label}" for name, label in zip(names, own, strict=True)]


def _rows(expansion: Expansion, folder: Path) -> list[dict[str, Value]]:
    data = expansion.data
    if data is None:
        return [dict(expansion.variables)]
    rows = _read_table(folder / data) if isinstance(data, Path) else list(data)
    if not rows:
        raise ValueError("data: no rows")
    return [{**expansion.variables, **row} for row in rows]


def _read_table(path: Path) -> list[dict[str, Value]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey="", restval=None))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data: {path}: {error}") from None
    for number, row in enumerate(rows, 1):
        if None in row.values() or "" in row:
            raise ValueError(f"data: {path}: row {number} has not as many fields as the first line")
    return [dict(row) for row in rows]


def _versions(filled: dict[str, Any], wanted: Paraphrases, row: int) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = []
    for draw in range(wanted.count):
        for attempt in range(_TRIES):
            rng = random.Random(f"{wanted.seed} {row} {draw} {attempt}")
            version = _each_text(filled, partial(_say, rng), "")
            if version not in versions:
                versions.append(version)
                break
    return versions


def _say(rng: random.Random, text: str, field: str) -> str:
    return _choose(text, rng) if field == _SPOKEN else text


def _choose(text: str, rng: random.Random) -> str:
    # The innermost braces first, until none are left: choices may hold choices.
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), text)
    return re.sub(r"\s+([,.?!])", r"\1", " ".join(text.split()))


def _fill(variables: Mapping[str, Value], text: str, field: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in variables:
            known = ", ".join(sorted(variables)) or "none"
            raise ValueError(f"{field}: no variable named {found[1]!r}, there are: {known}")
        return str(variables[found[1]])

    return _VARIABLE.sub(value, text)


def _each_text(value: Any, change: Callable[[str, str], str], field: str) -> Any:
    """A copy with every text changed; ``change`` is told the field that the text is in."""
    if isinstance(value, str):
        return change(value, field)
    if isinstance(value, list):
        return [_each_text(item, change, field) for item in value]
    if isinstance(value, dict):
        return {name: _each_text(item, change, str(name)) for name, item in value.items()}
    return value


def _has_choices(template: dict[str, Any]) -> bool:
    found = []

    def look(text: str, field: str) -> str:
        if field == _SPOKEN and _CHOICE.search(text):
            found.append(text)
        return text

    _each_text(template, look, "")
    return bool(found)
