"""One file, several calls: variables, rows and paraphrases."""

import re

import pytest
import yaml

from telephony.simulator.expansion import expand


def lines(scenarios):
    return [[turn["say"] for turn in scenario["turns"]] for scenario in scenarios]


def content(**fields):
    return {"name": "call", "turns": [{"say": "Hello."}], **fields}


def test_a_file_without_any_of_it_stays_as_it_is(tmp_path):
    assert expand(content(), tmp_path) == [content()]


def test_variables_are_filled_in_everywhere(tmp_path):
    scenario = content(
        name="call of ${who}",
        variables={"who": "Ann", "wait": 900},
        turns=[
            {"say": "I am ${who}.", "when": {"after_agent": {"silence_ms": "${wait}"}}},
            {"say": "Bye.", "expect": {"words": ["goodbye ${who}"]}},
        ],
    )

    (filled,) = expand(scenario, tmp_path)

    assert filled["name"] == "call of Ann"
    assert filled["turns"][0]["say"] == "I am Ann."
    assert filled["turns"][0]["when"] == {"after_agent": {"silence_ms": "900"}}
    assert filled["turns"][1]["expect"] == {"words": ["goodbye Ann"]}


def test_each_row_of_a_table_is_a_call(tmp_path):
    (tmp_path / "callers.csv").write_text('name,day\nAnn,Monday\n"Bo, jr.",Friday\n')
    scenario = content(data="callers.csv", turns=[{"say": "${name} for ${day} at ${time}."}])
    scenario["variables"] = {"time": "nine", "day": "Sunday"}

    calls = expand(scenario, tmp_path)

    assert lines(calls) == [["Ann for Monday at nine."], ["Bo, jr. for Friday at nine."]]
    assert [call["name"] for call in calls] == ["call / Ann", "call / Bo, jr."]


def test_rows_may_be_written_in_the_file_itself(tmp_path):
    calls = expand(content(data=[{"n": 1}, {"n": 2}], turns=[{"say": "${n}"}]), tmp_path)

    assert lines(calls) == [["1"], ["2"]]
    assert [call["name"] for call in calls] == ["call / row 1", "call / row 2"]


def test_paraphrases_are_the_same_for_the_same_seed_and_differ_among_themselves(tmp_path):
    say = "{Hi|Hello|Good {morning|evening}}, {please|} book me{ a visit| in}."

    def draw(seed):
        wanted = {"count": 5, "seed": seed}
        return lines(expand(content(paraphrases=wanted, turns=[{"say": say}]), tmp_path))

    first = draw(1)
    assert first == draw(1)
    assert first != draw(2)
    assert len({tuple(call) for call in first}) == 5
    for (text,) in first:
        assert not set("{|}") & set(text)
        assert "  " not in text


def test_no_more_paraphrases_than_there_are(tmp_path):
    calls = expand(content(paraphrases=9, turns=[{"say": "{One|Two}."}]), tmp_path)

    assert sorted(lines(calls)) == [["One."], ["Two."]]
    assert [call["name"] for call in calls] == ["call / 1", "call / 2"]


def test_braces_elsewhere_are_no_choices(tmp_path):
    turn = {"say": "{A|B}", "expect": {"matches": "x{2,3}|{y|z}"}}

    (call,) = expand(content(turns=[turn]), tmp_path)

    assert call["turns"][0]["expect"]["matches"] == "x{2,3}|{y|z}"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ("turns: [{say: '${day}'}]", "say: no variable named 'day', there are: none"),
        ("data: missing.csv", "missing.csv"),
        ("data: short.csv", "row 1 has not as many fields"),
        ("data: []", "data: no rows"),
        ("paraphrases: 3", "no line has choices"),
        ("paraphrases: {count: 0}", "paraphrases.count"),
        ("variables: {a: [1]}", "variables.a"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, fields, named):
    (tmp_path / "short.csv").write_text("a,b\n1\n")
    with pytest.raises(ValueError, match=re.escape(named)):
        expand(content(**yaml.safe_load(fields)), tmp_path)
