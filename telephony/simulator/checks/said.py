"""Whether texts say what they must and nothing that they must not."""

import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial

from agent.evaluation.wording import says, similarity
from telephony.simulator.checks.verdict import Unknown, unknown
from telephony.simulator.expectation import Said
from telephony.simulator.report import Check

_LONGEST = 600
"""Letters of what was found that a check quotes."""


def check_said(expect: Said, texts: Sequence[str] | Unknown, prefix: str = "") -> list[Check]:
    """Judge what was said.

    Args:
        expect: What must and must not be said.
        texts: What was said, one text for each answer: it is enough that one says it, and none may
            say what is never said.
        prefix: Comes before the names of the checks: where the texts are from.

    Returns:
        One check for each phrase and each other field that is given.
    """
    checks = [
        _occurs(prefix + name, expected, texts, test, wanted)
        for name, expected, test, wanted in _tests(expect)
    ]
    if expect.similar_to is not None:
        checks.append(_similar(prefix + "similar_to", expect.similar_to, expect.similarity, texts))
    return checks


def _tests(expect: Said) -> list[tuple[str, str, Callable[[str], bool], bool]]:
    """Name, expectation in words, what to ask of a text, and whether it must be so."""
    tests: list[tuple[str, str, Callable[[str], bool], bool]] = []
    if expect.matches is not None:
        found = re.compile(expect.matches, re.IGNORECASE).search
        expected = f"text that matches {expect.matches!r}"
        tests.append(("matches", expected, lambda text: bool(found(text)), True))
    for phrase in expect.words:
        tests.append(("words", f"“{phrase}”", partial(says, phrase=phrase), True))
    if expect.exact is not None:
        whole = expect.exact.split()
        tests.append(("exact", f"“{expect.exact}”", lambda text: text.split() == whole, True))
    for phrase in expect.never:
        tests.append(("never", f"not “{phrase}”", partial(says, phrase=phrase), False))
    if expect.never_matches is not None:
        unwanted = re.compile(expect.never_matches, re.IGNORECASE).search
        expected = f"no text that matches {expect.never_matches!r}"
        tests.append(("never_matches", expected, lambda text: bool(unwanted(text)), False))
    return tests


def _occurs(
    name: str,
    expected: str,
    texts: Sequence[str] | Unknown,
    test: Callable[[str], bool],
    wanted: bool,
) -> Check:
    if isinstance(texts, Unknown):
        return unknown(name, expected, texts)
    hits = [text for text in texts if test(text)]
    return Check(
        name=name, expected=expected, found=_quote(hits or texts), passed=bool(hits) is wanted
    )


def _similar(name: str, model: str, least: float, texts: Sequence[str] | Unknown) -> Check:
    expected = f"at least {least:.2f} like “{model}”"
    if isinstance(texts, Unknown):
        return unknown(name, expected, texts)
    share, text = max(((similarity(text, model), text) for text in texts), default=(0.0, ""))
    return Check(
        name=name, expected=expected, found=f"{share:.2f}: {_quote([text])}", passed=share >= least
    )


def _quote(texts: Sequence[str]) -> str:
    said = " ".join(f"“{text}”" for text in texts)
    return textwrap.shorten(said, _LONGEST, placeholder=" …") or "nothing"
