"""Scenario files: what is wrong in them is named."""

import pytest

from telephony.simulator.scenario import load_scenario

GOOD = """
name: short
greeting: true
turns:
  - {say: Hello., wav: lines/hello.wav}
  - say: Stop!
    wav: lines/stop.wav
    when: {during_agent: {after_ms: 900}}
    expect: {silent_within_ms: 500, history_cut: true, words: [sorry]}
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "scenario.yaml"
        path.write_text(text)
        return path

    return write


def test_a_scenario_is_read_with_its_recordings_beside_it(file):
    path = file(GOOD)

    scenario = load_scenario(path)

    assert scenario.greeting is not None
    assert scenario.turns[0].wav == path.parent / "lines" / "hello.wav"
    assert scenario.turns[0].when.after_agent is not None
    assert scenario.turns[1].when.during_agent is not None
    assert scenario.turns[1].when.during_agent.after_ms == 900


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("words:", "wrods:", "unknown field turns.1.expect.wrods"),
        ("after_ms: 900", "after_ms: soon", "turns.1.when.during_agent.after_ms"),
        ("when: {during_agent: {after_ms: 900}}", "when: {}", "turns.1.when"),
        ("when: {during_agent: {after_ms: 900}}", "", "silent_within_ms and history_cut need"),
        ("say: Hello., ", "", "turns.0.say"),
        ("words: [sorry]", "matches: '('", "turns.1.expect.matches: not a regular expression"),
        ("name: short", "name: [", "not a YAML file"),
        ("words: [sorry]", "words: ['?!']", "turns.1.expect.words.0: no word in '?!'"),
        ("name: short", "name: a\nexpect: {cause: bored}", "expect.cause: expected one of"),
        ("name: short", "name: a\nexpect: {tools: {cald: []}}", "unknown field expect.tools.cald"),
        (GOOD, "- a list", "expected a mapping"),
        (GOOD, "name: x\nturns: []", "turns"),
    ],
)
def test_a_wrong_field_is_named(file, before, after, named):
    path = file(GOOD.replace(before, after))
    with pytest.raises(ValueError, match=r"scenario\.yaml") as error:
        load_scenario(path)
    assert named in str(error.value)


def test_nothing_can_be_interrupted_before_anything_was_said(file):
    text = GOOD.replace("greeting: true", "").replace(
        "wav: lines/hello.wav", "wav: a, when: {during_agent: {after_ms: 1}}"
    )

    with pytest.raises(ValueError, match="nothing to interrupt"):
        load_scenario(file(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml: No such file"):
        load_scenario(tmp_path / "nowhere.yaml")
