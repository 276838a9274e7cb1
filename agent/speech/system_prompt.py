"""The system prompt: what the agent is told before a conversation, its tools included.

Without the rest of the prompt, so that a gateway can write it without loading a model's code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# The published prompts, word for word: the model was trained on these and few others work.
_SYSTEM = (
    "User will provide you with a {kind} instruction. Do it step by step. First, think about the "
    "instruction and respond in a interleaved manner, with 13 text token followed by 26 audio "
    "tokens."
)
SPEECH_SYSTEM = _SYSTEM.format(kind="speech") + " "
TEXT_SYSTEM = _SYSTEM.format(kind="text")
_TOOLS = "\n\n# 可用工具"
_TOOL = "\n\n## {name}\n\n{schema}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"


def system_prompt(
    spoken: bool, instructions: str | None, tools: Sequence[Mapping[str, Any]]
) -> str:
    """The system prompt of a conversation; the published one always comes first.

    Args:
        spoken: Whether the caller's first turn is.
        instructions: What the agent is told beyond it.
        tools: GLM-4's descriptions of functions: name, description and parameters, as a JSON
            schema.
    """
    prompt = SPEECH_SYSTEM if spoken else TEXT_SYSTEM
    if instructions:
        prompt = f"{prompt.rstrip()} {instructions} "
    if tools:
        prompt = prompt.rstrip() + _TOOLS
        for tool in tools:
            schema = json.dumps(tool, indent=4, ensure_ascii=False)
            prompt += _TOOL.format(name=tool["name"], schema=schema)
    return prompt
