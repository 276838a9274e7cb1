"""Tools that the agent's telephone has: hang up, transfer, digits, take a message."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from agent.tools.arguments import Arguments
from agent.tools.call import Call, PhoneError
from agent.tools.settings import (
    HangUpSettings,
    SendDigitsSettings,
    TakeDigitsSettings,
    TakeMessageSettings,
    TransferSettings,
)
from agent.tools.tool import Tool, ToolError, ToolResult

_INTERRUPTED = "not done: the caller went on speaking"

_Digits = Annotated[str, StringConstraints(pattern=r"^[0-9*#]{1,32}$")]


def hang_up_tool(settings: HangUpSettings) -> Tool:
    """Ends the call."""

    async def work(arguments: dict[str, Any], call: Call) -> ToolResult:
        return await _leave(call, call.hang_up, "ended")

    return Tool(settings, "Ends the call.", Arguments(settings.name, {}), work)


def transfer_tool(settings: TransferSettings) -> Tool:
    """Puts the caller through."""
    numbers = {name.casefold(): number for name, number in settings.destinations.items()}
    names = ", ".join(settings.destinations)

    async def work(arguments: dict[str, Any], call: Call) -> ToolResult:
        number = numbers.get(arguments["to"].strip().casefold())
        if number is None:
            raise ToolError(f"to: {arguments['to']!r} is nobody; known are {names}")

        async def transfer() -> None:
            await call.transfer(number, summary=arguments.get("summary"), warm=settings.warm)

        try:
            if not settings.warm:
                return await _leave(call, transfer, "connected")
            # The agent is there while it rings, and when nobody comes.
            if not await call.words_heard():
                return ToolResult(_INTERRUPTED, error=True)
            await transfer()
            return ToolResult("connected", answer=False)
        except PhoneError as error:
            # What a carrier says is nothing for a caller's ears.
            call.record("error", message=str(error))
            raise ToolError("not connected") from error

    fields = {"to": (str, Field(..., description=f"One of: {names}."))}
    if settings.asks_summary:
        about = "What the caller wants and what was agreed, for whoever takes the call."
        fields["summary"] = (str, Field(..., description=about))
    arguments = Arguments(settings.name, fields)
    return Tool(settings, "Puts the caller through.", arguments, work)


def send_digits_tool(settings: SendDigitsSettings) -> Tool:
    """Presses keys."""

    async def work(arguments: dict[str, Any], call: Call) -> ToolResult:
        await call.press(arguments["digits"])
        # Who is pressed at speaks next.
        return ToolResult("sent", answer=False)

    digits = Field(..., description="Of 0-9, * and #.")
    arguments = Arguments(settings.name, {"digits": (_Digits, digits)})
    return Tool(settings, "Presses keys of the telephone.", arguments, work)


def take_digits_tool(settings: TakeDigitsSettings) -> Tool:
    """Waits for keys."""

    async def work(arguments: dict[str, Any], call: Call) -> str:
        try:
            digits = await call.take_digits(settings.wait_secs, settings.longest, settings.secret)
        except PhoneError as error:
            raise ToolError(str(error)) from error
        if digits is None:
            raise ToolError("the caller typed nothing")
        return f"{len(digits)} keys" if settings.secret else digits

    arguments = Arguments(settings.name, {})
    return Tool(settings, "Waits for keys that the caller presses.", arguments, work)


def take_message_tool(settings: TakeMessageSettings) -> Tool:
    """Keeps a message."""

    async def work(arguments: dict[str, Any], call: Call) -> str:
        call.record("message_taken", **arguments)
        return "kept"

    fields = {
        "text": (str, Field(..., min_length=1, description="The message.")),
        "name": (str | None, Field(None, description="Whose it is.")),
        "number": (str | None, Field(None, description="Where to call back.")),
    }
    arguments = Arguments(settings.name, fields)
    return Tool(settings, "Takes a message for somebody else.", arguments, work)


async def _leave(call: Call, act: Callable[[], Awaitable[None]], result: str) -> ToolResult:
    """Leave the call when the agent's last words have been heard.

    Words that come with the call of the tool are the last ones; without any, what the agent says
    to the result is.
    """
    if not call.said:
        call.after_answer(act)
        return ToolResult(result)
    if not await call.words_heard():
        return ToolResult(_INTERRUPTED, error=True)
    await act()
    return ToolResult(result, answer=False)
