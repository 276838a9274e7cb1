"""What a checkpoint makes of callers: right answers, whole calls, tools, transcripts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.evaluation.answering import Answer, conversations, transcripts
from agent.evaluation.text import Language, characters, edit_distance, units
from agent.speech import LanguageModel
from agent.speech.request import TurnRequest
from agent.speech.system_prompt import system_prompt
from agent.training.evaluation.callers import Asked, Said
from agent.training.line import Line

SIMILAR = 0.9
FALLBACK = "fallback"
# Answers that hand a caller over, which is no wrong fact whatever was asked.
_HANDING_OVER = ("nurse", "human", "billing")


def similarity(text: str, expected: str, language: Language = "en") -> float:
    """Return 1 less errors over the words (characters) of the longer text; 1 for the same words."""
    one, other = units(text, language), units(expected, language)
    longest = max(len(one), len(other))
    return 1.0 - edit_distance(other, one) / longest if longest else 1.0


def is_right(text: str, expected: str, line: Line) -> bool:
    """Whether an answer says what is expected, give or take a word in ten.

    Values, such as days, are what some answers differ by, so none of them may differ.
    """
    one, other = text.lower(), expected.lower()
    same = all((value.lower() in one) == (value.lower() in other) for value in line.values)
    return same and similarity(text, expected, line.language) >= SIMILAR


@dataclass(frozen=True)
class Heard:
    """One caller's turn and what the model made of it.

    Attributes:
        voice: Who spoke.
        seen: Whether training heard this voice.
        language: In which language.
        intent: What was wanted.
        turns: How many turns the call had up to here.
        said: The caller's words.
        answer: The model's.
        right: Whether this answer is right.
        whole: Whether all answers of the call are.
        safe: Of a question about something else: whether it got no wrong fact.
    """

    voice: str
    seen: bool
    language: Language
    intent: str
    turns: int
    said: str
    answer: str
    right: bool
    whole: bool
    safe: bool | None = None


def answered(model: LanguageModel, line: Line, asked: Sequence[Asked]) -> list[Heard]:
    """Let the model answer calls, with its own answers in their history, greedily."""
    request = TurnRequest(temperature=0.0)
    given = conversations(model, [[(t.codes, request) for t in one.turns] for one in asked])
    harmless = [line.intents[n].answer for n in (FALLBACK, *_HANDING_OVER) if n in line.intents]
    heard = []
    for one, answers in zip(asked, given, strict=True):
        rights = [
            is_right(answer.text, intent.answer, line)
            for answer, intent in zip(answers, one.intents, strict=True)
        ]
        safe = None
        if one.intent.kind == FALLBACK:
            safe = any(is_right(answers[-1].text, answer, line) for answer in harmless)
        heard.append(
            Heard(
                voice=one.last.voice,
                seen=one.last.seen,
                language=line.language,
                intent=one.intent.kind,
                turns=len(one.turns),
                said=one.last.text,
                answer=answers[-1].text,
                right=rights[-1],
                whole=all(rights),
                safe=safe,
            )
        )
    return heard


def tools(model: LanguageModel, line: Line, asked: Sequence[Asked]) -> dict[str, Any]:
    """Share of calls that need a tool in which it is called with the right arguments, by tool.

    A tool is called with the name and the arguments of the intent, or else the call is wrong.
    """
    needed = [one for one in asked if one.intent.tool]
    first = TurnRequest(temperature=0.0, system=system_prompt(True, None, line.tools))
    then = TurnRequest(temperature=0.0)
    given = conversations(
        model,
        [[(t.codes, then if n else first) for n, t in enumerate(one.turns)] for one in needed],
    )
    rights: defaultdict[str, list[bool]] = defaultdict(list)
    wrong = []
    for one, answers in zip(needed, given, strict=True):
        tool = one.intent.tool
        assert tool is not None
        called = called_tool(answers[-1])
        right = called == (tool.name, tool.arguments)
        rights[tool.name].append(right)
        if not right:
            wrong.append(
                {"said": one.last.text, "voice": one.last.voice, "expected": tool.arguments,
                 "called": answers[-1].tool_call, "answer": answers[-1].text}
            )  # fmt: skip
    every = [right for group in rights.values() for right in group]
    by_tool = {name: share(group) for name, group in sorted(rights.items())}
    return {**share(every), "by_tool": by_tool, "wrong": wrong}


def called_tool(answer: Answer) -> tuple[str, Any] | None:
    """Name and arguments of the tool an answer calls; None where it calls none properly."""
    name, _, arguments = answer.tool_call.partition("\n")
    try:
        return (name, json.loads(arguments)) if name else None
    except json.JSONDecodeError:
        return None


def character_errors(model: LanguageModel, said: Sequence[Said]) -> dict[str, Any]:
    """Character error rate of transcripts."""
    written = transcripts(model, [one.codes for one in said])
    wrong = total = 0
    for one, text in zip(said, written, strict=True):
        true = _letters(one.text, one.language)
        wrong += edit_distance(true, _letters(text, one.language))
        total += len(true)
    rate = round(wrong / total, 4) if total else None
    return {"recordings": len(said), "characters": total, "errors": wrong, "rate": rate}


def _letters(text: str, language: Language) -> list[str]:
    return units(text, language) if language == "zh" else characters(text)


def share(rights: Sequence[bool]) -> dict[str, Any]:
    """How many of some are right."""
    portion = round(sum(rights) / len(rights), 4) if rights else None
    return {"count": len(rights), "right": sum(rights), "share": portion}


def summary(heard: Sequence[Heard]) -> dict[str, Any]:
    """Right answers: by voices and language, by intent, of whole calls, of other questions."""

    def of(chosen: Iterable[Heard]) -> dict[str, Any]:
        return share([one.right for one in chosen])

    figures: dict[str, Any] = {}
    for language in sorted({one.language for one in heard}):
        here = [one for one in heard if one.language == language]
        seen = [one for one in here if one.seen]
        several = [one for one in seen if one.turns > 1]
        figures[language] = {
            "seen_voices": of(seen),
            "unseen_voices": of(one for one in here if not one.seen),
            "other_questions": share([one.safe for one in seen if one.safe is not None]),
            "calls_of_several_turns": share([one.whole for one in several]),
            "by_intent": {
                name: of(one for one in seen if one.intent == name)
                for name in sorted({one.intent for one in seen})
            },
            "by_voice": {
                name: of(one for one in here if one.voice == name)
                for name in sorted({one.voice for one in here})
            },
        }
    wrong = [asdict(one) for one in heard if not one.right]
    return {**figures, "wrong": wrong}
