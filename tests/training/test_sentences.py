from pathlib import Path

import agent.nano
from agent.training.sentences import SentenceGenerator

WORDS = Path(agent.nano.__path__[0]) / "words.yaml"


def test_same_seed_gives_the_same_sentences():
    first, second = (SentenceGenerator.from_file(WORDS, seed=3) for _ in range(2))
    assert [first.sentence() for _ in range(20)] == [second.sentence() for _ in range(20)]


def test_no_list_name_is_left_unfilled():
    generator = SentenceGenerator.from_file(WORDS, more=["clinic"])
    for _ in range(300):
        sentence = generator.sentence()
        assert "words" not in sentence
        tokens = [token.rstrip(",.?") for token in sentence.split()]
        assert not any(len(token) > 1 and token.isupper() for token in tokens)
        assert sentence[0].isupper()
        assert sentence[-1] in ".?"
