"""JUnit XML, the format in which build servers read results of tests.

The elements and attributes are those that Jenkins, GitLab and GitHub's actions agree on: a
testsuite for each scenario, a testcase for each of its calls.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from telephony.simulator.report import CallReport
from telephony.simulator.suite_report import Attempt, Outcome, ScenarioReport, SuiteReport
from telephony.simulator.terminal import complaints, describe, time_of_call


def write_junit(path: Path, report: SuiteReport) -> None:
    """Write a run as JUnit XML.

    Args:
        path: The file; its directory is made if need be.
        report: The run.

    Raises:
        OSError: The file cannot be written.
    """
    root = ET.Element("testsuites", name="glm-voice simulate", time=f"{report.seconds:.3f}")
    _count(root, report.attempts)
    for scenario in report.scenarios:
        root.append(_suite(scenario, report))
    for element in root.iter():
        element.text = _clean(element.text)
        element.attrib = {name: _clean(value) or "" for name, value in element.items()}
    ET.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(scenario: ScenarioReport, report: SuiteReport) -> ET.Element:
    seconds = sum(attempt.call.duration for attempt in scenario.attempts if attempt.call)
    started = datetime.fromtimestamp(report.started_at, UTC).isoformat(timespec="seconds")
    suite = ET.Element(
        "testsuite",
        name=scenario.name,
        time=f"{seconds:.3f}",
        timestamp=started.removesuffix("+00:00"),
        file=scenario.file,
    )
    _count(suite, scenario.attempts)
    properties = ET.SubElement(suite, "properties")
    ET.SubElement(properties, "property", name="target", value=report.target)
    for k, share in enumerate(scenario.pass_hat, 1):
        ET.SubElement(properties, "property", name=f"pass^{k}", value=f"{share:.4f}")
    for attempt in scenario.attempts:
        suite.append(_case(scenario, attempt, len(scenario.attempts) > 1))
    return suite


def _case(scenario: ScenarioReport, attempt: Attempt, several: bool) -> ET.Element:
    call = attempt.call
    case = ET.Element(
        "testcase",
        name=scenario.name + (f" [{attempt.number}]" if several else ""),
        classname=scenario.file,
        time=f"{call.duration if call else 0:.3f}",
    )
    match attempt.outcome:
        case Outcome.SKIPPED:
            ET.SubElement(case, "skipped", message=attempt.skipped or "")
        case Outcome.ERROR:
            message = attempt.error or ""
            ET.SubElement(case, "error", message=message.splitlines()[0]).text = message
        case Outcome.FAILED if call is not None:
            lines = complaints(call)
            message = lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
            ET.SubElement(case, "failure", message=message).text = "\n".join(lines)
    if call is not None:
        ET.SubElement(case, "system-out").text = _transcript(call, attempt.directory)
    return case


def _transcript(call: CallReport, directory: str | None) -> str:
    lines = [f"{call.call_sid}: {call.cause} after {call.duration:.1f} s"]
    if directory is not None:
        lines.append(f"files: {directory}")
    lines += [f"Twilio says: {text}" for text in call.said]
    for turn in call.turns:
        if turn.caller is not None:
            at = time_of_call(turn.speech[0]) if turn.speech else "(not spoken)"
            lines.append(f"{at} caller: {turn.caller}")
        if turn.answer is not None:
            text = "(text not known)" if turn.agent is None else turn.agent
            lines.append(f"{time_of_call(turn.answer[0])} agent: {text}")
        if turn.latency is not None:
            lines.append(f"  {describe(turn.latency)}")
    return "\n".join(lines)


def _clean(text: str | None) -> str | None:
    """A text without the characters that XML 1.0 cannot hold, not even escaped."""
    if text is None:
        return None
    good = (c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(good)


def _count(element: ET.Element, attempts: Sequence[Attempt]) -> None:
    outcomes = [attempt.outcome for attempt in attempts]
    element.set("tests", str(len(outcomes)))
    element.set("failures", str(outcomes.count(Outcome.FAILED)))
    element.set("errors", str(outcomes.count(Outcome.ERROR)))
    element.set("skipped", str(outcomes.count(Outcome.SKIPPED)))
