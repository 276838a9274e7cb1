"""Conversation: a language model judges the answers; a recogniser, whether speech follows text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.evaluation.answering import Checkpoint
from agent.evaluation.hearing import Hearing
from agent.evaluation.items import ChatItem
from agent.evaluation.results import TaskResult, by_set, error_rate, mean
from agent.evaluation.services import ChatJudge
from agent.evaluation.text import edit_distance, units


def run(
    checkpoint: Checkpoint,
    items: Sequence[ChatItem],
    hearing: Hearing,
    judge: ChatJudge | None,
) -> TaskResult:
    """Ask everything and have it judged.

    As in the paper, questions without known answers are rated from 1 to 10, and those with known
    answers as right (10) or wrong (0); what is judged is what the recogniser heard of the speech,
    or without one the answer's text.
    """
    result = TaskResult("chat")
    if judge is None:
        result.notes.append("No judge: --judge-url gives one.")
    for part, group in by_set(items).items():
        scores: dict[str, list[float]] = {"quality": [], "knowledge": []}
        errors: list[int] = []
        lengths: list[int] = []
        failed = 0
        for item, answer in zip(group, checkpoint.answer([i.question for i in group]), strict=True):
            record: dict[str, Any] = {"id": item.id, "set": part, "text": answer.text}
            said = answer.text
            if hearing.hears(item.language):
                said = record["heard"] = hearing.of(answer)
                reference = units(answer.text, item.language)
                errors.append(edit_distance(reference, units(said, item.language)))
                lengths.append(len(reference))
            if judge is not None:
                kind = "knowledge" if item.answers else "quality"
                try:
                    record[kind] = _score(judge, item, said)
                    scores[kind].append(record[kind])
                except RuntimeError as error:
                    record["failed"] = str(error)
                    failed += 1
            result.items.append(record)
        for kind, values in scores.items():
            if values:
                result.figures.append(mean(kind, part, values, "of 10", "higher"))
        if sum(lengths):
            result.figures.append(error_rate("speech_against_text", part, errors, lengths))
        if failed:
            result.notes.append(f"{part}: the judge failed on {failed} of {len(group)} answers.")
        if judge is not None:
            result.notes.append(f"{part}: judged by {judge.name}.")
        result.notes += [
            f"{part}: {hearing.note(la)}" for la in sorted({i.language for i in group})
        ]
    return result


def _score(judge: ChatJudge, item: ChatItem, said: str) -> float:
    question = str(item.question.written)
    if item.answers:
        return 10.0 * judge.correct(question, said, item.answers)
    return judge.rate(question, said)
