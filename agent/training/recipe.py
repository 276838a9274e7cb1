"""Settings of a training: a section of a YAML file, checked before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from agent.yaml_document import read_mapping


def _found(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


Device = Annotated[str, AfterValidator(_found)]
"""``cpu``, ``cuda``, or ``auto``: a GPU where there is one."""


class Section(BaseModel):
    """A group of settings; a field it does not know is an error, not a silent typo.

    Attributes:
        section: Name of a recipe's own section in its settings file; empty for parts of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    section: ClassVar[str] = ""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the recipe's section of a file.

        Args:
            path: The YAML file. Relative paths inside it are taken from its directory.

        Raises:
            ValueError: The file cannot be read, is no YAML mapping or has no such section, or a
                field is missing, unknown or has a wrong value; names the file and the field.
        """
        path = Path(path)
        values = read_mapping(path)
        section = values.get(cls.section)
        if not isinstance(section, dict):
            raise ValueError(f"{path}: section {cls.section!r} is missing")
        return cls.checked(section, path, cls.section)

    @classmethod
    def checked(cls, values: dict[str, Any], path: Path, where: str) -> Self:
        """Check values that were read from somewhere in a file.

        Raises:
            ValueError: As :meth:`read`.
        """
        try:
            made = cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"{path}: {_explain(error, where)}") from None
        return made.below(path.parent)

    def below(self, directory: Path) -> Self:
        """The same with relative paths taken from a directory."""
        given = self.model_fields_set
        return self.model_copy(
            update={field: _moved(value, directory) for field, value in self if field in given}
        )


def _moved(value: Any, directory: Path) -> Any:
    if isinstance(value, Path):
        return directory / value
    if isinstance(value, Section):
        return value.below(directory)
    if isinstance(value, dict):
        return {key: _moved(item, directory) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, directory) for item in value]
    return value


def _explain(error: ValidationError, where: str) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join([where, *map(str, problem["loc"])])
        kind = {"extra_forbidden": "is unknown", "missing": "is missing"}.get(problem["type"])
        problems.append(f"field {field!r} {kind or 'is wrong: ' + problem['msg']}")
    return "; ".join(problems)
