"""What files of a rehearsal are read into: models that refuse what they do not know."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Part(BaseModel):
    """A piece of a scenario; a field it does not know is an error, not a silent typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
