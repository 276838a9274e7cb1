"""What came back for one turn."""

from telephony.simulator.checks.said import check_said
from telephony.simulator.checks.tools import check_tools
from telephony.simulator.checks.verdict import Unknown, at_most
from telephony.simulator.evidence import Answer
from telephony.simulator.expectation import Expectation
from telephony.simulator.report import Check


def check_answer(expect: Expectation, answer: Answer) -> list[Check]:
    """Judge an answer by what a call itself leaves: no recogniser and no model is asked.

    Args:
        expect: What the scenario asks for.
        answer: What came back.

    Returns:
        One check for each field of the expectation that is given.
    """
    found = "silence" if answer.span is None else "an answer"
    expected = "an answer" if expect.answered else "silence"
    checks = [Check(name="answered", expected=expected, found=found, passed=found == expected)]
    checks += check_said(expect, _one(answer.text))
    if expect.heard is not None:
        checks += check_said(expect.heard, _one(answer.heard), "heard.")
    if expect.tools is not None:
        checks += check_tools(expect.tools, answer.tools)
    voice_to_voice = None if answer.latency is None else answer.latency.voice_to_voice
    for name, value in (
        ("answer_within_ms", voice_to_voice),
        ("longest_pause_ms", answer.pause_ms),
        ("longest_gap_ms", answer.gap_ms),
    ):
        limit = getattr(expect, name)
        if limit is not None:
            checks.append(at_most(name, limit, value, "no answer"))
    return checks


def _one(text: str | Unknown) -> list[str] | Unknown:
    return text if isinstance(text, Unknown) else [text]
