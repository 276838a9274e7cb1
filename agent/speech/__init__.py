"""GLM-4-Voice in PyTorch: arrays and token ids, no server, no phone, no Pipecat."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.speech.decoder import SpeechDecoder
    from agent.speech.language_model import LanguageModel
    from agent.speech.tokenizer import SpeechTokenizer

__all__ = ["LanguageModel", "SpeechDecoder", "SpeechTokenizer"]

_MODULES = {
    "LanguageModel": "agent.speech.language_model",
    "SpeechDecoder": "agent.speech.decoder",
    "SpeechTokenizer": "agent.speech.tokenizer",
}


def __getattr__(name: str) -> object:
    """Import a model when it is first asked for: the gateway only needs agent.speech.request."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
