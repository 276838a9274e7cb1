"""A YAML file as values, and where in the file each of them stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Location = tuple[str | int, ...]
"""Keys and positions that lead from the top of a document to a value."""


@dataclass(frozen=True)
class Mistake:
    """Something in a file of settings that cannot stay as it is.

    Attributes:
        source: The file, or the environment variable.
        line: Line in the file, from 1; None where there is none to name.
        message: What is wrong, with the field.
    """

    source: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.message}"


class MistakesError(ValueError):
    """Everything that is wrong with some settings, one mistake a line.

    Attributes:
        mistakes: In the order of the file.
    """

    def __init__(self, mistakes: Sequence[Mistake]):
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line or 0)
        super().__init__("\n".join(map(str, self.mistakes)))


class Document:
    """A file that holds one YAML mapping.

    Attributes:
        values: The mapping.
        mistakes: Keys that are given twice, of which YAML would silently take the last.
    """

    def __init__(self, path: Path):
        """Read a file.

        Raises:
            MistakesError: It cannot be read or holds something else; only the first thing that is
                no YAML can be told.
        """
        self._source = str(path)
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise self._unusable(f"not a YAML file: {error}") from error
        loader = yaml.SafeLoader(text)
        try:
            self._node = loader.get_single_node()
            # Before the values are made, which writes merged keys into the nodes.
            self.mistakes = [] if self._node is None else [*self._repeated(self._node, ())]
            values = {} if self._node is None else loader.construct_document(self._node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # What is missing at the end is found after it.
            line = None if mark is None else min(mark.line + 1, len(text.splitlines()))
            about = " ".join(part for part in (error.context, error.problem) if part)
            raise self._unusable(f"not a YAML file: {about}", line) from error
        except (yaml.YAMLError, ValueError) as error:
            # A ValueError comes from what looks like a date but is none.
            raise self._unusable(f"not a YAML file: {error}") from error
        finally:
            loader.dispose()
        if not isinstance(values, dict):
            raise self._unusable(f"expected a mapping of settings, got {type(values).__name__}", 1)
        self.values: dict[str, Any] = values

    def mistake(self, location: Location, message: str) -> Mistake:
        """A mistake at a value, or at the part of its location that the file has."""
        node: yaml.Node | None = self._node
        line: int | None = None
        for key in location:
            found = [child for child in _children(node) if child[0] == key]
            if not found:
                break
            # What a section has itself comes after what was merged into it.
            _, node, line = found[-1]
        return Mistake(self._source, line, message)

    def _unusable(self, message: str, line: int | None = None) -> MistakesError:
        return MistakesError([Mistake(self._source, line, message)])

    def _repeated(self, node: yaml.Node, above: Location) -> Iterator[Mistake]:
        seen: set[str | int] = set()
        for key, child, line in _children(node):
            if key in seen:
                field = ".".join(map(str, (*above, key)))
                yield Mistake(self._source, line, f"{field} is given twice")
            seen.add(key)
            yield from self._repeated(child, (*above, key))


def read_mapping(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> dict[str, Any]:
    """Read a YAML file's mapping as it stands.

    Args:
        path: The file.
        loader: A safe loader.

    Raises:
        ValueError: The file cannot be read or is no YAML mapping; the message names it.
    """
    try:
        content = yaml.load(path.read_text("utf-8"), loader)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def _children(node: yaml.Node | None) -> Iterator[tuple[str | int, yaml.Node, int]]:
    """Keys or positions, what stands there, and in which line (from 1)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            # "<<" may be given several times.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                yield key.value, value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield place, value, value.start_mark.line + 1
