import numpy as np
import pytest

from agent.training.data import Corpus
from agent.training.shards import ShardWriter


@pytest.fixture
def corpus(tmp_path, write_corpus):
    samples = np.arange(-500, 500, dtype=np.int16)
    agent = {"role": "agent", "voice": "slt", "text": "Yes.", "canonical": True, "style": "slow"}
    return write_corpus(
        tmp_path,
        [
            (agent | {"phones": [["y", 0.01], ["s", 0.025]]}, samples[:400]),
            ({"text": "No.", "voice": "rms", "saying": "no"}, samples[400:]),
        ],
    )


def test_audio_is_scaled_and_belongs_to_its_utterance(corpus):
    first, second = corpus[0], corpus[1]
    assert first.audio.dtype == np.float32
    np.testing.assert_array_equal(first.audio * 32768, np.arange(-500, -100))
    np.testing.assert_array_equal(second.audio * 32768, np.arange(-100, 500))
    assert first.phones == (("y", 0.01), ("s", 0.025))
    assert second.phones is None
    assert first.canonical
    assert not second.canonical
    assert (first.style, second.style) == ("slow", None)
    assert (first.saying, second.saying, second.language) == (None, "no", "en")


def test_what_is_known_without_audio_differs_from_the_index(corpus):
    assert corpus.indices(role="caller") == [1]
    assert corpus.indices(role="caller", split="held_out") == []
    assert corpus.seconds(1) == 600 / 16000
    assert (corpus.text(0), corpus.voice(1)) == ("Yes.", "rms")
    assert [corpus.field(index, "saying") for index in (0, 1)] == [None, "no"]
    assert corpus.field(1, "unheard of") is None
    assert corpus.styles() == ["slow"]
    assert corpus.of_voices(["rms", "slt"], "train") == [1, 0]
    assert corpus.of_voices(["rms"], "held_out") == []
    assert corpus.phone_names() == ["s", "y"]


def test_an_utterance_without_text_is_used(tmp_path, corpus):
    writer = ShardWriter(tmp_path)
    fields = {"split": "train", "role": "cover", "voice": "slt", "seen_voice": True}
    writer.add({"id": "dumb", **fields})
    again = Corpus(tmp_path)
    assert (len(again), again.skipped) == (2, 1)
