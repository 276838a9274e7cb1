import json

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the judge's recogniser comes with the extra 'train'")

from agent.training.evaluation import (
    Heard,
    Intelligibility,
    intelligibility,
    is_right,
    markdown,
    on_the_phone,
    report,
    similarity,
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("You are booked for Monday at nine, please bring your card.", True),
        ("you are booked for monday at nine please bring your cards", True),
        ("You are booked for Friday at nine, please bring your card.", False),
        ("You are booked at nine, please bring your card.", False),
        ("You are booked for Monday.", False),
        ("", False),
    ],
)
def test_right_answer_forgives_a_word_but_never_the_day(text, right):
    expected = "You are booked for Monday at nine. Please bring your card."
    assert is_right(text, expected) is right


def test_a_long_ramble_is_not_similar_to_the_answer_it_contains():
    assert similarity("we are open " * 4, "we are open") == pytest.approx(0.25)
    assert similarity("", "") == 1.0


def test_seen_and_unseen_voices_are_not_mixed():
    def heard(voice, seen, right):
        return Heard(voice, seen, "Hello.", "hello", "Hi.", right)

    calls = [heard("rms", True, True), heard("rms", True, False), heard("awb", False, False)]
    clear, floor = Intelligibility(3, 40, 2, 4), Intelligibility(1, 10, 0, 1)
    figures = report(calls, [True], clear, floor, distinct=2)
    json.dumps(figures)
    right = figures["right_answers"]
    assert right["seen_voices"] == {"recordings": 2, "right": 1, "share": 0.5}
    assert right["unseen_voices"]["share"] == 0.0
    assert right["by_intent_seen_voices"]["hello"]["recordings"] == 2
    assert figures["speech"]["agent"]["wer_phone"] == pytest.approx(0.1)
    assert len(figures["wrong"]) == 2
    table = markdown(figures)
    assert "| seen voices | 2 | 50.0 % |" in table
    assert "| the agent's | 40 | 5.0 % | 10.0 % |" in table


def test_nothing_measured_is_no_percentage():
    nothing = Intelligibility(0, 0, 0, 0)
    assert "| seen voices | 0 | - |" in markdown(report([], [], nothing, nothing, distinct=0))


def test_frequent_answers_weigh_more():
    class Deaf:
        def recognise(self, audio):
            return "yes" if len(audio) > 8000 else ""

    spoken = [
        ("Yes.", np.zeros(16000, np.float32), 16000, 3),
        ("No.", np.zeros(100, np.float32), 16000, 1),
    ]
    heard = intelligibility(Deaf(), spoken)
    assert (heard.utterances, heard.words, heard.wideband_errors) == (4, 4, 1)


def test_a_turn_on_the_phone_has_quiet_around_it():
    audio = on_the_phone(0.5 * np.sin(np.arange(16000) / 3).astype(np.float32))
    assert len(audio) == 16000 * 16 // 10
    assert np.abs(audio[:3000]).max() < 0.01
    assert np.abs(audio[-6000:]).max() < 0.01
