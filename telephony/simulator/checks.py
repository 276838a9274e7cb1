"""Compares what the agent said with what a scenario expects."""

import difflib
import re

from telephony.simulator.report import BargeIn, Check, Latency
from telephony.simulator.scenario import Expectation

NO_RECORDS = "the agent's records of this call would be needed to tell"


def words(text: str) -> list[str]:
    """A text as lower-case words without punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def similarity(one: str, other: str) -> float:
    """How much two texts have in common, from 0 to 1: difflib's ratio over their words."""
    return difflib.SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()


def check_answer(
    expectation: Expectation, answered: bool, text: str | None, latency: Latency | None
) -> list[Check]:
    """Judge an answer.

    Args:
        expectation: What the scenario asks for.
        answered: Whether the phone played anything.
        text: The agent's text, or None where it is not known.
        latency: Where voice-to-voice time could be measured.

    Returns:
        One check for each field of the expectation that is given.
    """
    found = "an answer" if answered else "silence"
    expected = "an answer" if expectation.answered else "silence"
    checks = [Check(name="answered", expected=expected, found=found, passed=found == expected)]
    if expectation.matches is not None:
        hit = None if text is None else bool(re.search(expectation.matches, text, re.IGNORECASE))
        checks.append(_on_text("matches", f"text that matches {expectation.matches!r}", text, hit))
    for phrase in expectation.words:
        hit = None if text is None else _contains(words(text), words(phrase))
        checks.append(_on_text("words", f"“{phrase}”", text, hit))
    if expectation.similar_to is not None:
        wanted = f"at least {expectation.similarity:.2f} like “{expectation.similar_to}”"
        if text is None:
            checks.append(_on_text("similar_to", wanted, None, None))
        else:
            share = similarity(text, expectation.similar_to)
            checks.append(
                Check(
                    name="similar_to",
                    expected=wanted,
                    found=f"{share:.2f}: “{text}”",
                    passed=share >= expectation.similarity,
                )
            )
    if expectation.answer_within_ms is not None:
        checks.append(
            _at_most(
                "answer_within_ms",
                expectation.answer_within_ms,
                None if latency is None else latency.voice_to_voice,
                "no answer",
            )
        )
    return checks


def check_barge_in(expectation: Expectation, barge_in: BargeIn | None) -> list[Check]:
    """Judge a turn that was meant to interrupt.

    Args:
        expectation: What the scenario asks for.
        barge_in: What happened; None if the agent was not talking.

    Returns:
        A check that the agent was interrupted at all, and one for each field that is given.
    """
    checks = [
        Check(
            name="over_agent",
            expected="the line is spoken over the agent",
            found="the agent was not talking"
            if barge_in is None
            else f"{barge_in.after_ms:.0f} ms into its answer",
            passed=barge_in is not None,
        )
    ]
    if expectation.silent_within_ms is not None:
        silent = None if barge_in is None else barge_in.silent_after_ms
        checks.append(
            _at_most("silent_within_ms", expectation.silent_within_ms, silent, "no interruption")
        )
    if expectation.history_cut:
        checks.append(_history(barge_in))
    return checks


def is_cut(generated: str, kept: str) -> bool:
    """Whether ``kept`` is a beginning of ``generated`` and not all of it."""
    said, held = words(generated), words(kept)
    if not held:
        return bool(said)
    whole, last = held[:-1], held[-1]
    if said[: len(whole)] != whole or len(said) <= len(whole):
        return False
    return said[len(whole)].startswith(last) and "".join(held) != "".join(said)


def _history(barge_in: BargeIn | None) -> Check:
    found = "no interruption"
    passed: bool | None = False
    if barge_in is not None:
        generated, kept = barge_in.generated, barge_in.kept
        known = generated is not None and kept is not None
        found = f"“{kept}” of “{generated}”" if known else NO_RECORDS
        passed = None if generated is None or kept is None else is_cut(generated, kept)
    return Check(
        name="history_cut",
        expected="the history holds only the beginning of the answer",
        found=found,
        passed=passed,
    )


def _contains(text: list[str], phrase: list[str]) -> bool:
    return any(
        text[start : start + len(phrase)] == phrase for start in range(len(text) - len(phrase) + 1)
    )


def _on_text(name: str, expected: str, text: str | None, passed: bool | None) -> Check:
    found = NO_RECORDS if text is None else f"“{text}”"
    return Check(name=name, expected=expected, found=found, passed=passed)


def _at_most(name: str, limit: float, value: float | None, missing: str) -> Check:
    return Check(
        name=name,
        expected=f"at most {limit:.0f} ms",
        found=missing if value is None else f"{value:.0f} ms",
        passed=value is not None and value <= limit,
    )
