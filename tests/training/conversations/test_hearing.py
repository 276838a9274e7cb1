"""Callers' recordings as codes: what a call would give, whatever else is tokenised with them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.speech import SpeechTokenizer
from agent.training.conversations import hear
from agent.training.data import Corpus


def test_codes_are_those_that_an_utterance_has_alone(
    goldens: Path, tmp_path: Path, write_corpus: Callable[..., Corpus]
) -> None:
    rng = np.random.default_rng(0)
    lengths = [16_000 + 300 * number for number in range(24)]
    noise = [({}, rng.normal(0, 3000, length).astype(np.int16)) for length in lengths]
    corpus = write_corpus(tmp_path, noise)
    tokenizer = SpeechTokenizer.from_pretrained(goldens / "speech_tokenizer")
    together = dict(hear(corpus, range(24), tokenizer, seed=1))
    assert sorted(together) == list(range(24))
    assert len({len(codes) for codes in together.values()}) < 20
    for index, codes in together.items():
        ((_, alone),) = hear(corpus, [index], tokenizer, seed=1)
        assert codes.tolist() == alone.tolist()
