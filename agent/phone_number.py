"""Telephone numbers in settings."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_E164 = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)


def number_as_text(value: Any) -> Any:
    """A value as it is, unless YAML has read a telephone number as a number.

    Raises:
        ValueError: It has.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'a telephone number belongs in quotes: "+{value}"')
    return value


def checked_number(number: str) -> str:
    """A number as it is, if it is one.

    Raises:
        ValueError: It is not in E.164.
    """
    if _E164.fullmatch(number) is None:
        raise ValueError(f"expected a number such as +15550100002 (E.164), got {number!r}")
    return number


PhoneNumber = Annotated[str, BeforeValidator(number_as_text), AfterValidator(checked_number)]
"""In E.164."""
