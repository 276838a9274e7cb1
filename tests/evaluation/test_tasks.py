"""What tasks make of answers, with a checkpoint that answers by the book."""

from pathlib import Path

import numpy as np
import pytest

from agent.evaluation import chat, latency, speech_tasks, style
from agent.evaluation.answering import Checkpoint, Sampling
from agent.evaluation.hearing import Hearing
from agent.evaluation.items import parse_item


def items(task, *values):
    here = Path(__file__).parent
    return [
        parse_item(task, {"id": str(i), "set": "s", **value}, here, "here")
        for i, value in enumerate(values)
    ]


def figures(result):
    return {figure.name: figure.value for figure in result.figures}


def question(text, *answers, **more):
    return {"question": {"text": text}, "answers": list(answers), **more}


def test_a_right_text_may_be_a_wrong_sound(scripted, parrot):
    checkpoint = scripted({"a": "It is Paris.", "b": "Rome"})
    asked = items("qa", question("a", "Paris"), question("b", "Rome", "Roma"))
    hearing = Hearing(checkpoint, parrot(["it is harris", "rome"]))
    result = speech_tasks.question_answering(checkpoint, asked, hearing)
    assert figures(result) == {
        "accuracy_text": 100.0,
        "accuracy_text_exact": 50.0,
        "accuracy_speech": 50.0,
    }
    assert result.items[0]["heard"] == "it is harris"


def test_without_a_recogniser_the_report_says_so(scripted):
    checkpoint = scripted({"a": "Paris", "b": "b"})
    hearing = Hearing(checkpoint, None, missing="it is not installed")
    result = speech_tasks.question_answering(checkpoint, items("qa", question("a", "x")), hearing)
    assert "accuracy_speech" not in figures(result)
    assert result.notes == ["s: No recogniser: it is not installed."]
    spoken = speech_tasks.speaking(checkpoint, items("tts", {"text": "b"}), hearing)
    assert not spoken.ran
    assert "it is not installed" in spoken.notes[0]


def test_an_english_recogniser_is_not_asked_for_mandarin(scripted, parrot):
    checkpoint = scripted({"yes": "yes", "好": "好"})
    hearing = Hearing(checkpoint, parrot(["yes"]), languages=("en",))
    texts = items("tts", {"text": "yes"}, {"text": "好", "language": "zh"})
    result = speech_tasks.speaking(checkpoint, texts, hearing)
    assert [figure.count for figure in result.figures] == [1, 1]
    assert "s: The recogniser (parrot) does not know the language zh." in result.notes


def test_words_and_characters_of_what_is_heard_are_counted(scripted, parrot):
    checkpoint = scripted({"one two": "one two", "你好": "你好"})
    hearing = Hearing(checkpoint, parrot(["one three", "你 好 吗"]))
    texts = items("tts", {"text": "one two"}, {"text": "你好", "language": "zh", "set": "z"})
    result = speech_tasks.speaking(checkpoint, texts, hearing)
    assert {(f.set, f.name): f.value for f in result.figures} == {
        ("s", "wer"): 50.0,
        ("s", "cer"): pytest.approx(100 / 3),  # "1 2" and "1 3", as numbers
        ("z", "cer"): 50.0,
    }


def test_a_checkpoint_without_a_transcription_prompt_is_not_asked(goldens):
    spoken = items("asr", {"audio": str(goldens / "wav" / "speech_1s7.flac"), "text": "x"})
    result = speech_tasks.recognition(Checkpoint(goldens), spoken)
    assert not result.ran
    assert "transcription_prompt" in result.notes[0]


class Judge:
    name = "judge"

    def rate(self, question, answer):
        if answer == "broken":
            raise RuntimeError("no rating")
        return 4.0

    def correct(self, question, answer, known):
        return answer in known


def test_the_judge_reads_what_was_heard_and_may_fail(scripted, parrot):
    checkpoint = scripted({"a": "good answer", "b": "Ann", "c": "fine"})
    asked = items("chat", question("a"), question("b", "Anne"), question("c"))
    hearing = Hearing(checkpoint, parrot(["good answer", "Anne", "broken"]))
    result = chat.run(checkpoint, asked, hearing, Judge())
    assert figures(result) == {
        "quality": 4.0,
        "knowledge": 10.0,
        "speech_against_text": 50.0,
    }
    assert "s: the judge failed on 1 of 3 answers." in result.notes


def test_nobody_to_judge_is_said(scripted):
    checkpoint = scripted({"a": "yes"})
    hearing = Hearing(checkpoint, None, missing="none")
    result = chat.run(checkpoint, items("chat", question("a")), hearing, None)
    assert not result.ran
    assert any("--judge-url" in note for note in result.notes)


def tone(hertz, seconds, loudness=0.1):
    time = np.arange(round(16_000 * seconds)) / 16_000
    return (loudness * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_style_counts_the_right_direction_only_if_it_can_be_heard(scripted):
    checkpoint = scripted(
        {"p": "one two three", "slow": "one, two, three!", "same": "one two three", "hi": "one"},
        {
            "one, two, three!": tone(100, 2.0),
            "one two three": tone(100, 1.0),
            "one": tone(150, 1.0),
        },
    )
    plain = {"text": "p"}
    pairs = items(
        "style",
        {"plain": plain, "styled": {"text": "slow"}, "expect": {"rate": "lower"}},
        {"plain": plain, "styled": {"text": "same"}, "expect": {"rate": "lower"}},
        {"plain": plain, "styled": {"text": "hi"}, "expect": {"pitch": "higher"}},
        {"plain": plain, "styled": {"text": "slow"}, "expect": {"pitch": "higher"}},
    )
    found = figures(style.run(checkpoint, pairs))
    assert found["obeyed_rate"] == 50.0
    assert found["obeyed_pitch"] == 50.0
    assert found["change_pitch"] == pytest.approx(0.5 * 12 * np.log2(1.5), rel=0.02)
    assert found["words_kept"] == 75.0


def test_a_silent_answer_has_no_style(scripted):
    checkpoint = scripted({"p": "one", "s": ""}, {"": np.zeros(0, np.float32)})
    pair = {"plain": {"text": "p"}, "styled": {"text": "s"}, "expect": {"rate": "lower"}}
    result = style.run(checkpoint, items("style", pair))
    assert not result.ran
    assert "1 of 1 pairs had no speech" in result.notes[0]


class Ticks:
    """A clock that is a second further each time it is asked."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        self.now += 1.0
        return self.now


def test_the_parts_of_a_latency_add_up(goldens):
    sound = str(goldens / "wav" / "speech_1s7.flac")
    checkpoint = Checkpoint(goldens, sampling=Sampling(max_new_tokens=90))
    result = latency.run(checkpoint, items("latency", {"audio": sound}), Ticks())
    (times,) = result.items
    if "total" in times:
        parts = sum(times[part] for part in latency.PARTS)
        assert times["total"] == pytest.approx(parts, abs=1.5)
    else:
        assert "had no speech" in result.notes[0]
    assert times["tokenise"] == 1.0
