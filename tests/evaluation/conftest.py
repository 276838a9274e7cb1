"""A checkpoint that answers by the book, for tasks whose arithmetic is the question."""

from types import SimpleNamespace

import numpy as np
import pytest

from agent.evaluation.answering import Answer


class Scripted:
    """Answers turns from a table; its speech is the table's sound."""

    def __init__(self, said, sounds=None):
        self.said = said
        self.sounds = sounds or {}
        self.decoder = SimpleNamespace(sample_rate=16_000)

    def answer(self, turns):
        return [Answer(self.said[turn.written or turn.say], (1, 2)) for turn in turns]

    def speech(self, answer):
        return self.sounds.get(answer.text, np.ones(100, np.float32))


@pytest.fixture
def scripted():
    return Scripted


class Parrot:
    """A recogniser that hears what it is told to."""

    name = "parrot"

    def __init__(self, heard):
        self.heard = iter(heard)

    def recognise(self, audio):
        return next(self.heard)


@pytest.fixture
def parrot():
    return Parrot
