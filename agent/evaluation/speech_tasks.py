"""Questions answered, recordings written down, texts said: speech to text and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.evaluation.answering import Checkpoint, transcripts
from agent.evaluation.hearing import Hearing
from agent.evaluation.items import AnyItem, QuestionItem, RecordingItem, TextItem, Turn
from agent.evaluation.results import TaskResult, by_set, error_rate, share
from agent.evaluation.text import (
    Language,
    characters,
    contains_answer,
    edit_distance,
    is_answer,
    units,
)


def question_answering(
    checkpoint: Checkpoint, items: Sequence[QuestionItem], hearing: Hearing
) -> TaskResult:
    """Ask everything; is a known answer in the text, and in what is heard of the speech?"""
    result = TaskResult("qa")
    for part, group in by_set(items).items():
        given = checkpoint.answer([item.question for item in group])
        found: dict[str, list[float]] = {"text": [], "text_exact": [], "speech": []}
        for item, answer in zip(group, given, strict=True):
            record: dict[str, Any] = {"id": item.id, "set": part, "answers": list(item.answers)}
            record["text"] = answer.text
            found["text"].append(contains_answer(answer.text, item.answers, item.language))
            found["text_exact"].append(is_answer(answer.text, item.answers, item.language))
            if hearing.hears(item.language):
                record["heard"] = hearing.of(answer)
                right = contains_answer(record["heard"], item.answers, item.language)
                found["speech"].append(right)
            result.items.append(record)
        result.figures += [share(f"accuracy_{k}", part, v) for k, v in found.items() if v]
        _note_hearing(result, part, group, hearing)
    return result


def recognition(checkpoint: Checkpoint, items: Sequence[RecordingItem]) -> TaskResult:
    """Let the checkpoint write down recordings by its transcription prompt."""
    result = TaskResult("asr")
    if checkpoint.model.config.transcription_prompt is None:
        result.notes.append(
            "The checkpoint's config has no field transcription_prompt, so how it is to be asked "
            "for a transcript is not known; --transcription-prompt gives one."
        )
        return result
    for part, group in by_set(items).items():
        codes = [checkpoint.codes(item.audio, item.phone_band) for item in group]
        written = transcripts(checkpoint.model, codes)
        errors = _Errors()
        for item, text in zip(group, written, strict=True):
            errors.add(item.text, text, item.language)
            result.items.append(
                {"id": item.id, "set": part, "reference": item.text, "transcript": text}
            )
        errors.report(result, part)
    return result


def speaking(checkpoint: Checkpoint, items: Sequence[TextItem], hearing: Hearing) -> TaskResult:
    """Let the model say given texts word for word; what does the recogniser hear?"""
    result = TaskResult("tts")
    for part, group in by_set(items).items():
        heard_of = [item for item in group if hearing.hears(item.language)]
        given = checkpoint.answer([Turn(say=item.text) for item in heard_of])
        errors = _Errors()
        for item, answer in zip(heard_of, given, strict=True):
            heard = hearing.of(answer)
            errors.add(item.text, heard, item.language)
            result.items.append({"id": item.id, "set": part, "text": item.text, "heard": heard})
        errors.report(result, part)
        _note_hearing(result, part, group, hearing)
    return result


class _Errors:
    """Adds up errors of one set: of words in English, of characters in both languages."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[list[int], list[int]]] = {"wer": ([], []), "cer": ([], [])}

    def add(self, reference: str, hypothesis: str, language: Language) -> None:
        if language == "zh":
            self._count("cer", units(reference, "zh"), units(hypothesis, "zh"))
            return
        self._count("wer", units(reference, "en"), units(hypothesis, "en"))
        self._count("cer", characters(reference), characters(hypothesis))

    def _count(self, name: str, reference: list[str], hypothesis: list[str]) -> None:
        errors, lengths = self._counts[name]
        errors.append(edit_distance(reference, hypothesis))
        lengths.append(len(reference))

    def report(self, result: TaskResult, part: str) -> None:
        for name, (errors, lengths) in self._counts.items():
            if errors:
                result.figures.append(error_rate(name, part, errors, lengths))


def _note_hearing(
    result: TaskResult, part: str, group: Sequence[AnyItem], hearing: Hearing
) -> None:
    for language in sorted({item.language for item in group}):
        note = f"{part}: {hearing.note(language)}"
        if note not in result.notes:
            result.notes.append(note)
