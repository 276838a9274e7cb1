"""The figures of a nano as Markdown tables, for its card."""

from __future__ import annotations

from typing import Any

_LANGUAGES = {"en": "English", "zh": "Mandarin"}


def percent(value: float | None) -> str:
    """A share as text."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells: str) -> list[str]:
    return ["", _row(*cells), "|" + "---|" * len(cells)]


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures of :func:`agent.training.evaluation.measure.measure` as tables."""
    answers = figures["answers"]
    rows = _head("held-out sentences, over the phone", "count", "right")
    for language, name in _LANGUAGES.items():
        for part, title in (
            ("seen_voices", "voices training heard"),
            ("unseen_voices", "other voices"),
            ("calls_of_several_turns", "whole calls of two and three turns"),
            ("other_questions", "questions about something else: fallback or transfer"),
        ):
            if found := answers.get(language, {}).get(part):
                rows.append(_row(f"{name}, {title}", found["count"], percent(found["share"])))
    if tools := figures.get("tools"):
        rows.append(
            _row("tool calls with right arguments", tools["count"], percent(tools["share"]))
        )
    rows += _head("transcripts", "recordings", "character errors")
    for name, one in figures["transcripts"].items():
        rows.append(_row(name, one["recordings"], percent(one["rate"])))
    if speech := figures.get("speech"):
        rows += _head("speech, judged by its recogniser", "words", "WER 16 kHz", "WER 8 kHz mu-law")
        for name, key in (
            ("the agent's, streamed", "streamed"),
            ("the same, decoded whole", "whole"),
            ("its source voice", "source_voice"),
        ):
            one = speech[key]
            rows.append(_row(name, one["words"], percent(one["wer"]), percent(one["wer_phone"])))
        rows += _head("spectral flux, dB", "at borders of blocks", "inside")
        for name, prefix in (("streamed", ""), ("decoded whole", "whole_")):
            rows.append(
                _row(name, speech[f"{prefix}flux_at_borders"], speech[f"{prefix}flux_inside"])
            )
    if styles := figures.get("styles"):
        rows += _head("style", "same words", "rate", "pitch")
        for name, one in styles.items():
            rate, pitch = one["rate_percent"], one["pitch_semitones"]
            rows.append(
                _row(
                    name,
                    percent(one["words_kept"]),
                    "-" if rate is None else f"{rate:+.0f} %",
                    "-" if pitch is None else f"{pitch:+.1f} semitones",
                )
            )
    for language, name in _LANGUAGES.items():
        for key, title in (("by_intent", "intent"), ("by_voice", "voice")):
            if found := answers.get(language, {}).get(key):
                rows += _head(f"{name}, {title}", "count", "right")
                rows += [_row(n, one["count"], percent(one["share"])) for n, one in found.items()]
    return "\n".join(rows[1:])
