"""Arguments of tools: what the model is told of them, and whether what it gives is right."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}


class Arguments:
    """The arguments of one tool."""

    def __init__(self, name: str, fields: Mapping[str, tuple[Any, FieldInfo]]):
        """Describe arguments.

        Args:
            name: The tool's.
            fields: Type and default of each, by name.

        Raises:
            ValueError: A type that JSON cannot carry, or a nested model.
        """
        config = ConfigDict(extra="forbid")
        definitions: dict[str, Any] = dict(fields)
        try:
            self._model: type[BaseModel] = create_model(name, __config__=config, **definitions)
            schema = self._model.model_json_schema(schema_generator=_Untitled)
        except Exception as error:
            raise ValueError(f"its arguments cannot be described: {error}") from error
        if "$defs" in schema:
            raise ValueError("its arguments hold models or enumerations; use plain types, Literal")
        self.schema: dict[str, Any] = {
            "type": "object",
            "properties": schema["properties"],
            "required": schema.get("required", []),
        }
        """JSON schema, an object."""

    @classmethod
    def of_schema(cls, name: str, schema: Mapping[str, Any]) -> "Arguments":
        """Read a JSON schema: an object of plain values, choices and lists of them.

        Raises:
            ValueError: The schema holds something else; names the property.
        """
        properties = schema.get("properties", {})
        unknown = set(schema) - {"type", "properties", "required", "additionalProperties"}
        if schema.get("type") != "object" or not isinstance(properties, dict) or unknown:
            raise ValueError("parameters: expected a JSON schema of type object with properties")
        required = schema.get("required", [])
        if missing := set(required) - set(properties):
            raise ValueError(f"parameters: required names {', '.join(missing)}, not a property")
        fields = {}
        for key, value in properties.items():
            kind = _type(f"parameters.properties.{key}", value)
            about = {"description": value.get("description")}
            fields[key] = (
                (kind, Field(..., **about))
                if key in required
                else (kind | None, Field(None, **about))
            )
        return cls(name, fields)

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in their types, defaults filled in.

        Raises:
            ValueError: What is wrong with which argument, for the model to read.
        """
        try:
            checked = self._model.model_validate(given)
        except ValidationError as error:
            problems = []
            for problem in error.errors(include_url=False, include_input=False):
                where = ".".join(map(str, problem["loc"]))
                problems.append(f"{where}: {problem['msg']}")
            raise ValueError("; ".join(problems)) from None
        return {name: getattr(checked, name) for name in type(checked).model_fields}


class _Untitled(GenerateJsonSchema):
    """Leaves titles out: the model was trained without."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _type(place: str, schema: Any) -> Any:
    if not isinstance(schema, dict):
        raise ValueError(f"{place}: expected a mapping")
    choices = schema.get("enum")
    if choices is not None:
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"{place}.enum: expected a list of values")
        return Literal[tuple(choices)]
    kind = schema.get("type")
    if kind == "array":
        return list[_type(f"{place}.items", schema.get("items", {"type": "string"}))]  # type: ignore[misc]
    if kind not in _TYPES:
        raise ValueError(
            f"{place}.type: expected one of {', '.join(_TYPES)} or array, got {kind!r}"
        )
    return _TYPES[kind]
