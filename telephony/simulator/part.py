"""What the simulator reads from files: strict models, and errors that name file and field."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Part(BaseModel):
    """A piece of a file; a field it does not know is an error, not a silent typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=Part)


def read_part(path: Path, model: type[_Model]) -> _Model:
    """Read a YAML file.

    Args:
        path: The file: a mapping.
        model: What it holds.

    Raises:
        ValueError: The file cannot be read or is no YAML mapping, or a field is unknown, missing or
            wrong; the message names the file and the field.
    """
    try:
        return model.model_validate(read_mapping(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


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


def explain(error: ValidationError) -> str:
    """What is wrong with a file, field by field, in one line."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown field {field}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{field}: {message}" if field else message)
    return "; ".join(problems)
