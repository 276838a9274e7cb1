"""A corpus file and what is made of it; and the two that ship."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

import agent.nano
from agent.evaluation.text import units
from agent.training.line import read_line, unheard_words
from agent.training.voices import STYLES

NANO = Path(agent.nano.__path__[0])

SHOP = """
name: Shop
phrasings: 20
renderings: 2
values: {DAY: [Monday, Friday], TIME: [morning, evening], COLOUR: [red, blue]}
depending: {SHADES: {red: pink and rose, blue: navy}}
styles: {slow: [Speak slowly.]}
tools: [{name: book}, {name: stock}]
sayings:
  day: {train: "on DAY\\n{so then|then so} DAY", held_out: "So on DAY, then?", phrasings: 2}
  time: {train: "{in the|} TIME", held_out: "Then so TIME?", renderings: 5}
intents:
  - {name: greet, instruction: Greet the caller., answer: Shop here.}
  - {name: book, train: "book me in", held_out: "Book me in?", answer: Which day.}
  - {name: book_day, after: book, says: day, answer: "DAY, and when?"}
  - name: book_time
    after: book_day
    says: time
    answer: You are booked for DAY TIME.
    tool:
      before: One moment.
      call: {book: {day: DAY, time: at TIME}}
      results: {done: Booked for DAY TIME., full: No DAY left.}
  - {name: move_day, says: day, answer: Moved to DAY.}
  - name: paint
    train: do you have COLOUR paint?
    answer: "COLOUR we have, also SHADES."
    tool:
      call: {stock: {paint: COLOUR}}
      results: {DAY in the TIME: "COLOUR comes on DAY TIME.", none: No SHADES either.}
  - {name: slower, train: slowly, answer: Very well., style: slow}
"""


def read(tmp_path, text, seed=0):
    path = tmp_path / "corpus.yaml"
    path.write_text(text, encoding="utf-8")
    return read_line(path, seed)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return read(tmp_path_factory.mktemp("shop"), SHOP)


def test_values_get_sayings_and_intents_of_their_own(shop):
    assert set(shop.sayings) == {
        "day:Monday", "day:Friday", "time:morning", "time:evening", "book", "paint:red",
        "paint:blue", "slower",
    }  # fmt: skip
    assert set(shop.sayings["day:Friday"].train) < {
        "On Friday.", "So then Friday.", "Then so Friday."
    }  # fmt: skip
    assert shop.sayings["day:Friday"].held_out == ("So on Friday, then?",)
    assert set(shop.sayings["time:morning"].train) == {"In the morning.", "Morning."}
    assert Counter(intent.kind for intent in shop.intents.values()) == {
        "greet": 1, "book": 1, "book_day": 2, "book_time": 4, "move_day": 2, "paint": 2, "slower": 1
    }  # fmt: skip
    assert shop.values == ("Monday", "Friday", "morning", "evening", "red", "blue")


def test_a_turn_that_goes_on_forgets_the_value_before(shop):
    intent = shop.intents["book_time:Friday:morning"]
    assert (intent.after, intent.says) == ("book_day:Friday", "time:morning")
    assert intent.answer == "You are booked for Friday morning."
    assert intent.tool is not None
    assert intent.tool.before == "One moment."
    assert (intent.tool.name, intent.tool.arguments) == (
        "book",
        {"day": "Friday", "time": "at morning"},
    )
    assert intent.tool.results == (
        ("done", "Booked for Friday morning."),
        ("full", "No Friday left."),
    )
    assert shop.intents["book_day:Friday"].after == "book"
    asked = {intent.name for intent in shop.asked_by("day:Friday")}
    assert asked == {"book_day:Friday", "move_day:Friday"}


def test_what_follows_from_a_value_is_another_values(shop):
    assert shop.intents["paint:red"].answer == "red we have, also pink and rose."
    assert shop.intents["paint:blue"].answer == "blue we have, also navy."


def test_a_result_with_values_nobody_has_named_is_one_result(shop):
    tool = shop.intents["paint:blue"].tool
    assert tool is not None
    assert tool.before == "blue we have, also navy."  # the answer, where nothing else is said
    assert tool.results == (
        ("Monday in the morning", "blue comes on Monday morning."),
        ("Monday in the evening", "blue comes on Monday evening."),
        ("Friday in the morning", "blue comes on Friday morning."),
        ("Friday in the evening", "blue comes on Friday evening."),
        ("none", "No navy either."),
    )
    said = shop.texts()
    assert {text for _, text in tool.results} <= set(said)
    assert len(set(said)) == len(said)


def test_phrasings_and_renderings_of_a_saying_are_the_files(shop):
    assert len(shop.sayings["day:Monday"].train) == 2  # as many as templates
    counts = {name: saying.renderings for name, saying in shop.sayings.items()}
    assert counts["time:evening"] == 5
    assert counts["day:Monday"] == counts["book"] == 2


def test_an_opener_makes_a_sentence_that_is_held_out(tmp_path):
    text = """
