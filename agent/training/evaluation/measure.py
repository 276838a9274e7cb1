"""All figures of a nano's card in one run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.evaluation.answering import Answer, conversations
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.request import TurnRequest
from agent.training.data import Corpus
from agent.training.evaluation import speaking, understanding
from agent.training.evaluation.callers import Said, calls, listen
from agent.training.line import Line

NANO_CORPUS = Path(__file__).resolve().parents[2] / "nano" / "corpus.yaml"
NANO_LINES = (NANO_CORPUS, NANO_CORPUS.with_name("corpus_zh.yaml"))
# Questions that styles are measured on, and answers that are decoded.
_STYLE_QUESTIONS = 24
_SPOKEN = 60


def measure(
    checkpoint: Path, data: Path, lines: Sequence[Line], limit: int | None = None
) -> dict[str, Any]:
    """Measure a checkpoint.

    Args:
        checkpoint: Directory with speech_tokenizer, language_model and speech_decoder.
        data: A rendered corpus.
        lines: What is said on the line, one a language.
        limit: Use only so many of the held-out recordings; they lie there shuffled.

    Returns:
        The figures, ready for JSON.
    """
    corpus = Corpus(data)
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    model = LanguageModel.from_pretrained(checkpoint / "language_model")
    decoder = SpeechDecoder.from_pretrained(checkpoint / "speech_decoder")
    said = listen(corpus, tokenizer, limit)
    heard: list[understanding.Heard] = []
    figures: dict[str, Any] = {}
    for line in lines:
        asked = calls(line, said)
        heard += understanding.answered(model, line, asked)
        if line.tools:
            seen = [one for one in asked if one.last.seen]
            figures["tools"] = understanding.tools(model, line, seen)
    figures["answers"] = understanding.summary(heard)
    english = [one for one in said if one.language == "en"]
    groups = {
        "English, voices training heard": [one for one in english if one.seen],
        "English, other voices": [one for one in english if not one.seen],
        "Mandarin": [one for one in said if one.language == "zh"],
    }
    figures["transcripts"] = {
        name: understanding.character_errors(model, group) for name, group in groups.items()
    }
    for line in lines:
        if line.language == "en":
            figures |= _speech(line, corpus, said, model, decoder, heard)
    return figures


def _speech(
    line: Line,
    corpus: Corpus,
    said: Sequence[Said],
    model: LanguageModel,
    decoder: SpeechDecoder,
    heard: Sequence[understanding.Heard],
) -> dict[str, Any]:
    """How the answers sound that callers got, the most frequent ones, and styles."""
    questions = [
        one for one in said
        if one.language == line.language and one.seen
        and any(i.after is None and i.style is None for i in line.asked_by(one.saying))
    ]  # fmt: skip
    request = TurnRequest(temperature=0.0)
    given = conversations(model, [[(one.codes, request)] for one in questions[: 10 * _SPOKEN]])
    frequent: Counter[Answer] = Counter(a for (a,) in given if a.codes and a.text)
    spoken = dict(frequent.most_common(_SPOKEN))
    judge = speaking.judge_of(line, corpus)
    wishes: defaultdict[str, list[Said]] = defaultdict(list)
    for one in said:
        for intent in line.asked_by(one.saying) if one.language == line.language else ():
            if intent.style and one.seen:
                wishes[intent.style].append(one)
    right = {one.said for one in heard if one.right}
    asked = [one for one in questions if one.text in right][:_STYLE_QUESTIONS]
    return {
        "speech": speaking.streaming(decoder, judge, spoken)
        | {"source_voice": speaking.source_voice(judge, corpus)},
        "styles": speaking.styles(model, decoder, line, asked, wishes),
    }
