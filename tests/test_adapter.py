"""What of a context reaches the model, and what of it reaches a log."""

from typing import Any

import pytest
from pipecat.processors.aggregators.llm_context import LLMContext

from agent.adapter import GLMVoiceAdapter


def context(*messages: dict[str, Any]) -> LLMContext:
    return LLMContext(messages=list(messages))  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["user", "developer", "system"])
async def test_a_typed_message_at_the_end_is_an_instruction(role: str) -> None:
    message = {"role": role, "content": " Greet the caller. "}
    asked = await GLMVoiceAdapter().get_llm_invocation_params(context(message))
    assert asked["instruction"] == "Greet the caller."
    assert asked["message"] is message


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}],
        [{"role": "user", "content": "  "}],
    ],
)
async def test_the_agents_own_words_and_silence_are_no_instruction(
    messages: list[dict[str, Any]],
) -> None:
    asked = await GLMVoiceAdapter().get_llm_invocation_params(context(*messages))
    assert asked["instruction"] is None


def test_what_was_said_does_not_reach_a_log() -> None:
    said = context({"role": "assistant", "content": "Your results are in."})
    logged = GLMVoiceAdapter().get_messages_for_logging(said)
    assert logged == [{"role": "assistant", "letters": 20}]
