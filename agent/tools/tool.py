"""A tool: what the model is told of it, and how a call of it becomes a result."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from loguru import logger
from pydantic_core import to_jsonable_python

from agent.tools.arguments import Arguments
from agent.tools.call import Call
from agent.tools.settings import ToolSettings


class ToolError(Exception):
    """A tool failed; the message is for the model."""


@dataclass(frozen=True)
class ToolResult:
    """What came of a call.

    Attributes:
        value: What the tool gave back, as JSON can carry it; with ``error``, what the model is
            told of the failure.
        error: It failed.
        answer: The agent is to say something to it.
    """

    value: Any
    error: bool = False
    answer: bool = True

    @property
    def text(self) -> str:
        """As the model reads it."""
        if self.error:
            return json.dumps({"error": self.value}, ensure_ascii=False)
        if self.value is None:
            return "done"
        if isinstance(self.value, str) and self.value.strip():
            return self.value
        return json.dumps(self.value, ensure_ascii=False)


Work: TypeAlias = Callable[[dict[str, Any], Call], Awaitable[Any]]
"""Takes checked arguments; gives a value that JSON can carry, or a :class:`ToolResult`."""


class Tool:
    """One tool of an agent; serves all calls at once.

    Attributes:
        name: By which the model calls it.
        description: For the model.
        schema: JSON schema of its arguments, as the model is told.
        filler: What the agent says while it runs, if anything.
        filler_after: Seconds of silence before that.
        timeout: Seconds that it may take.
    """

    def __init__(
        self, settings: ToolSettings, description: str, arguments: Arguments, work: Work
    ) -> None:
        """Put a tool together.

        Args:
            settings: Name, time-out, filler.
            description: For the model, where the settings have none.
            arguments: What it takes.
            work: What it does.
        """
        self.name = settings.name
        self.description = settings.description or description
        self.schema = settings.parameters or arguments.schema
        self.filler = settings.filler
        self.filler_after = settings.filler_after
        self.timeout = settings.timeout
        self._on_failure = settings.on_failure
        self._arguments = arguments
        self._work = work

    @property
    def described(self) -> dict[str, Any]:
        """As GLM-4 is told of a function."""
        return {"name": self.name, "description": self.description, "parameters": self.schema}

    async def run(self, arguments: Mapping[str, Any], call: Call) -> ToolResult:
        """Do what the tool does.

        Args:
            arguments: As the model gave them.
            call: On which it is used.

        Returns:
            The result, a failure too.
        """
        try:
            checked = self._arguments.check(arguments)
        except ValueError as error:
            # The model can do better, if it knows what was wrong.
            return ToolResult(f"wrong arguments: {error}", error=True)
        try:
            async with asyncio.timeout(self.timeout):
                value = await self._work(checked, call)
            if isinstance(value, ToolResult):
                return value
            return ToolResult(to_jsonable_python(value))
        except TimeoutError:
            return self._failed(f"{self.name} did not answer within {self.timeout:g} s")
        except ToolError as error:
            return self._failed(str(error))
        except Exception as error:
            # What went wrong inside is nothing for a caller's ears, and what the caller said, which
            # a traceback may show, nothing for a log.
            logger.bind(tool=self.name, error=type(error).__name__).error("A tool failed")
            logger.opt(exception=True).debug("A tool failed here")
            return self._failed(f"{self.name} failed")

    def _failed(self, reason: str) -> ToolResult:
        return ToolResult(self._on_failure or reason, error=True)
