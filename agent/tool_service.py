"""The part of the Pipecat service that uses tools.

Tools of the settings and functions that a Pipecat user registers (``register_function``, direct
functions of the context) are used in the same way: Pipecat runs them and tells the pipeline with
its frames, and the results go to the model from here.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    EndWorkerFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    OutputDTMFFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext, is_given
from pipecat.services.llm_service import FunctionCallParams, LLMService
from pydantic_core import to_jsonable_python

from agent.adapter import GLMVoiceAdapter
from agent.events import CallObserver
from agent.speech.system_prompt import system_prompt
from agent.tool_calls import ToolCall, ToolCalls
from agent.tools.call import Phone
from agent.tools.tool import Tool, ToolResult


class ToolService(LLMService[GLMVoiceAdapter]):
    """A service whose model calls tools; what it says is up to the class that extends it."""

    adapter_class = GLMVoiceAdapter

    def __init__(
        self,
        *,
        context: LLMContext,
        tools: Sequence[Tool],
        phone: Phone | None,
        observer: CallObserver,
        speaks_first: bool,
        **kwargs: Any,
    ):
        """Offer tools.

        Args:
            context: Pipecat's context of the call; the functions it offers are tools, too.
            tools: Those of the settings.
            phone: The telephone, where there is one.
            observer: Told of calls and results.
            speaks_first: The call begins with a typed turn.
            **kwargs: Passed to :class:`LLMService`.
        """
        super().__init__(**kwargs)
        self._offering = context
        self._described = [tool.described for tool in tools]
        self._speaks_first = speaks_first
        self._system: tuple[object, object, str | None] = (None, None, None)
        self._tools = ToolCalls({tool.name: tool for tool in tools}, self, observer, phone)
        for tool in tools:
            # Not cancelled by the caller's speaking: what it does outside may be done already.
            self.register_function(tool.name, self._handler(tool), cancel_on_interruption=False)

    @abstractmethod
    def say_aside(self, text: str) -> None:
        """Say something that the history does not keep."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether nobody says anything or is about to."""

    @abstractmethod
    def go_on(self) -> None:
        """Begin what comes next."""

    @abstractmethod
    def run_beside(self, work: Awaitable[None], name: str) -> None:
        """Run something beside the audio; the call goes on if it fails."""

    def has_tool(self, name: str) -> bool:
        """Whether there is such a tool."""
        return bool(self.has_function(name))

    async def run_tool(self, call: ToolCall) -> None:
        """Run a tool; what comes of it is told to ``ToolCalls.returned``."""
        await self.run_function_calls(
            [FunctionCallFromLLM(call.name, call.id, call.arguments, self._offering)]
        )

    async def end_call(self) -> None:
        """End the call, after what is still being said."""
        await self.push_frame(EndWorkerFrame(reason="the agent hangs up"))

    async def press_keys(self, digits: str) -> None:
        """Send touch tones, after what is still being said."""
        for digit in digits:
            await self.push_frame(OutputDTMFFrame(button=KeypadEntry(digit)))

    async def broadcast_frame(self, frame_cls: type[Frame], **kwargs: Any) -> None:
        """Broadcast a frame; a function's result goes to the model as well."""
        if frame_cls is FunctionCallResultFrame:
            properties = kwargs.get("properties") or FunctionCallResultProperties()
            if properties.is_final:
                answer = properties.run_llm is not False
                error = kwargs.get("error")
                value = kwargs["result"] if error is None else error
                result = ToolResult(to_jsonable_python(value), error is not None, answer)
                self._tools.returned(kwargs["tool_call_id"], result)
            # The model is not to be asked again by way of the context.
            kwargs["properties"] = replace(properties, run_llm=False)
        elif frame_cls is FunctionCallCancelFrame:
            result = ToolResult("it was cancelled", error=True)
            self._tools.returned(kwargs["tool_call_id"], result)
        await super().broadcast_frame(frame_cls, **kwargs)

    def system_instruction(self) -> str | None:
        """The system prompt with what the agent is told and its tools; None for the model's own."""
        settings: Any = self._settings
        told, offered = settings.system_instruction, self._offering.tools
        if self._system[:2] != (told, offered):
            functions = self.get_llm_adapter().from_standard_tools(offered)
            tools = [*self._described, *(functions if is_given(offered) and functions else [])]
            prompt = system_prompt(not self._speaks_first, told, tools) if told or tools else None
            self._system = (told, offered, prompt)
        return self._system[2]

    def _has_async_tools(self) -> bool:
        """Keep Pipecat's advice on tools that go on running out of the system prompt."""
        return False

    def _handler(self, tool: Tool) -> Callable[[FunctionCallParams], Coroutine[Any, Any, None]]:
        async def handle(params: FunctionCallParams) -> None:
            call = self._tools.running
            if call is None or call.id != params.tool_call_id:
                return  # the call has ended meanwhile
            result = await tool.run(params.arguments, call)
            self._tools.returned(params.tool_call_id, result)
            told = {"error": result.value} if result.error else result.value
            await params.result_callback(told)

        return handle
