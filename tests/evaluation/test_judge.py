import math

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the judge's recogniser comes with the extra 'train'")

from agent.evaluation.command import DOMAIN_FILE, NANO_SET
from agent.evaluation.judge import Judge, trigram_model


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
    # The recogniser takes four times as long to load a model of two sentences.
    judge = Judge((NANO_SET / DOMAIN_FILE).read_text("utf-8").splitlines())
    assert judge.recognise(np.zeros(16000, np.float32)) == ""
    assert judge.recognise(np.zeros(0, np.float32)) == ""
