import math

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the judge's recogniser comes with the extra 'train'")

from agent.training.judge import (
    Judge,
    mu_law,
    phone_band,
    trigram_model,
    word_error_rate,
    word_errors,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("We are open.", "we are open", 0),
        ("we are open", "we open", 1),
        ("we are open", "we are not open", 1),
        ("we are open", "", 3),
        ("we are open", "they were closed", 3),
        ("one two three four", "two three four five", 2),
    ],
)
def test_word_errors_are_the_least_edits(reference, hypothesis, errors):
    assert word_errors(reference, hypothesis) == errors
    assert word_errors(hypothesis, reference) == errors


def test_word_error_rate_of_an_empty_reference_is_defined():
    assert word_error_rate("", "") == 0.0
    assert word_error_rate(" . ", "yes") == 1.0
    assert word_error_rate("yes", "no no no") == 3.0


def sections(model):
    grams = {}
    order = 0
    for line in model.splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
            grams[order] = {}
        elif order and "\t" in line:
            fields = line.split("\t")
            backoff = float(fields[2]) if len(fields) > 2 else 0.0
            grams[order][tuple(fields[1].split())] = (float(fields[0]), backoff)
    return grams


def probability(grams, words):
    """What a recogniser computes from an ARPA file: the longest n-gram, else back off."""
    if words in grams[len(words)]:
        return 10 ** grams[len(words)][words][0]
    backoff = grams[len(words) - 1].get(words[:-1], (0.0, 0.0))[1]
    return 10**backoff * probability(grams, words[1:])


@pytest.mark.parametrize(
    "history", [("<s>",), ("<s>", "we"), ("we", "are"), ("are",), ("are", "open"), ("us", "are")]
)
def test_probabilities_after_any_history_sum_to_one(history):
    grams = sections(trigram_model(["We are open.", "we are closed", "are you open?", "call us"]))
    vocabulary = [gram for gram in grams[1] if gram != ("<s>",)]
    total = math.fsum(probability(grams, (*history, *word)) for word in vocabulary)
    assert total == pytest.approx(1.0, abs=2e-3)


def test_model_without_words_is_refused():
    with pytest.raises(ValueError, match="no words"):
        trigram_model(["", "..."])


def test_word_outside_the_dictionary_is_named():
    with pytest.raises(ValueError, match="zzyzzyx"):
        Judge(["hello zzyzzyx"])


def test_silence_is_no_words():
    judge = Judge(["hello", "thank you"])
    assert judge.recognise(np.zeros(16000, np.float32)) == ""
    assert judge.recognise(np.zeros(0, np.float32)) == ""


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_phone_band_keeps_length_and_loses_what_a_phone_loses(rate):
    time = np.arange(rate) / rate
    kept = phone_band((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32), rate)
    assert kept.dtype == np.float32
    assert abs(len(kept) - 16000) <= 2
    assert np.sqrt((kept**2).mean()) == pytest.approx(0.354, abs=0.01)
    if rate > 8000:
        lost = phone_band((0.5 * np.sin(2 * np.pi * 5500 * time)).astype(np.float32), rate)
        assert np.sqrt((lost[200:-200] ** 2).mean()) < 0.01


def test_mu_law_error_follows_the_level():
    audio = np.array([0.0, 0.001, -0.01, 0.1, -1.0, 2.0], np.float32)
    heard = mu_law(audio)
    np.testing.assert_allclose(heard[1:5], audio[1:5], rtol=0.15)
    assert heard[0] == 0.0
    assert heard[5] == pytest.approx(1.0)
