"""GLM-4-Voice in PyTorch: arrays and token ids, no server, no phone, no Pipecat."""

from agent.speech.decoder import SpeechDecoder
from agent.speech.language_model import LanguageModel
from agent.speech.tokenizer import SpeechTokenizer

__all__ = ["LanguageModel", "SpeechDecoder", "SpeechTokenizer"]
