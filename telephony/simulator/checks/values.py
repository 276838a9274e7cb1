"""Values of YAML, JSON and databases, brought to what JSON can carry so that they compare."""

import datetime
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON carries it.

    Dates and times become ISO 8601 texts, bytes hexadecimal digits, whole numbers ``int`` whatever
    they were; what JSON does not know becomes its text.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return int(value) if float(value).is_integer() else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value)


def show(value: Any) -> str:
    """A value as JSON in one line, the fields of mappings in order."""
    return json.dumps(plain(value), ensure_ascii=False, sort_keys=True)


def holds(wanted: Any, found: Any) -> bool:
    """Whether a value is the wanted one; of a mapping only the wanted fields count."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and holds(inner, found[name]) for name, inner in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(found, (list, tuple))
            and len(found) == len(wanted)
            and all(holds(one, other) for one, other in zip(wanted, found, strict=True))
        )
    return show(wanted) == show(found)
