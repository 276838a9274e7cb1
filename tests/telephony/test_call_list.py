"""Lists of calls: what is read, what is refused, and results that go on where they were."""

import csv

import pytest

from telephony.outbound.call_list import Entry, Result, Results, read_list

TO = "+15550100003"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "calls.csv"
        path.write_text(text)
        return path

    return write


def test_columns_become_numbers_agents_zones_and_variables(file):
    path = file(
        f'\ufeffname,to,agent,time_zone\n"Smith, Ann",{TO},reminders,Europe/Berlin\n\nBob,{TO},,\n'
    )
    assert read_list(path) == [
        Entry(1, TO, "reminders", "Europe/Berlin", {"name": "Smith, Ann"}),
        Entry(3, TO, None, None, {"name": "Bob"}),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name\nBob\n", "column to"),
        ("", "column to"),
        (f"to\n{TO}\n5550100003\n", "row 2: to: expected a number"),
        (f"to,name\n{TO}\n", "row 1: expected 2 values, got 1"),
        ("to,to\n1,2\n", "two columns"),
    ],
)
def test_what_cannot_be_called_is_named(file, text, problem):
    with pytest.raises(ValueError, match=problem):
        read_list(file(text))


def test_results_are_written_as_they_come_and_found_again(tmp_path):
    path = tmp_path / "results.csv"
    entries = [Entry(1, TO), Entry(2, "+15550100004")]
    results = Results(path, entries)
    results.add(entries[0], Result("busy", call_sid="CA1"), "2030-01-01T00:00:00+00:00")
    results.add(entries[0], Result("answered", "human", 30, "CA2"), "2030-01-01T00:10:00+00:00")
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["attempt"], row["outcome"], row["seconds"]) for row in rows] == [
        ("1", "busy", "0"),
        ("2", "answered", "30"),
    ]
    again = Results(path, entries)
    assert again.outcomes(entries[0]) == ["busy", "answered"]
    assert again.outcomes(entries[1]) == []


def test_results_of_another_list_are_not_gone_on_with(tmp_path):
    path = tmp_path / "results.csv"
    Results(path, [Entry(1, TO)]).add(Entry(1, TO), Result("busy"), "2030-01-01T00:00:00+00:00")
    with pytest.raises(ValueError, match="another list"):
        Results(path, [Entry(1, "+15550100009")])
