"""A line of two languages, its callers, and a model that answers by the book."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from agent.evaluation.answering import Answer
from agent.training.evaluation.callers import Said
from agent.training.line import read_line

ENGLISH = """
name: Clinic
values: {DAY: [Monday, Friday], TIME: [morning, evening]}
styles: {slow: [Speak slowly.]}
tools: [{name: book, description: Books.}]
sayings:
  day: {train: on DAY, held_out: DAY please}
  time: {train: "in the TIME", held_out: TIME please}
intents:
  - {name: greet, instruction: Greet the caller., answer: Hello.}
  - {name: book, train: book me, held_out: book me please, answer: Which day would you like.}
  - {name: book_day, after: book, says: day, answer: "DAY, and at what time."}
  - name: book_time
    after: book_day
    says: time
    answer: "You are now booked in here for DAY TIME, thank you."
    tool:
      before: One moment please.
      call: {book: {day: DAY, time: TIME}}
      results: {done: It is DAY TIME., full: We are full.}
  - {name: move, train: move it, held_out: move it please, answer: To which day would you move it.}
  - {name: move_day, after: move, says: day, answer: Moved to DAY.}
  - {name: slower, train: slowly, held_out: slow down, answer: Very well., style: slow}
  - {name: nurse, train: a nurse, held_out: the nurse, answer: I will get you a nurse.}
  - {name: fallback, train: the weather, held_out: the rain, answer: I only know the clinic.}
"""
MANDARIN = """
name: 诊所
language: zh
intents:
  - {name: greet, instruction: 问候来电者。, answer: 您好。}
  - {name: hours, train: 几点开门, held_out: 开门吗, answer: 我们早上八点到晚上六点开门。}
"""


@pytest.fixture(scope="session")
def lines(tmp_path_factory):
    found = []
    for text in (ENGLISH, MANDARIN):
        path = tmp_path_factory.mktemp("line") / "corpus.yaml"
        path.write_text(text, encoding="utf-8")
        found.append(read_line(path))
    return found


@pytest.fixture(scope="session")
def english(lines):
    return lines[0]


@pytest.fixture(scope="session")
def say():
    """Makes a recording whose only code is a number of its own."""
    number = iter(range(1, 10_000))

    def made(saying, voice="rms", seen=True, language="en", text=None):
        return Said(
            voice,
            seen,
            language,
            saying,
            saying if text is None else text,
            np.array([next(number)]),
        )

    return made


@dataclass
class Book:
    """Stands for a model: answers by the codes of a turn, and remembers what it was asked.

    Attributes:
        said: For each code what is answered; silence for others.
        asked: Calls, of each turn its code and its request.
    """

    said: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def __call__(self, model, calls):
        found = []
        for turns in calls:
            self.asked.append([(int(codes[0]), request) for codes, request in turns])
            found.append([self.said.get(code, Answer("", ())) for code, _ in self.asked[-1]])
        return found


@pytest.fixture
def book():
    return Book()
