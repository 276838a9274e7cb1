"""Likelihoods of endings, on the golden language model."""

import numpy as np
import pytest

from agent.evaluation.answering import Checkpoint
from agent.evaluation.cloze import log_likelihood, run
from agent.evaluation.items import parse_item
from agent.speech.language_model import LanguageModel


@pytest.fixture(scope="module")
def model(goldens):
    return LanguageModel.from_pretrained(goldens / "language_model")


def test_each_token_is_scored_after_all_before_it(model):
    context, ending = [5, 9, 11], [7, 3]
    expected = []
    for position, token in enumerate(ending):
        row = model.logits([*context, *ending[:position]])[-1].astype(np.float64)
        expected.append(row[token] - np.log(np.exp(row).sum()))
    assert log_likelihood(model, context, ending) == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_long_ending_is_not_punished_for_its_length():
    class Even:
        def logits(self, ids):
            return np.zeros((len(ids), 8), np.float32)

    for ending in ([1], [1, 2, 3, 4, 5]):
        assert log_likelihood(Even(), [0], ending) == pytest.approx(-np.log(8))


@pytest.mark.parametrize(("context", "ending"), [([], [1]), ([1], [])])
def test_nothing_has_no_likelihood(model, context, ending):
    with pytest.raises(ValueError, match="must both have tokens"):
        log_likelihood(model, context, ending)


def item(goldens, **fields):
    sounds = goldens / "wav"
    whole = {
        "id": "1",
        "set": "s",
        "context": "speech_1s7.flac",
        "right": {"audio": "speech_0s3.flac", "text": "yes"},
        "wrong": {"audio": "exact_0s8.flac", "text": "no"},
    }
    return parse_item("cloze", whole | fields, sounds, "here")


@pytest.mark.parametrize("prompt", ["plain", "dialogue"])
def test_an_item_with_sound_and_text_is_scored_both_ways(goldens, prompt):
    sounds = {k: {"audio": "speech_1s7.flac", "text": k} for k in ("right", "wrong")}
    result = run(Checkpoint(goldens), [item(goldens, prompt=prompt, **sounds)])
    assert [figure.name for figure in result.figures] == [
        "accuracy_speech_to_speech",
        "accuracy_speech_to_text",
    ]
    scores = result.items[0]["log_likelihood"]
    assert all(score < 0.0 for pair in scores.values() for score in pair)
    if prompt == "plain":
        # The same recording twice is a tie, and a tie is half right.
        assert result.figures[0].value == 50.0


def test_what_an_item_lacks_is_said(goldens):
    result = run(Checkpoint(goldens), [item(goldens, context=None)])
    assert [figure.name for figure in result.figures] == ["accuracy_speech_to_speech"]
    assert "S→T not measured for 1 of 1 items" in result.notes[0]


def test_speech_that_ends_before_its_text_is_left_out(goldens):
    long = {"audio": "speech_0s3.flac", "text": "a text of many words " * 20}
    result = run(Checkpoint(goldens), [item(goldens, prompt="dialogue", right=long, wrong=long)])
    assert [figure.name for figure in result.figures] == ["accuracy_speech_to_text"]
    assert "long enough for their texts" in result.notes[0]
