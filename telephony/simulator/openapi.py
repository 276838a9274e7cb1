"""Twilio's description of its REST API, and what of a request or an answer it does not allow."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

DESCRIPTION = Path(__file__).parent / "openapi" / "twilio_api_v2010.json"
"""The operations on calls and recordings; ``NOTICE`` beside it names source and licence."""

_Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """What the description does not allow.

    Attributes:
        kind: A parameter that is not known, one that is missing, or one with a wrong value.
        name: The parameter.
        detail: What was wrong, in words.
    """

    kind: Literal["unknown", "missing", "malformed"]
    name: str
    detail: str


@dataclass(frozen=True)
class Operation:
    """One thing that the API does.

    Attributes:
        id: Its ``operationId``, such as ``CreateCall``.
        path: What its path holds for the template's names.
    """

    id: str
    path: Mapping[str, str]
    _content: _Schema


class Description:
    """An OpenAPI description, as far as Twilio makes use of the format."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Prepare to look things up.

        Args:
            content: The JSON document.
        """
        self._schemas: Mapping[str, _Schema] = content["components"]["schemas"]
        self._paths = [
            (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))), methods)
            for template, methods in content["paths"].items()
        ]

    @classmethod
    @functools.cache
    def shipped(cls) -> "Description":
        """The one beside this file."""
        return cls(json.loads(DESCRIPTION.read_text("utf-8")))

    def methods(self, path: str) -> frozenset[str]:
        """What may be done at a path, in capitals; nothing where there is nothing."""
        for pattern, methods in self._paths:
            if pattern.fullmatch(path):
                return frozenset(method.upper() for method in methods)
        return frozenset()

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation of a method at a path, or None if there is none."""
        for pattern, methods in self._paths:
            found = pattern.fullmatch(path)
            if found and method.lower() in methods:
                content = methods[method.lower()]
                return Operation(content["operationId"], found.groupdict(), content)
        return None

    def request_problems(
        self,
        operation: Operation,
        query: Mapping[str, Sequence[str]],
        form: Mapping[str, Sequence[str]],
    ) -> list[Problem]:
        """What of a request is not allowed.

        Args:
            operation: What was asked for.
            query: The values of every parameter of the query string.
            form: The values of every field of the form.
        """
        content = operation._content
        parameters = content.get("parameters", ())
        paths = {p["name"]: p["schema"] for p in parameters if p["in"] == "path"}
        queries = {p["name"]: p["schema"] for p in parameters if p["in"] == "query"}
        bodies = content.get("requestBody", {}).get("content", {})
        body = bodies.get("application/x-www-form-urlencoded", {}).get("schema", {})
        problems = [
            *self._values(paths, {name: [value] for name, value in operation.path.items()}),
            *self._values(queries, query),
            *self._values(body.get("properties", {}), form),
        ]
        for name in body.get("required", ()):
            if not any(form.get(name, ())):
                problems.append(Problem("missing", name, f"{name}: required"))
        return problems

    def _values(
        self, schemas: Mapping[str, _Schema], given: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        problems = []
        for name, values in given.items():
            if name not in schemas:
                problems.append(Problem("unknown", name, f"{name}: no such parameter"))
                continue
            schema = self._resolve(schemas[name])
            if schema["type"] == "array":
                schema = self._resolve(schema["items"])
            elif len(values) > 1:
                problems.append(Problem("malformed", name, f"{name}: given {len(values)} times"))
            for value in values:
                wrong = self._text_problem(schema, value)
                if wrong:
                    problems.append(Problem("malformed", name, f"{name}: {wrong}"))
        return problems

    def _text_problem(self, schema: _Schema, value: str) -> str | None:
        """What is wrong with a value of a form, where everything is text."""
        if schema["type"] == "integer" and not re.fullmatch(r"-?[0-9]+", value):
            return f"expected a whole number, got {value!r}"
        if schema["type"] == "boolean" and value.lower() not in ("true", "false"):
            return f"expected true or false, got {value!r}"
        if schema["type"] != "string":
            return None
        if schema.get("format") == "uri" and not _absolute(value):
            return f"expected an absolute http:// or https:// address, got {value!r}"
        return _string_problem(schema, value)

    def response_problems(self, operation: Operation, status: int, body: Any) -> list[str]:
        """What of an answer is not as described.

        Args:
            operation: What was asked for.
            status: The answer's HTTP status.
            body: Its content, read from JSON; None for an empty one.
        """
        response = operation._content["responses"].get(str(status))
        if response is None:
            return [f"{operation.id}: no answer has status {status}"]
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            return [] if body is None else [f"{operation.id}: the answer is empty"]
        return list(self._json_problems(schema, body, operation.id))

    def _json_problems(self, schema: _Schema, value: Any, place: str) -> list[str]:
        schema = self._resolve(schema)
        if value is None:
            return [] if schema.get("nullable") else [f"{place}: is null"]
        kind = schema.get("type")
        types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
        if kind in types and not isinstance(value, types[kind]):
            return [f"{place}: expected {kind}, got {value!r}"]
        problems = []
        if kind == "object" and "properties" in schema:
            for name, inner in value.items():
                known = schema["properties"].get(name)
                if known is None:
                    problems.append(f"{place}.{name}: no such field")
                else:
                    problems += self._json_problems(known, inner, f"{place}.{name}")
            missing = [name for name in schema["properties"] if name not in value]
            problems += [f"{place}.{name}: missing" for name in missing]
        if kind == "array":
            for index, item in enumerate(value):
                problems += self._json_problems(schema["items"], item, f"{place}[{index}]")
        if kind == "string":
            wrong = _string_problem(schema, value)
            problems += [f"{place}: {wrong}"] if wrong else []
        return problems

    def _resolve(self, schema: _Schema) -> _Schema:
        reference = schema.get("$ref")
        return self._schemas[reference.rpartition("/")[2]] if reference else schema


def _string_problem(schema: _Schema, value: str) -> str | None:
    if "enum" in schema and value not in schema["enum"]:
        return f"expected one of {', '.join(schema['enum'])}, got {value!r}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"expected {schema['pattern']}, got {value!r}"
    return None


def _absolute(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
