"""Style obedience: does an answer's pace, pitch or energy go where an instruction sends it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.evaluation.answering import Answer, Checkpoint
from agent.evaluation.items import Measure, StyleItem
from agent.evaluation.prosody import Prosody, prosody
from agent.evaluation.results import TaskResult, by_set, mean, share
from agent.evaluation.text import Language, units

# Least change that counts as one: a listener hears about so much.
NOTICEABLE: dict[Measure, float] = {"rate": 5.0, "pitch": 0.5, "energy": 1.0}
UNITS: dict[Measure, str] = {"rate": "%", "pitch": "semitones", "energy": "dB"}


def change(measure: Measure, plain: Prosody, styled: Prosody) -> float | None:
    """How much a measure rose, in its unit of :data:`UNITS`; None where it cannot be told."""
    if measure == "rate":
        return 100.0 * (styled.rate / plain.rate - 1.0) if plain.rate else None
    if measure == "energy":
        return styled.energy - plain.energy
    if plain.pitch is None or styled.pitch is None:
        return None
    return 12.0 * math.log2(styled.pitch / plain.pitch)


def run(checkpoint: Checkpoint, items: Sequence[StyleItem]) -> TaskResult:
    """Ask every question without and with its wish and compare the answers.

    A change counts if it goes the right way by a noticeable amount; the words count as kept if the
    texts are the same.
    """
    result = TaskResult("style")
    for part, group in by_set(items).items():
        plain = checkpoint.answer([item.plain for item in group])
        styled = checkpoint.answer([item.styled for item in group])
        obeyed: dict[Measure, list[float]] = {measure: [] for measure in NOTICEABLE}
        changes: dict[Measure, list[float]] = {measure: [] for measure in NOTICEABLE}
        kept: list[float] = []
        silent = 0
        for item, before, after in zip(group, plain, styled, strict=True):
            one, other = (_manner(checkpoint, a, item.language) for a in (before, after))
            record: dict[str, Any] = {
                "id": item.id,
                "set": part,
                "plain": before.text,
                "styled": after.text,
            }
            result.items.append(record)
            if one is None or other is None:
                silent += 1
                continue
            kept.append(units(before.text, item.language) == units(after.text, item.language))
            for measure, direction in item.expect.items():
                moved = change(measure, one, other)
                record[measure] = moved
                sign = 1.0 if direction == "higher" else -1.0
                obeyed[measure].append(moved is not None and sign * moved >= NOTICEABLE[measure])
                if moved is not None:
                    changes[measure].append(sign * moved)
        for measure in NOTICEABLE:
            if obeyed[measure]:
                result.figures.append(share(f"obeyed_{measure}", part, obeyed[measure]))
            if changes[measure]:
                unit = UNITS[measure]
                result.figures.append(
                    mean(f"change_{measure}", part, changes[measure], unit, "higher")
                )
        if kept:
            result.figures.append(share("words_kept", part, kept))
        if silent:
            result.notes.append(f"{part}: {silent} of {len(group)} pairs had no speech to measure.")
    return result


def _manner(checkpoint: Checkpoint, answer: Answer, language: Language) -> Prosody | None:
    words = len(units(answer.text, language))
    return prosody(checkpoint.speech(answer), checkpoint.decoder.sample_rate, words)
