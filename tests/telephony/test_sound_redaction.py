"""What is silenced in a recording, by the events of its call."""

import pytest

from telephony.records.redaction import Redaction
from telephony.sound_redaction import SoundRedaction


class Record:
    def __init__(self):
        self.names = []

    def event(self, name, /, **fields):
        self.names.append(name)


class Tape:
    def __init__(self):
        self.seconds = 0.0
        self.silenced = []

    def redact(self, side, since, until):
        self.silenced.append((side, since, until))


class Call:
    """A call whose events come at given seconds of its recording."""

    def __init__(self, redaction, hides=lambda text: False):
        self.record, self.tape = Record(), Tape()
        self.heard = SoundRedaction(self.record, redaction, hides, self.tape)

    def at(self, seconds, name, /, **fields):
        self.tape.seconds = seconds
        self.heard.event(name, **fields)

    def says(self, turn, since, until, text=""):
        self.at(since, "caller_speech_started")
        self.at(until, "turn_decided", turn=turn)
        if text:
            self.at(until + 2, "caller_text", turn=turn, text=text)

    def answers(self, turn, since, until, *texts):
        self.at(since, "answer_started", turn=turn)
        for text in texts:
            self.at(since + 0.1, "agent_text", turn=turn, text=text)
        self.at(until, "heard", turn=turn, text="".join(texts))


@pytest.fixture
def cards():
    return Call(Redaction(frozenset({"cards"})))


def test_a_turn_with_a_card_number_is_silenced_and_no_other(cards):
    cards.says(1, 3.0, 5.0, "When are you open?")
    cards.answers(1, 5.0, 8.0, "From eight to six.")
    cards.says(2, 10.0, 14.0, "It is 4111 1111 1111 1111.")
    assert cards.tape.silenced == [("caller", 9.0, 14.0)]


def test_an_answer_that_repeats_the_number_is_silenced_once_it_was_heard(cards):
    cards.answers(1, 5.0, 12.0, "Is it 4111 1111 ", "1111 1111?")
    cards.answers(2, 13.0, 14.0, "Thank you.")
    assert cards.tape.silenced == [("agent", 5.0, 12.0)]


def test_what_a_tool_shows_to_be_private_is_silenced_before_and_after():
    call = Call(Redaction(private=("name",)))
    call.says(1, 2.0, 4.0, "I am Ann Marsh.")
    call.answers(1, 4.0, 6.0, "Hello Ann Marsh.")
    # Of this turn the model has written nothing down.
    call.says(2, 8.0, 9.0)
    call.at(9.5, "tool_call", turn=2, name="book", arguments={"name": "Ann Marsh"}, call_id="a")
    call.answers(3, 10.0, 12.0, "Booked for Ann Marsh.")
    call.answers(4, 13.0, 14.0, "Goodbye.")
    assert sorted(call.tape.silenced) == [
        ("agent", 4.0, 6.0),
        ("agent", 10.0, 12.0),
        ("caller", 1.0, 4.0),
        ("caller", 7.0, 9.0),
    ]


def test_what_was_typed_is_not_said_aloud_either():
    call = Call(Redaction(), hides=lambda text: "4711" in text)
    call.answers(1, 1.0, 3.0, "You typed 4711.")
    assert call.tape.silenced == [("agent", 1.0, 3.0)]


def test_every_event_reaches_the_record(cards):
    cards.says(1, 1.0, 2.0, "Hello.")
    cards.at(3.0, "call_ended", cause="caller_hung_up")
    assert cards.record.names == [
        "caller_speech_started",
        "turn_decided",
        "caller_text",
        "call_ended",
    ]
