"""Verdicts on calls of tools."""

import datetime

import pytest

from telephony.simulator.agent_records import ToolCall
from telephony.simulator.checks.tools import check_tools
from telephony.simulator.checks.verdict import NO_RECORDS
from telephony.simulator.expectation import Tools

CALLS = [
    ToolCall(1.0, "find", {"day": "Tuesday", "limit": 3}),
    ToolCall(2.0, "book", {"day": "2025-03-04", "who": {"name": "Ann", "age": 40}, "vip": True}),
    ToolCall(3.0, "find", {"day": "Wednesday"}, result={"free": 2}),
]


@pytest.mark.parametrize(
    ("expect", "passed"),
    [
        ({"called": [{"name": "book"}]}, [True]),
        ({"called": [{"name": "cancel"}]}, [False]),
        ({"called": [{"name": "find", "arguments": {"limit": 3.0}}]}, [True]),
        ({"called": [{"name": "find", "arguments": {"limit": "3"}}]}, [False]),
        ({"called": [{"name": "book", "arguments": {"vip": 1}}]}, [False]),
        ({"called": [{"name": "book", "arguments": {"day": datetime.date(2025, 3, 4)}}]}, [True]),
        ({"called": [{"name": "book", "arguments": {"who": {"name": "Ann"}}}]}, [True]),
        ({"called": [{"name": "book", "arguments": {"who": {"name": "Bob"}}}]}, [False]),
        ({"called": [{"name": "find", "arguments_match": {"day": "^wed"}}]}, [True]),
        ({"called": [{"name": "find", "arguments_match": {"limit": "3"}}]}, [False]),
        ({"called": [{"name": "find"}, {"name": "find"}]}, [True, True]),
        ({"called": [{"name": "find"}] * 3}, [True, True, False]),
        # The first, less particular one must not take the call that only it leaves to the second.
        (
            {"called": [{"name": "find"}, {"name": "find", "arguments": {"day": "Tuesday"}}]},
            [True, True],
        ),
        ({"called": [{"name": "find"}, {"name": "book"}], "in_order": True}, [True, True, True]),
        (
            {"called": [{"name": "book"}, {"name": "find"}, {"name": "find"}], "in_order": True},
            [True, True, True, False],
        ),
        ({"never": ["cancel", "book"]}, [True, False]),
        ({"others": False}, [False]),
        ({"called": [{"name": "find"}, {"name": "find"}], "others": False}, [True, True, False]),
        (
            {"called": [{"name": "find"}, {"name": "book"}, {"name": "find"}], "others": False},
            [True, True, True, True],
        ),
    ],
)
def test_calls_are_found_by_name_and_arguments_each_once(expect, passed):
    checks = check_tools(Tools.model_validate(expect), CALLS)

    assert [check.passed for check in checks] == passed


def test_a_verdict_shows_what_was_called_and_what_came_of_it():
    (check,) = check_tools(Tools(never=("find",)), [CALLS[2]])

    assert check.found == 'find(day="Wednesday"), which gave {"free": 2}'


def test_without_records_even_the_absence_of_calls_is_unknown():
    expect = Tools.model_validate({"called": [{"name": "a"}], "in_order": True, "never": ["b"]})

    assert [check.passed for check in check_tools(expect, NO_RECORDS)] == [None] * 3
