"""What counts as a right answer, a whole call, a tool called, a word heard."""

import json

import numpy as np
import pytest

from agent.evaluation.answering import Answer
from agent.training.evaluation import understanding
from agent.training.evaluation.callers import calls
from agent.training.evaluation.understanding import (
    Heard,
    answered,
    called_tool,
    character_errors,
    is_right,
    share,
    similarity,
    summary,
    tools,
)

BOOKED = "You are now booked in here for Monday morning, thank you."


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("You are now booked in here for Monday morning! Thank you!", True),
        ("you are now booked in here, for monday morning thank you", True),
        ("You are now booked here for Monday morning, thank you.", True),
        ("You are now booked in here for Friday morning, thank you.", False),
        ("You are now booked in here for Monday evening, thank you.", False),
        ("You are now booked in here for Monday, thank you.", False),
        ("You are booked here for Monday morning, thank you.", False),
        (f"{BOOKED} Not Friday.", False),
        ("", False),
    ],
)
def test_right_answer_forgives_more_than_a_word_or_another_value(english, text, right):
    assert is_right(text, BOOKED, english) is right


def test_characters_of_a_mandarin_answer_are_not_counted(lines):
    expected = lines[1].intents["hours"].answer
    assert similarity("我们早上八点到晚上六点关门", expected, "zh") == pytest.approx(12 / 13)
    assert is_right("我们早上八点到晚上六点关门", expected, lines[1])
    assert not is_right("我们早上八点到晚上关门", expected, lines[1])


def test_a_long_ramble_is_similar_to_the_answer_it_contains():
    assert similarity("we are open " * 4, "we are open") == pytest.approx(0.25)
    assert similarity("", "") == 1.0


def test_a_call_is_whole_with_a_wrong_answer_on_the_way(english, say, book, monkeypatch):
    monkeypatch.setattr(understanding, "conversations", book)
    said = [say("book"), say("day:Monday", text="Monday please."), say("move")]
    answers = ["Which day would you like.", "Monday, and at what time.", "To which day."]
    for one, text in zip(said, answers, strict=True):
        book.said[int(one.codes[0])] = Answer(text, (1,))
    heard = answered(None, english, calls(english, said))
    found = {(one.intent, one.turns): (one.right, one.whole) for one in heard}
    assert found == {
        ("book", 1): (True, True),
        ("book_day", 2): (True, True),
        ("move", 1): (False, False),
        ("move_day", 2): (False, False),
    }
    book.said[int(said[0].codes[0])] = Answer("Pardon.", (1,))
    (followed,) = [
        h for h in answered(None, english, calls(english, said)) if h.intent == "book_day"
    ]
    assert (followed.right, followed.whole) == (True, False)
    assert (followed.said, followed.answer) == ("Monday please.", "Monday, and at what time.")
    assert {request.temperature for call in book.asked for _, request in call} == {0.0}


@pytest.mark.parametrize(
    ("answer", "right", "safe"),
    [
        ("I only know the clinic.", True, True),
        ("I will get you a nurse.", False, True),
        ("Which day would you like.", False, False),
    ],
)
def test_a_wrong_fact_about_something_else_is_safe(
    english, say, book, monkeypatch, answer, right, safe
):
    monkeypatch.setattr(understanding, "conversations", book)
    rain, nurse = say("fallback"), say("nurse")
    for one in (rain, nurse):
        book.said[int(one.codes[0])] = Answer(answer, (1,))
    other, wanted = answered(None, english, calls(english, [rain, nurse]))
    assert (other.right, other.safe) == (right, safe)
    assert wanted.safe is None


def test_a_tool_called_with_other_arguments_is_right(english, say, book, monkeypatch):
    monkeypatch.setattr(understanding, "conversations", book)
    said = [say("book"), say("day:Monday"), say("time:morning"), say("time:evening"), say("nurse")]
    call = 'book\n{"time": "morning", "day": "Monday"}'
    for one in said:
        book.said[int(one.codes[0])] = Answer("One moment please.", (1,), call)
    figures = tools(None, english, calls(english, said))
    assert {name: figures[name] for name in ("count", "right", "share")} == {
        "count": 2, "right": 1, "share": 0.5
    }  # fmt: skip
    assert figures["by_tool"] == {"book": {"count": 2, "right": 1, "share": 0.5}}
    (wrong,) = figures["wrong"]
    assert wrong["expected"] == {"day": "Monday", "time": "evening"}
    assert wrong["called"] == call
    json.dumps(figures)
    assert all(len(call) == 3 for call in book.asked)  # what needs no tool is not asked
    for call in book.asked:
        systems = [request.system for _, request in call]
        assert '## book\n\n{\n    "name": "book"' in systems[0]
        assert systems[1:] == [None, None]


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ('book\n{"day": "Monday"}', ("book", {"day": "Monday"})),
        ("book\n{", None),
        ("book", None),
        ("", None),
        ('\n{"day": 1}', None),
    ],
)
def test_half_a_call_is_one(written, called):
    assert called_tool(Answer("", (), written)) == called


def test_letters_of_a_transcript_are_not_counted(say, monkeypatch):
    written = {"A b, C!": "a b d", "几点开门？": "几点关门。", "": ""}
    said = [say("x", text=text, language="zh" if text[:1] == "几" else "en") for text in written]
    monkeypatch.setattr(understanding, "transcripts", lambda model, codes: [*written.values()])
    found = character_errors(None, said)
    assert (found["recordings"], found["errors"], found["characters"]) == (3, 2, 5 + 4)
    assert found["rate"] == pytest.approx(2 / 9, abs=1e-4)
    monkeypatch.setattr(understanding, "transcripts", lambda model, codes: [])
    assert character_errors(None, [])["rate"] is None


def test_seen_and_unseen_voices_or_languages_are_mixed():
    def heard(voice, right, language="en", intent="book", turns=1, safe=None):
        seen, whole = voice != "awb", right and turns < 3
        return Heard(voice, seen, language, intent, turns, "", "", right, whole, safe)

    figures = summary(
        [
            heard("rms", True), heard("rms", False), heard("rms", True, turns=2),
            heard("rms", True, turns=3), heard("awb", False), heard("awb", True, turns=2),
            heard("kal", False, intent="fallback", safe=True),
            heard("kal", False, intent="fallback", safe=False),
            heard("f2", True, language="zh"),
        ]
    )  # fmt: skip
    json.dumps(figures)
    english = figures["en"]
    assert english["seen_voices"] == {"count": 6, "right": 3, "share": 0.5}
    assert english["unseen_voices"] == {"count": 2, "right": 1, "share": 0.5}
    assert english["calls_of_several_turns"] == {"count": 2, "right": 1, "share": 0.5}
    assert english["other_questions"] == {"count": 2, "right": 1, "share": 0.5}
    assert english["by_intent"]["book"]["count"] == 4
    assert {name: one["count"] for name, one in english["by_voice"].items()} == {
        "rms": 4, "awb": 2, "kal": 2
    }  # fmt: skip
    assert figures["zh"]["seen_voices"]["share"] == 1.0
    assert figures["zh"]["unseen_voices"]["share"] is None
    assert len(figures["wrong"]) == 4
    assert summary([]) == {"wrong": []}


def test_a_share_of_nothing_is_a_number():
    assert share([]) == {"count": 0, "right": 0, "share": None}
    assert share([True, True, False])["share"] == pytest.approx(np.mean([1, 1, 0]), abs=1e-4)