openers: ["Hi,"]
opener_share: 1.0
intents:
  - {name: hours, train: "{when|are} you in", held_out: "Hi, when you in?", answer: At eight.}
"""
    assert set(read(tmp_path, text).sayings["hours"].train) == {
        "When you in.",
        "Hi, are you in.",
    }


def test_values_in_held_out_templates_alone_are_left_as_they_stand(tmp_path):
    text = """
values: {DAY: [Monday, Friday]}
intents: [{name: open, train: "are you open?", held_out: "Open on DAY?", answer: We are.}]
"""
    line = read(tmp_path, text)
    assert line.sayings["open:Friday"].held_out == ("Open on Friday?",)
    assert line.intents["open:Friday"].says == "open:Friday"


def test_mandarin_words_and_stops_are_english(tmp_path):
    text = """
language: zh
openers: ["你好，"]
opener_share: 1.0
values: {DAY: [星期一, 星期五]}
intents:
  - name: book
    train: "{我想|我要}DAY来\\nDAY{可以|行}吗？"
    held_out: DAY行吧？
    answer: 好的DAY见。
"""
    line = read(tmp_path, text)
    assert set(line.sayings["book:星期五"].train) == {
        "你好，我想星期五来。", "你好，我要星期五来。", "你好，星期五可以吗？", "你好，星期五行吗？"
    }  # fmt: skip
    assert line.intents["book:星期一"].answer == "好的星期一见。"
    assert unheard_words(line) == {"吧"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("answer: Which", "anser: Which", "field 'corpus.intents.1.anser' is unknown"),
        ("answer: Which day.", "after: greet", "field 'corpus.intents.1.answer' is missing"),
        ("says: time", "says: tme", "intent 'book_time': 'says' names 'tme', which is no s"),
        ("after: book_day", "after: move_day", "'after' names 'move_day', which is no intent"),
        ('train: "book me in"', 'train: ""', "intent 'book': needs one of 'train', 'says' and"),
        ("style: slow", "style: loud", "intent 'slower': 'style' names 'loud', which is"),
        ("Which day.", "Which DAY.", "intent 'book': 'answer' speaks of DAY"),
        ("No DAY left", "No COLOUR left", "intent 'book_time': 'tool.results' speaks of COLOUR"),
        ("No DAY left", "No SHADES left", "intent 'book_time': 'tool.results' speaks of COLOUR"),
        ("{paint: COLOUR}", "{paint: DAY}", "intent 'paint': 'tool.call' speaks of DAY"),
        ("{stock: {p", "{shop: {p", r"'tool.call' has \['shop'\], expected one of the"),
        ("COLOUR}}", "COLOUR}, book: {}}", r"'tool.call' has \['stock', 'book'\]"),
        ("name: move_day", "name: book", "intent 'book': there are two"),
        (", blue: navy", "", "field 'depending.SHADES' is not for all values of one name"),
        ("{in the|}", "{in the|", "unbalanced braces in template '{in the| morning'"),
        ("language", "language", "field 'corpus.language' is wrong"),
    ],
)  # fmt: skip
def test_a_mistake_is_not_named(tmp_path, before, after, message):
    text = SHOP + "language: fr\n" if before == "language" else SHOP.replace(before, after, 1)
    assert text != SHOP
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_the_seed_changes_nothing(tmp_path, shop):
    many = SHOP.replace("train: slowly", 'train: "{a|b|c|d|e} {f|g|h|i|j} {k|l|m|n|o}"')
    assert read(tmp_path, many) == read(tmp_path, many)
    assert read(tmp_path, many) != read(tmp_path, many, seed=1)
    assert read(tmp_path, many).sayings["book"] == shop.sayings["book"]


@pytest.fixture(scope="module", params=["corpus", "corpus_zh"])
def line(request):
    return read_line(NANO / f"{request.param}.yaml")


def test_a_sentence_is_said_for_two_things_or_held_out_and_trained_on(line):
    owner, trained = {}, set()
    for saying in line.sayings.values():
        for text in (*saying.train, *saying.held_out):
            assert owner.setdefault(tuple(units(text, line.language)), saying.name) == saying.name
        trained |= {tuple(units(text, line.language)) for text in saying.train}
    for saying in line.sayings.values():
        assert saying.held_out
        assert not trained & {tuple(units(text, line.language)) for text in saying.held_out}


def test_held_out_words_are_never_heard_in_training(line):
    assert unheard_words(line) == set()


def test_a_name_of_a_value_or_a_digit_is_said(line):
    names = yaml.safe_load((NANO / "corpus.yaml").read_text())
    capitals = [*names["values"], *names["depending"]]
    said = [*line.texts()]
    said += [text for s in line.sayings.values() for text in (*s.train, *s.held_out)]
    for text in said:
        assert not any(name in text for name in capitals), text
        assert not any(character.isdigit() or character in "{|}" for character in text), text


def test_two_things_have_one_answer_or_nothing_asks_for_one(line):
    intents = line.intents.values()
    assert len({intent.answer for intent in intents}) == len(intents)
    for intent in intents:
        assert intent.says in line.sayings or intent.instruction, intent.name
    assert all(line.asked_by(saying) for saying in line.sayings)
    assert sum(intent.instruction is not None for intent in intents) == 1


def test_a_value_cannot_be_reached_from_the_start_of_a_call(line):
    """Every way through a call ends in an answer with the values that were named on it."""
    ways = []
    for intent in line.intents.values():
        names = intent.name.split(":")[1:]
        way = [intent]
        while way[0].after:
            way.insert(0, line.intents[way[0].after])
        assert way[0].says or way[0].instruction
        said = [
            value for step in way if step.says for value in step.says.split(":")[1:]
        ]  # named by the caller, in order
        assert sorted(said) == sorted(names)
        ways.append(way)
        if intent.kind in ("book_time", "move_day", "doctor"):
            assert all(name in intent.answer for name in names)
    used = {value for intent in line.intents.values() for value in intent.name.split(":")[1:]}
    assert used == set(line.values)
    assert len({way[-1].kind for way in ways}) >= 15
    assert {way[-1].kind for way in ways if len(way) > 1} >= {"book_time", "move_day"}


def test_a_style_cannot_be_spoken_or_a_tool_has_arguments_it_does_not_take(line):
    assert set(line.styles) <= set(STYLES)
    assert {i.style for i in line.intents.values() if i.style} == set(line.styles)
    tools = {tool["name"]: tool["parameters"] for tool in line.tools}
    used = [intent.tool for intent in line.intents.values() if intent.tool]
    assert {tool.name for tool in used} == set(tools)
    for tool in used:
        assert set(tool.arguments) == set(tools[tool.name]["properties"])
        assert set(tools[tool.name]["required"]) <= set(tool.arguments)
        assert len(tool.results) > 1
