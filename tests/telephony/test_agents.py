"""A file of agents: who has which number, and what is wrong with it."""

import re
from datetime import date
from pathlib import Path

import pytest

from agent.settings import load_settings
from agent.yaml_document import MistakesError
from telephony.agents import CallCentre
from telephony.check import check

TODAY = date(2026, 11, 26)
TOKEN = {"TWILIO_AUTH_TOKEN": "token"}
DOCS = Path(__file__).parents[2] / "docs"

WHOLE = """\
agents:
  desk:
    numbers: ["+15550100002", "+15550100003"]
    language: en-US
    greeting_text: Oak Street Clinic, how can I help you?
    instructions: You answer the phone of a clinic.
    limits: {calls: 4, call_secs: 900}
    hours:
      time_zone: America/New_York
      open: {mon-fri: "08:00-18:00"}
      holidays: [2026-12-25]
    outside: {then: agent, agent: night}
    busy: {then: wait, number: "+15550100009"}
    tools: [{kind: hang_up}]
  night:
    greeting_text: You have reached us at night.
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_a_file_of_agents_is_read(file):
    staff = load_settings(file(WHOLE), {}, CallCentre).staff
    assert [*staff] == ["desk", "night"]
    assert staff.answering("+15550100003") == "desk"
    assert staff.answering("+15550107777") == "night"
    assert staff["desk"].hours.time_zone == "America/New_York"
    assert staff["desk"].busy.number == "+15550100009"


def test_a_plain_agent_answers_every_number(file):
    settings = load_settings(
        file("agent: {greeting_text: Hello., language: zh-CN}"), {}, CallCentre
    )
    (name,) = settings.staff
    assert settings.staff.answering("+15550100002") == name == "agent"
    assert settings.staff[name].greeting_text == "Hello."
    assert load_settings(None, {}, CallCentre).staff.answering("anything") == "agent"


def test_a_number_that_nobody_has_is_nobodys(file):
    path = file('agents: {desk: {numbers: ["+15550100002"]}}')
    assert load_settings(path, {}, CallCentre).staff.answering("+15550100003") is None


def mistakes(path):
    with pytest.raises(MistakesError) as caught:
        load_settings(path, {}, CallCentre)
    return [(one.line, one.message) for one in caught.value.mistakes]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"+15550100002"', "+15550100002", 3, 'belongs in quotes: "+15550100002"'),
        ("+15550100002", "(555) 010-0002", 3, "agents.desk.numbers.0: expected a number such as"),
        ("language: en-US", "language: American English", 4, "a language tag such as en-US"),
        ("greeting_text: Oak", "greting_text: Oak", 5, "is greeting_text meant?"),
        ("Oak Street Clinic, how can I help you?", '" "', 5, "greeting_text: expected words"),
        ("calls: 4", "calls: 0", 7, "agents.desk.limits.calls"),
        ("America/New_York", "America/NewYork", 9, "agents.desk.hours.time_zone: expected a time"),
        ("mon-fri", "mo-fr", 10, "expected a day"),
        ("08:00-18:00", "8 to 6", 10, "agents.desk.hours.open.mon-fri.0: expected times"),
        ("2026-12-25", "Christmas", 11, "agents.desk.hours.holidays.0: expected a date"),
        ("then: agent,", "then: forward,", 12, "forward needs a number"),
        ("then: agent, agent: night", "then: agent", 12, "agent needs the name of an agent"),
        ("agent: night", "agent: nigth", 12, "expected another agent (night), got 'nigth'"),
        ("agent: night", "agent: desk", 12, "expected another agent (night), got 'desk'"),
        ("then: wait", "then: hold", 13, "agents.desk.busy.then"),
        ("+15550100009", "+15550100003", 13, "round in circles"),
        ("{kind: hang_up}", "hang_up", 14, "agents.desk.tools.0"),
        ("{kind: hang_up}", "{kind: hang_up, fillr: One moment.}", 14, "is filler meant?"),
        ("{kind: hang_up}", "{kind: look_up, facts: {a: b}}", 14, "look_up.description"),
        ("  night:", "  desk:", 15, "agents.desk is given twice"),
        ("greeting_text: You", "numbers: []\n    greeting_text: You", 16, "night.numbers"),
    ],
)
def test_a_mistake_is_told_with_line_and_field(file, old, new, line, message):
    assert old in WHOLE
    found = mistakes(file(WHOLE.replace(old, new, 1)))
    assert [one for one in found if one[0] == line and message in one[1]], found


def test_a_number_has_one_agent(file):
    text = WHOLE + '    numbers: ["+15550100003", "*"]\n  rest: {}\n'
    found = mistakes(file(text))
    assert [(line, message.split(":")[0]) for line, message in found] == [
        (3, "agents.desk.numbers.1"),
        (17, "agents.night.numbers.0"),
        (17, "agents.night.numbers.1"),
        (18, "agents.rest.numbers.0"),
    ]
    assert found[0][1].endswith("+15550100003 belongs to more than one agent")
    assert found[3][1].endswith("every number belongs to more than one agent")


def test_one_agent_and_several_are_not_both_given(file):
    ((line, message),) = mistakes(file("agents: {desk: {}}\nagent: {}\n"))
    assert (line, message) == (2, "agent: belongs under agents: where that is given")


def test_nobody_waits_where_several_processes_answer(file):
    found = mistakes(file(WHOLE + "gateway: {workers: 2}\n"))
    assert [(line, message.split(":")[0]) for line, message in found] == [
        (13, "agents.desk.busy.then")
    ]


def test_settings_can_be_handed_on_to_another_process(file):
    night = '"22:00-06:30"'
    settings = load_settings(file(WHOLE.replace('"08:00-18:00"', night)), {}, CallCentre)
    settings.build_tools()
    there = CallCentre.model_validate_json(settings.model_dump_json())
    assert there.agents["desk"] == settings.agents["desk"]


def test_every_agent_has_its_own_tools(file):
    settings = load_settings(file(WHOLE), {}, CallCentre)
    settings.build_tools()
    assert [tool.name for tool in settings.staff["desk"].toolbox] == ["hang_up"]
    assert settings.staff["night"].toolbox == ()


# ---- glm-voice check


def test_a_tool_that_cannot_be_made_is_warned_of(file):
    path = file(WHOLE.replace("{kind: hang_up}", "{kind: hang_up}, {kind: hang_up}"))
    found, warnings = check(path, TODAY, TOKEN)
    assert found == []
    assert [str(one) for one in warnings] == [
        f"{path}:14: agents.desk.tools: two tools are called 'hang_up'"
    ]
    with pytest.raises(ValueError, match=r"^agents.desk.tools: two tools are called 'hang_up'$"):
        load_settings(path, {}, CallCentre).build_tools()


def test_a_good_file_has_neither_mistakes_nor_warnings(file):
    assert check(file(WHOLE), TODAY, TOKEN) == ([], [])


def test_a_warning_that_is_never_given_is_warned_of(file):
    limits = "limits: {calls: 4, call_secs: 900}"
    short = "limits: {call_secs: 30, warning_secs: 40}\n    turn_taking: {time_warning: Soon.}"
    found, warnings = check(file(WHOLE.replace(limits, short)), TODAY, TOKEN)
    assert found == []
    assert [str(one).split(": ", 1)[1] for one in warnings] == [
        "agents.desk.limits.warning_secs: is not used: no call is that long",
        "agents.desk.turn_taking.time_warning: is not used: no call is warned of its end",
    ]


def test_mistakes_are_those_that_serve_would_find(file):
    path = file(WHOLE.replace("call_secs", "call_second"))
    found, warnings = check(path, TODAY, TOKEN)
    assert [str(one) for one in found] == [
        f"{path}:7: unknown field agents.desk.limits.call_second; is call_secs meant?"
    ]
    assert warnings == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("greeting_text: Oak", "greeting: Greet.\n    greeting_text: Oak", 5, "is not used"),
        ('"08:00-18:00"', "closed", 10, "it is always closed"),
        ("2026-12-25", "2025-12-25", 11, "all of them are past"),
        ("then: wait,", "longest_wait_secs: 9,", 13, "is not used: calls are refused at once"),
        (
            "    greeting_text: You",
            '    numbers: ["+15550100008"]\n    greeting_text: You',
            1,
            "other",
        ),
        ("  night:", "  night:\n    outside: {say: Closed.}", 16, "is not used without hours"),
    ],
)
def test_what_will_not_do_what_it_seems_to_is_a_warning(file, old, new, line, message):
    assert old in WHOLE
    found, warnings = check(file(WHOLE.replace(old, new, 1)), TODAY, TOKEN)
    assert found == []
    assert [(one.line, message in one.message) for one in warnings] == [(line, True)]


def test_a_secret_that_is_not_there_is_a_warning(file):
    _, warnings = check(file("gateway:\n  operator_token_file: /nowhere\n"), TODAY, {})
    assert [one.line for one in warnings] == [1, 2]
    assert "TWILIO_AUTH_TOKEN" in warnings[0].message


@pytest.mark.parametrize("page", ["agents.md", "turn-taking.md"])
def test_what_the_documentation_shows_is_right(file, page):
    examples = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S)
    assert examples
    for example in examples:
        assert check(file(example), TODAY, TOKEN) == ([], [])
