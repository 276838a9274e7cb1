"""Word errors, seams and styles of speech, on sounds that are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the judge's recogniser comes with the extra 'train'")

from agent.evaluation.answering import Answer
from agent.training.evaluation import speaking
from agent.training.evaluation.speaking import (
    Intelligibility,
    intelligibility,
    judge_of,
    seams,
    source_voice,
    streaming,
    styles,
)

RATE = 22_050
PIECE_SECONDS = 0.8


def voice(hertz, seconds):
    time = np.arange(round(RATE * seconds)) / RATE
    parts = [np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8)]
    return (0.1 * np.sum(parts, axis=0)).astype(np.float32)


class Deaf:
    """Hears "yes" in whatever lasts long enough."""

    def recognise(self, audio):
        return "yes" if len(audio) > 8000 else ""


def test_frequent_answers_weigh_no_more():
    spoken = [
        ("Yes.", np.zeros(16000, np.float32), 16000, 3),
        ("No.", np.zeros(100, np.float32), 16000, 1),
    ]
    heard = intelligibility(Deaf(), spoken)
    assert (heard.utterances, heard.words, heard.wideband_errors) == (4, 4, 1)
    assert heard.figures()["wer"] == heard.figures()["wer_phone"] == 0.25
    assert Intelligibility(0, 0, 0, 0).figures()["wer"] == 0.0


@pytest.mark.parametrize("hertz", [120, 210])
def test_a_click_at_a_border_is_not_found_or_a_smooth_sound_has_one(hertz):
    smooth = voice(hertz, 3.0)
    smooth[: RATE // 2] *= np.linspace(0, 1, RATE // 2, dtype=np.float32)
    at_borders, inside = seams(smooth, RATE)
    assert len(at_borders) == 3
    assert len(inside) > 300
    assert max(at_borders) < 2.0
    clicking = smooth.copy()
    for border in (1, 2, 3):
        clicking[round(border * PIECE_SECONDS * RATE)] += 0.3
    at_borders, inside = seams(clicking, RATE)
    assert min(at_borders) > 5.0
    # Nothing of the click is counted among the others.
    assert max(inside) == pytest.approx(max(seams(smooth, RATE)[1]))


def test_a_click_elsewhere_is_taken_for_a_seam():
    clicking = voice(120, 2.0)
    clicking[round(1.2 * RATE)] += 0.3
    at_borders, inside = seams(clicking, RATE)
    assert max(inside) > 5.0 > 2.0 > max(at_borders)


def test_borders_of_blocks_are_not_compared_with_the_same_answer_decoded_whole(monkeypatch):
    long, short = Answer("Yes yes.", (1,) * 25), Answer("Yes.", (2,) * 20)
    sounds = {answer.codes: voice(150, len(answer.codes) / 12.5) for answer in (long, short)}

    def speak(decoder, codes):
        clicking = sounds[codes].copy()
        clicking[round(PIECE_SECONDS * RATE)] += 0.3
        return clicking

    class Decoder:
        sample_rate = RATE

        def decode(self, codes):
            from torch import from_numpy

            return from_numpy(sounds[codes])

    monkeypatch.setattr(speaking, "speak", speak)
    figures = streaming(Decoder(), Deaf(), {long: 3, short: 1})
    json.dumps(figures)
    assert figures["flux_at_borders"] > 2 * figures["whole_flux_at_borders"]
    assert figures["flux_inside"] == pytest.approx(figures["whole_flux_inside"], abs=0.1)
    for way in ("streamed", "whole"):
        assert (figures[way]["utterances"], figures[way]["words"]) == (4, 7)
        assert figures[way]["wer"] == pytest.approx(3 / 7, abs=1e-4)
    nothing = streaming(Decoder(), Deaf(), {})
    assert nothing["flux_at_borders"] is None


def test_a_style_is_measured_on_other_words_or_without_its_wish(english, say, book, monkeypatch):
    questions = [say("nurse"), say("book"), say("move")]
    wishes = [say("slower"), say("slower")]
    plain = [Answer("I will get you a nurse.", (1,)), Answer("Which day.", (2,)), Answer("", ())]
    sounds = {
        (1,): voice(150, 1.0), (2,): voice(150, 1.0),
        (3,): voice(150 * 2 ** (2 / 12), 1.25), (4,): voice(150, 3.0),
    }  # fmt: skip
    slow = Answer("I will get you a nurse.", (3,))
    other = Answer("Another day.", (4,))

    def answer(model, calls):
        book(model, calls)
        found = []
        for turns in calls:
            (codes, request) = turns[-1]
            asked = [int(one.codes[0]) for one in questions].index(int(codes[0]))
            styled = len(turns) > 1 or request.system == "Speak slowly."
            found.append([Answer("Very well.", (9,))] * (len(turns) - 1))
            found[-1].append([slow, other, plain[2]][asked] if styled else plain[asked])
        return found

    monkeypatch.setattr(speaking, "conversations", answer)
    monkeypatch.setattr(speaking, "speak", lambda decoder, codes: sounds[codes])
    decoder = SimpleNamespace(sample_rate=RATE)
    figures = styles(None, decoder, english, questions, {"slow": wishes})
    assert list(figures) == ["slow, instructed", "slow, spoken"]
    for one in figures.values():
        assert one["questions"] == 3
        assert one["words_kept"] == pytest.approx(2 / 3, abs=1e-3)
        assert one["rate_percent"] == pytest.approx(-20, abs=2)
        assert one["pitch_semitones"] == pytest.approx(2, abs=0.1)
    led = [[code for code, _ in call] for call in book.asked if len(call) > 1]
    spoken = [int(wish.codes[0]) for wish in wishes]
    assert [call[0] for call in led] == [spoken[0], spoken[1], spoken[0]]
    assert list(styles(None, decoder, english, questions, {})) == ["slow, instructed"]


def test_a_change_that_cannot_be_told_counts_as_none(english, say, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    answer = Answer("I will get you a nurse.", (1,))
    monkeypatch.setattr(speaking, "conversations", lambda model, calls: [[answer]] * len(calls))
    monkeypatch.setattr(speaking, "speak", lambda decoder, codes: noise)
    figures = styles(None, SimpleNamespace(sample_rate=RATE), english, [say("nurse")], {})
    assert figures["slow, instructed"]["pitch_semitones"] is None
    assert figures["slow, instructed"]["rate_percent"] == 0.0


@pytest.fixture
def corpus(tmp_path, write_corpus):
    agent = {"role": "agent", "canonical": True, "style": "neutral"}
    fields = [
        agent | {"text": "Yes."},
        agent | {"text": "Slow.", "style": "slow"},
        agent | {"text": "是。", "language": "zh"},
        agent | {"text": "Take two.", "canonical": False},
        {"role": "cover", "text": "The quiet river."},
        {"role": "cover", "text": "河。", "language": "zh"},
    ]
    noise = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
    return write_corpus(tmp_path, [(one, noise) for one in fields])


def test_other_recordings_than_the_plain_answers_are_the_floor(corpus):
    assert source_voice(Deaf(), corpus)["words"] == 1


def test_the_judge_expects_mandarin_or_covers_as_often_as_answers(english, corpus, monkeypatch):
    monkeypatch.setattr(speaking, "Judge", list)
    expected = judge_of(english, corpus)
    assert expected.count("I will get you a nurse.") == 5
    assert expected.count("The quiet river.") == 1
    assert "河。" not in expected
