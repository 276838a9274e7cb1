"""Tools from their declarations."""

from collections.abc import Sequence

from agent.tools.function import function_tool
from agent.tools.look_up import look_up_tool
from agent.tools.phone import (
    hang_up_tool,
    send_digits_tool,
    take_digits_tool,
    take_message_tool,
    transfer_tool,
)
from agent.tools.settings import (
    FunctionSettings,
    HangUpSettings,
    LookUpSettings,
    SendDigitsSettings,
    TakeDigitsSettings,
    TakeMessageSettings,
    ToolSettings,
    TransferSettings,
    WebhookSettings,
)
from agent.tools.tool import Tool
from agent.tools.webhook import webhook_tool


def build_tools(settings: Sequence[ToolSettings]) -> list[Tool]:
    """Make tools as they are declared.

    Args:
        settings: An agent's.

    Raises:
        ValueError: A tool cannot be made, or two have one name; names it.
    """
    tools: dict[str, Tool] = {}
    for one in settings:
        if one.name in tools:
            raise ValueError(f"two tools are called {one.name!r}")
        try:
            tools[one.name] = _build(one)
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from error
    return list(tools.values())


def _build(settings: ToolSettings) -> Tool:
    match settings:
        case FunctionSettings():
            return function_tool(settings)
        case WebhookSettings():
            return webhook_tool(settings)
        case LookUpSettings():
            return look_up_tool(settings)
        case HangUpSettings():
            return hang_up_tool(settings)
        case TransferSettings():
            return transfer_tool(settings)
        case SendDigitsSettings():
            return send_digits_tool(settings)
        case TakeDigitsSettings():
            return take_digits_tool(settings)
        case TakeMessageSettings():
            return take_message_tool(settings)
