"""JUnit XML as build servers read it."""

import xml.etree.ElementTree as ET

import pytest

from telephony.simulator.junit import write_junit
from telephony.simulator.suite_report import Attempt, ScenarioReport, SuiteReport


@pytest.fixture
def written(tmp_path):
    def write(*attempts):
        scenario = ScenarioReport(name="lines & <hours>", file="a/b.yaml", attempts=list(attempts))
        report = SuiteReport(target="http://a", started_at=0, seconds=9, scenarios=[scenario])
        path = tmp_path / "new" / "junit.xml"
        write_junit(path, report)
        return ET.parse(path).getroot()

    return write


def test_every_call_is_a_testcase_with_its_outcome(written, call_report):
    root = written(
        Attempt(number=1, directory="001", call=call_report()),
        Attempt(number=2, call=call_report(holds=False)),
        Attempt(number=3, error="ValueError: no event\nin line 3"),
        Attempt(number=4, skipped="the budget ran out"),
    )

    (suite,) = root
    for element in (root, suite):
        counts = [element.get(name) for name in ("tests", "failures", "errors", "skipped")]
        assert counts == ["4", "1", "1", "1"]
    passed, failed, error, skipped = suite.findall("testcase")
    assert passed.get("name") == "lines & <hours> [1]"
    assert passed.get("classname") == "a/b.yaml"
    assert float(passed.get("time")) == 8.0
    assert [child.tag for child in passed] == ["system-out"]
    assert "caller: Words." in passed.findtext("system-out")
    assert "turn 1: FAILED words: expected “soon”; found “later”" in failed.findtext("failure")
    assert error.find("error").get("message") == "ValueError: no event"
    assert skipped.find("skipped").get("message") == "the budget ran out"
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["pass^1"] == "0.3333"


def test_what_xml_cannot_hold_does_not_spoil_the_file(written, call_report):
    call = call_report()
    call.turns[0].agent = "a\x00b\x0bc]]>\ud800"

    root = written(Attempt(number=1, call=call))

    assert "a\ufffdb\ufffdc]]>\ufffd" in root.find(".//system-out").text
    assert root.find(".//testcase").get("name") == "lines & <hours>"
