"""The learnt text tokenizer is one that the language model's own reader understands."""

import pytest

from agent.speech.text_tokenizer import TextTokenizer
from agent.training import byte_pairs

TEXTS = ["The clinic is open today.", "Is the clinic open?", "The clinic, please."] * 3


@pytest.fixture
def tokenizer(tmp_path):
    tokens = byte_pairs.learn(TEXTS, 300)
    size = byte_pairs.write(tokens, 16, tmp_path, seq_length=64)
    tokenizer = TextTokenizer.from_pretrained(tmp_path)
    assert tokenizer.size == size
    return tokenizer


def test_layout_is_not_the_published_one(tokenizer):
    """Text, then the special tokens in their order, then the speech codes."""
    assert tokenizer.special("<|endoftext|>") == tokenizer.audio_offset - len(byte_pairs.SPECIAL)
    assert tokenizer.special("<|user|>") - tokenizer.special("<|endoftext|>") == 7
    assert tokenizer.audio_offset + 16 == tokenizer.size
    assert tokenizer.audio_count == 16


def test_frequent_word_takes_many_tokens(tokenizer):
    assert len(tokenizer.encode_plain(" clinic")) == 1
    assert len(tokenizer.encode_plain(" zebra")) == 6


@pytest.mark.parametrize("text", ["Naïve 你好 😀\n\n  x  ", *TEXTS])
def test_text_is_lost(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text


def test_order_of_texts_changes_the_tokens():
    assert byte_pairs.learn(TEXTS, 300) == byte_pairs.learn(TEXTS[::-1], 300)


def test_learning_goes_on_without_pairs():
    tokens = byte_pairs.learn(["ab"], 1000)
    assert tokens[256:] == [b"ab"]
