"""Which tools the agent called, with which arguments, and in which order."""

import re
from collections.abc import Sequence

from telephony.simulator.agent_records import ToolCall
from telephony.simulator.checks.values import holds, show
from telephony.simulator.checks.verdict import Unknown, unknown
from telephony.simulator.expectation import Tool, Tools
from telephony.simulator.report import Check


def check_tools(expect: Tools, calls: Sequence[ToolCall] | Unknown) -> list[Check]:
    """Judge the calls of tools.

    Args:
        expect: What must and must not be called.
        calls: The calls in the order in which they were made.

    Returns:
        One check for each tool that must be called and each that must not, one for the order and
        one for other calls, where the scenario asks for it.
    """
    expected = [("tools.called", describe(tool)) for tool in expect.called]
    if expect.in_order:
        expected.append(("tools.in_order", ", then ".join(map(describe, expect.called))))
    expected += [("tools.never", f"no call of {name}") for name in expect.never]
    if not expect.others:
        expected.append(("tools.others", "no other calls" if expect.called else "no calls"))
    if isinstance(calls, Unknown):
        return [unknown(name, text, calls) for name, text in expected]
    assigned = _assign(expect.called, calls)
    spare = [call for place, call in enumerate(calls) if place not in assigned]
    found = [(list(calls), place is not None) for place in assigned]
    if expect.in_order:
        found.append((list(calls), _in_order(expect.called, calls)))
    for name in expect.never:
        unwanted = [call for call in calls if call.name == name]
        found.append((unwanted or list(calls), not unwanted))
    if not expect.others:
        found.append((spare, not spare))
    return [
        Check(name=name, expected=text, found=_list(made), passed=passed)
        for (name, text), (made, passed) in zip(expected, found, strict=True)
    ]


def describe(tool: Tool) -> str:
    """A tool that must be called, in words."""
    wanted = [f"{name}={show(value)}" for name, value in tool.arguments.items()]
    wanted += [f"{name}~{pattern!r}" for name, pattern in tool.arguments_match.items()]
    return f"{tool.name}({', '.join(wanted)})"


def describe_call(call: ToolCall) -> str:
    """A call that was made and what came of it, in words."""
    given = ", ".join(f"{name}={show(value)}" for name, value in call.arguments.items())
    if call.error is not None:
        return f"{call.name}({given}), which failed: {call.error}"
    gave = "" if call.result is None else f", which gave {show(call.result)}"
    return f"{call.name}({given}){gave}"


def _list(calls: Sequence[ToolCall]) -> str:
    return "; ".join(map(describe_call, calls)) or "no calls"


def _matches(tool: Tool, call: ToolCall) -> bool:
    return (
        tool.name == call.name
        and holds(tool.arguments, call.arguments)
        and all(
            isinstance(text := call.arguments.get(name), str)
            and re.search(pattern, text, re.IGNORECASE)
            for name, pattern in tool.arguments_match.items()
        )
    )


def _assign(tools: Sequence[Tool], calls: Sequence[ToolCall]) -> list[int | None]:
    """The place of a call for each tool, no call twice, as many as possible (augmenting paths)."""
    taken: dict[int, int] = {}

    def find(tool: int, seen: set[int]) -> bool:
        for place, call in enumerate(calls):
            if place in seen or not _matches(tools[tool], call):
                continue
            seen.add(place)
            if place not in taken or find(taken[place], seen):
                taken[place] = tool
                return True
        return False

    for tool in range(len(tools)):
        find(tool, set())
    places = {tool: place for place, tool in taken.items()}
    return [places.get(tool) for tool in range(len(tools))]


def _in_order(tools: Sequence[Tool], calls: Sequence[ToolCall]) -> bool:
    rest = iter(calls)
    return all(any(_matches(tool, call) for call in rest) for tool in tools)
