"""Python functions as tools: types from annotations, words from the docstring."""

import asyncio
import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

import docstring_parser
from pydantic import Field

from agent.tools.arguments import Arguments
from agent.tools.call import Call
from agent.tools.settings import FunctionSettings
from agent.tools.tool import Tool


def function_tool(settings: FunctionSettings) -> Tool:
    """Make a tool of a function.

    A coroutine function runs in the event loop, another one in a thread.

    Raises:
        ValueError: It cannot be imported, or a parameter has no type or one that a model cannot
            give.
    """
    function = _import(settings.function)
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {
        one.arg_name: " ".join((one.description or "").split()) for one in documented.params
    }
    try:
        types = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ValueError(f"{settings.function}: {error}") from error
    call_parameter = None
    fields: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if types.get(name) is Call:
            call_parameter = name
            continue
        if name not in types or parameter.kind not in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            raise ValueError(f"{settings.function}: parameter {name} needs a name and a type")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (types[name], Field(default, description=described.get(name) or None))

    async def work(arguments: dict[str, Any], call: Call) -> Any:
        if call_parameter is not None:
            arguments = {**arguments, call_parameter: call}
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
        return await asyncio.to_thread(function, **arguments)

    description = " ".join((documented.short_description or "").split())
    if not (settings.description or description):
        raise ValueError(f"{settings.function} has no docstring and the tool no description")
    return Tool(settings, description, Arguments(settings.name, fields), work)


def _import(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"function {path} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"function {path} is no function")
    return typing.cast(Callable[..., Any], found)
