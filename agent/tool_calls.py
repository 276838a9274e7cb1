"""The tools that the agent uses on one call: one at a time, beside the audio.

An answer may end with a call of a tool. The tool runs while the caller hears the answer, and what
it gives back is the model's next turn; where the caller has spoken meanwhile, it stands before that
turn. An interruption stops what is being said, not the tool: what it does outside may be done
already, and the model is to know.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.events import JSON, CallObserver
from agent.history import Answer
from agent.tools.call import Phone, PhoneError
from agent.tools.tool import Tool, ToolResult

_MOST_IN_A_ROW = 5
"""Calls of tools without a word of the caller between them; more are a circle."""
LONGEST_SECONDS = 120.0
"""After so long a tool that has no time-out of its own is not waited for."""
_DROPPED = "not done: the caller went on speaking"


class Service(Protocol):
    """What the tools need of the service that speaks."""

    def run_tool(self, call: "ToolCall") -> Awaitable[None]:
        """Run a tool; :meth:`ToolCalls.returned` is told what came of it."""

    def has_tool(self, name: str) -> bool:
        """Whether there is such a tool."""

    def say_aside(self, text: str) -> None:
        """Say something that the history does not keep."""

    def is_quiet(self) -> bool:
        """Whether nobody says anything or is about to."""

    def go_on(self) -> None:
        """Begin what comes next."""

    def run_beside(self, work: Awaitable[None], name: str) -> None:
        """Run something beside the audio; the call goes on if it fails."""

    async def end_call(self) -> None:
        """End the call, after what is still being said."""

    async def press_keys(self, digits: str) -> None:
        """Send touch tones, after what is still being said."""


@dataclass
class ToolCall:
    """One call of a tool; an :class:`agent.tools.call.Call`.

    Attributes:
        id: Ties the result to it.
        name: The tool's.
        arguments: As the model gave them.
        answer: The answer that ends with it.
        tool: The tool, where it is one of the settings.
        filler_due: The caller is to hear the filler when it is quiet for a while.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    answer: Answer
    tool: Tool | None
    calls: "ToolCalls" = field(repr=False)
    filler_due: bool = True

    @property
    def said(self) -> bool:
        """Whether the answer has words before the call."""
        return bool(self.answer.audio_seconds)

    async def words_heard(self) -> bool:
        """Wait until they have been heard; False if the caller interrupted them."""
        await self.calls.until(lambda: self.answer.settled or self.answer.cut)
        return not self.answer.cut

    def after_answer(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something when the answer to the result has been heard."""
        self.calls.after_answer(self, act)

    async def hang_up(self) -> None:
        """End the call."""
        await self.calls.service.end_call()

    async def transfer(
        self, number: str, *, summary: str | None = None, warm: bool = False
    ) -> None:
        """Leave the call and have the caller connected.

        Raises:
            PhoneError: The carrier refused, nobody came, or there is no telephone.
        """
        await self._phone.transfer(number, summary=summary, warm=warm)
        await self.calls.service.end_call()

    async def take_digits(
        self, wait_secs: float = 15.0, longest: int | None = None, secret: bool = False
    ) -> str | None:
        """Wait for what the caller types next.

        Raises:
            PhoneError: There is no telephone.
        """
        return await self._phone.take_digits(self.words_heard(), wait_secs, longest, secret)

    @property
    def typed(self) -> str | None:
        """What the caller typed last."""
        return None if self.calls.phone is None else self.calls.phone.typed

    async def pause_recording(self) -> None:
        """Record nothing until it is resumed."""
        if self.calls.phone is not None:
            await self.calls.phone.pause_recording()

    async def resume_recording(self) -> None:
        """Record again."""
        if self.calls.phone is not None:
            await self.calls.phone.resume_recording()

    @property
    def _phone(self) -> Phone:
        if self.calls.phone is None:
            raise PhoneError("there is no telephone that could")
        return self.calls.phone

    async def press(self, digits: str) -> None:
        """Send touch tones."""
        await self.calls.service.press_keys(digits)

    def record(self, name: str, /, **fields: JSON) -> None:
        """Write an event into the record."""
        self.calls.observer.event(name, turn=self.answer.turn, **fields)


@dataclass
class _After:
    """What is to be done when an answer has been heard.

    Attributes:
        call: The call of the tool that wants it.
        act: What.
        answer: The answer, once there is one.
    """

    call: ToolCall
    act: Callable[[], Awaitable[None]]
    answer: Answer | None = None


class ToolCalls:
    """Follows the calls of tools on one call.

    Attributes:
        running: The one whose result is awaited.
        result: The one that the model has not been given yet.
        service: Speaks.
        phone: The telephone, where there is one.
        observer: Told of calls and results.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        service: Service,
        observer: CallObserver,
        phone: Phone | None,
    ):
        """Begin with none.

        Args:
            tools: Those of the settings, by name.
            service: Speaks.
            observer: Told of calls and results.
            phone: The telephone, where there is one.
        """
        self.running: ToolCall | None = None
        self.result: ToolResult | None = None
        self.service = service
        self.phone = phone
        self.observer = observer
        self._tools = tools
        self._ids = itertools.count()
        self._in_a_row = 0
        self._after: _After | None = None
        self._waiting_to_fill = False
        self._deadline: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    def begin(self, answer: Answer, written: str) -> None:
        """Run what an answer ends with.

        Args:
            answer: It.
            written: The tool's name, a line break and its arguments.
        """
        name, _, rest = written.partition("\n")
        name, arguments, problem = name.strip(), {}, ""
        try:
            arguments = json.loads(rest)
        except json.JSONDecodeError:
            problem = "the arguments are not JSON"
        if not isinstance(arguments, dict):
            problem = "the arguments are not a JSON object"
        if not self.service.has_tool(name):
            problem = f"there is no tool {name!r}"
        self._in_a_row += 1
        if self._in_a_row > _MOST_IN_A_ROW:
            problem = f"{_MOST_IN_A_ROW} calls in a row; wait for the caller"
        given = arguments if isinstance(arguments, dict) else {}
        call = ToolCall(f"call-{next(self._ids)}", name, given, answer, self._tools.get(name), self)
        self.running = call
        fields: dict[str, JSON] = {"name": name, "arguments": given, "call_id": call.id}
        self.observer.event("tool_call", turn=answer.turn, **fields)
        if problem:
            ask_again = self._in_a_row <= _MOST_IN_A_ROW
            self.returned(call.id, ToolResult(problem, error=True, answer=ask_again))
            return
        # A function of somebody else's may never report; the call must not wait for it.
        longest = max(LONGEST_SECONDS, 2 * call.tool.timeout if call.tool else 0.0)
        never = ToolResult("it gave no result", error=True)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(longest, self.returned, call.id, never)
        self.service.run_beside(self.service.run_tool(call), "tool")

    def returned(self, call_id: str, result: ToolResult) -> None:
        """A tool has given something back; once is enough.

        Args:
            call_id: Of which call.
            result: What.
        """
        call = self.running
        if call is None or call.id != call_id:
            return
        self._stop_waiting()
        self.result = result
        kind = "error" if result.error else "result"
        fields: dict[str, JSON] = {"call_id": call_id, kind: result.value}
        self.observer.event("tool_result", turn=call.answer.turn, **fields)
        self._announce()
        self.service.go_on()

    def take(self, answer: Answer) -> str | None:
        """The result, if there is one; the model is given it now, and answers."""
        result, self.result = self.result, None
        if self._after is not None and result is not None:
            self._after.answer = answer
        return None if result is None else result.text

    @property
    def result_text(self) -> str | None:
        """The result, if there is one, as the model will read it."""
        return None if self.result is None else self.result.text

    def after_answer(self, call: ToolCall, act: Callable[[], Awaitable[None]]) -> None:
        """Do something when the answer to a result has been heard."""
        self._after = _After(call, act)

    def settled(self, answer: Answer) -> None:
        """What was heard of an answer is final."""
        self._announce()
        after = self._after
        if after is not None and after.answer is answer:
            self._after = None
            if not answer.cut:
                self.service.run_beside(after.act(), "after an answer")

    def interrupted(self) -> None:
        """The caller barged in: what was to be done after the agent's words is not done."""
        self._announce()
        after, self._after = self._after, None
        if after is None:
            return
        message = f"{after.call.name}: {_DROPPED}"
        self.observer.event("error", turn=after.call.answer.turn, message=message)
        if self.result is not None:
            # The model has not been told yet that it was.
            self.result = ToolResult(_DROPPED, error=True)

    def caller_said(self) -> None:
        """The caller has had a turn; while a tool runs, they wait once more."""
        self._in_a_row = 0
        if self.running is not None:
            self.running.filler_due = True

    def quiet(self) -> None:
        """Nobody says anything while a tool runs: after a while the filler is said."""
        call = self.running
        if call is None or call.tool is None or not call.tool.filler or not call.filler_due:
            return
        if not self._waiting_to_fill:
            self._waiting_to_fill = True
            self.service.run_beside(self._fill(call, call.tool.filler), "filler")

    async def _fill(self, call: ToolCall, filler: str) -> None:
        assert call.tool is not None
        try:
            await asyncio.sleep(call.tool.filler_after)
        finally:
            self._waiting_to_fill = False
        if self.running is not call:
            # Another one may run by now, with a filler of its own.
            self.service.go_on()
        elif self.service.is_quiet() and call.filler_due:
            call.filler_due = False
            self.service.say_aside(filler)

    def end(self) -> None:
        """The call is over, or about to be; nobody waits for results any more."""
        call = self.running
        self._stop_waiting()
        self.result = self._after = None
        if call is not None:
            fields: dict[str, JSON] = {"call_id": call.id, "error": "the call ended"}
            self.observer.event("tool_result", turn=call.answer.turn, **fields)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that happens to an answer."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _stop_waiting(self) -> None:
        self.running = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _announce(self) -> None:
        self._changed.set()
