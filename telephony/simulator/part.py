"""What the simulator reads from files: strict models, and errors that name file and field."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.yaml_document import read_mapping


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
