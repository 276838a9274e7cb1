"""Held-out recordings as calls: who says what after what."""

from collections import Counter

import numpy as np
import pytest

from agent.training.conversations import on_the_phone
from agent.training.evaluation.callers import calls, listen
from agent.training.line import read_line

EVERY = ("book", "day:Monday", "day:Friday", "time:morning", "time:evening", "move", "nurse")


@pytest.fixture
def said(say):
    return [say(name, voice) for voice in ("rms", "awb") for name in (*EVERY, *EVERY)]


def test_a_call_is_led_by_another_voice_or_to_another_answer(english, said):
    made = calls(english, said)
    for one in made:
        assert len({turn.voice for turn in one.turns}) == 1
        assert [turn.saying for turn in one.turns] == [intent.says for intent in one.intents]
        after = [intent.after for intent in one.intents]
        assert after == [None, *(intent.name for intent in one.intents[:-1])]
        assert one.last is one.turns[-1]
        assert one.intent is one.intents[-1]
    kinds = Counter((one.last.voice, one.intent.kind) for one in made)
    for voice in ("rms", "awb"):
        # Two recordings of each; a day may be one to book or to move to, both are asked for.
        assert kinds[voice, "book"] == kinds[voice, "nurse"] == 2
        assert kinds[voice, "book_day"] == kinds[voice, "move_day"] == 4
        # A time may be of either day: each recording of it is judged at both.
        assert kinds[voice, "book_time"] == 8
    assert {len(one.turns) for one in made} == {1, 2, 3}


def test_a_recording_never_speaks(english, said):
    made = calls(english, said)
    assert {id(one.last) for one in made} == {id(one) for one in said}
    leading = {id(turn) for one in made for turn in one.turns[:-1]}
    assert {id(one) for one in said if one.saying in ("book", "move")} <= leading


def test_a_call_begins_without_what_leads_to_it(english, say):
    alone = [say("time:morning"), say("day:Monday"), say("move"), say("book", "awb")]
    made = calls(english, alone)
    assert [(one.intent.name, len(one.turns)) for one in made] == [
        ("move_day:Monday", 2), ("move", 1), ("book", 1)
    ]  # fmt: skip


def test_what_is_said_at_many_points_is_judged_at_one_of_them_only(tmp_path, say):
    path = tmp_path / "line.yaml"
    points = "".join(
        f"\n  - {{name: p{n}, train: go to {n}, answer: A{n}.}}"
        f"\n  - {{name: q{n}, after: p{n}, says: sure, answer: B{n}.}}"
        for n in range(5)
    )
    path.write_text(f"sayings: {{sure: {{train: sure, held_out: fine}}}}\nintents:{points}")
    line = read_line(path)
    said = [say(f"p{n}") for n in range(5)] + [say("sure") for _ in range(5)]
    judged = [one.intent.name for one in calls(line, said) if one.last.saying == "sure"]
    assert Counter(judged) == {f"q{n}": 2 for n in range(5)}


def test_what_nothing_asks_for_or_another_language_makes_a_call(english, lines, say):
    said = [say("gone"), say("hours", language="zh"), say("nurse")]
    assert [one.intent.name for one in calls(english, said)] == ["nurse"]
    assert [one.intent.name for one in calls(lines[1], said)] == ["hours"]


def test_a_turn_on_the_phone_has_no_quiet_around_it():
    audio = on_the_phone(0.5 * np.sin(np.arange(16000) / 3).astype(np.float32))
    assert len(audio) == 16000 * 16 // 10
    assert np.abs(audio[:3000]).max() < 0.01
    assert np.abs(audio[-6000:]).max() < 0.01


class Counting:
    """A tokenizer that gives a turn's length in tenths of a second."""

    def encode(self, waveforms):
        return [np.array([len(audio) // 1600]) for audio in waveforms]


def test_trained_or_unheard_recordings_are_listened_to(tmp_path, write_corpus):
    noise = np.random.default_rng(0).normal(0, 3000, 32_000).astype(np.int16)
    fields = [
        {"split": "held_out", "text": "One.", "saying": "a", "voice": "awb", "seen_voice": False},
        {"split": "train", "text": "Two."},
        {"split": "held_out", "role": "agent", "text": "Three."},
        {"split": "held_out", "text": "四。", "language": "zh", "saying": "b"},
    ]
    lengths = (8_000, 8_000, 8_000, 16_000)
    corpus = write_corpus(
        tmp_path, [(f, noise[:length]) for f, length in zip(fields, lengths, strict=True)]
    )
    said = listen(corpus, Counting())
    assert [(one.text, one.language, one.saying) for one in said] == [
        ("One.", "en", "a"), ("四。", "zh", "b")
    ]  # fmt: skip
    assert [(one.voice, one.seen) for one in said] == [("awb", False), ("beep", True)]
    assert [one.codes.tolist() for one in said] == [[11], [16]]
    assert [one.text for one in listen(corpus, Counting(), limit=1)] == ["One."]
