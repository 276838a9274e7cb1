"""Pipecat's context as GLM-4-Voice takes it.

The model keeps its own history, in tokens. All it takes from the context is a typed message at the
end, an instruction to answer, and the tools that the context offers. Results of tools go to the
model by another way, as soon as they are there (agent.tool_calls).

Having an adapter of its own also keeps Pipecat from loading its default one, and with it an SDK of
a remote API, for a second when the first call comes.
"""

from typing import Any, TypedDict

from pipecat.adapters.llm.base_llm_adapter import BaseLLMAdapter
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators import async_tool_messages
from pipecat.processors.aggregators.llm_context import LLMContext, standard_message_text

_TYPED_ROLES = ("user", "developer", "system")


class Invocation(TypedDict):
    """What a context asks of the model.

    Attributes:
        instruction: The typed message at its end; None where it ends otherwise.
        message: That message itself.
    """

    instruction: str | None
    message: object


class GLMVoiceAdapter(BaseLLMAdapter[Invocation]):  # type: ignore[no-untyped-call]
    """Reads the typed message that ends a context."""

    @property
    def id_for_llm_specific_messages(self) -> str:
        """The name under which messages of this model's own would be kept."""
        return "glm-4-voice"

    async def get_llm_invocation_params(self, context: LLMContext, **_: Any) -> Invocation:
        """The typed message at the end of a context.

        Args:
            context: Any context.
        """
        messages = context.get_messages()
        last = messages[-1] if messages else None
        if not isinstance(last, dict) or last["role"] not in _TYPED_ROLES:
            return Invocation(instruction=None, message=last)
        if async_tool_messages.parse_message(last) is not None:
            return Invocation(instruction=None, message=last)
        return Invocation(instruction=standard_message_text(last).strip() or None, message=last)

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[Any]:
        """GLM-4's descriptions of functions."""
        return [function.to_default_dict() for function in tools_schema.standard_tools]

    def get_messages_for_logging(self, context: LLMContext) -> list[dict[str, Any]]:
        """Roles and lengths: what was said on a call does not belong in a log."""
        return [
            {"role": message["role"], "letters": len(standard_message_text(message))}
            for message in context.get_messages()
            if isinstance(message, dict)
        ]
