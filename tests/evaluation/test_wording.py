"""What is compared must not depend on how a number, a date or a time was written down."""

import pytest

from agent.evaluation.moments import with_moments
from agent.evaluation.wording import says, similarity


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("6:30 p.m.", "6:30 pm"),
        ("18:30", "6:30 pm"),
        ("Six thirty in the evening.", "6:30 pm"),
        ("half past six pm", "6:30 pm"),
        ("half past six", "6:30"),
        ("6pm", "6:00 pm"),
        ("six o'clock in the morning", "6:00 am"),
        ("six oh five am", "6:05 am"),
        ("a quarter to seven in the evening", "6:45 pm"),
        ("quarter to one", "12:45"),
        ("ten minutes to six", "5:50"),
        ("open ten to six", "open 10 to 6"),
        ("12 am", "12:00 am"),
        ("00:15", "12:15 am"),
        ("noon or midnight", "12:00 pm or 12:00 am"),
        ("ten at night, two at night", "10:00 pm 2:00 am"),
        ("at 25 pm", "at 25 pm"),
        ("March 3rd, 2025", "--03-03 2025"),
        ("the third of March twenty twenty-five", "--03-03 2025"),
        ("2025-03-03", "--03-03 2025"),
        ("on the twenty-first of Sept. nineteen eighty four", "on --09-21 1984"),
        ("May the 4th at 9:00", "--05-04 at 9:00"),
        ("December thirty-first twenty oh five", "--12-31 2005"),
        ("you may come, the 40 of March", "you may come the 40 of march"),
        ("the second floor", "the #2 floor"),
        ("03/04/2025", "03 04 2025"),
    ],
)
def test_a_date_and_a_time_have_one_form(text, moment):
    assert " ".join(with_moments(text)) == moment


@pytest.mark.parametrize(
    ("text", "phrase", "said"),
    [
        ("We open at eight in the morning.", "eight", True),
        ("We open at eight in the morning.", "8:00 AM", True),
        ("We close at half past six in the evening.", "6:30", True),
        ("We close at 18:30.", "six thirty p.m.", True),
        ("We close at half past six.", "6:30 pm", False),
        ("We close at six thirty.", "6:30", True),
        ("See you on March third, 2025.", "3 March", True),
        ("It costs five dollars.", "$5", True),
        ("It costs five point five percent.", "5.50%", True),
        ("Your number is four two seven.", "427", True),
        ("Call five five five, oh one oh oh.", "555-0100", True),
        ("Call five five five, oh one oh oh.", "555-0101", False),
        ("In nineteen eighty-four.", "1984", True),
        ("A passport, please.", "port", False),
        ("anything", "?!", False),
        ("我们八点开门。", "八点", True),
        ("我们八点开门。", "open", False),
        ("我们 open 八点。", "open", True),
    ],
)
def test_a_phrase_is_found_however_it_is_written(text, phrase, said):
    assert says(text, phrase) is said


def test_texts_are_alike_however_their_numbers_are_written():
    assert similarity("Hello, there!", "hello there") == 1
    assert similarity("At half past six pm on May 4th.", "at 18:30 on the fourth of May") == 1
    assert similarity("hello there", "good bye") == 0
