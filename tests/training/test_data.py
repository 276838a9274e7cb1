import json

import numpy as np
import pytest

from agent.training.data import AUDIO_FILE, INDEX_FILE, Corpus


@pytest.fixture
def directory(tmp_path):
    samples = np.arange(-500, 500, dtype="<i2")
    (tmp_path / AUDIO_FILE).write_bytes(samples.tobytes())
    common = {"split": "train", "seen_voice": True, "intent": None}
    entries = [
        {"id": "a", "role": "agent", "voice": "slt", "text": "Yes.", "offset": 0, "samples": 400}
        | {"phones": [["y", 0.01], ["s", 0.025]], "canonical": True, **common},
        {"id": "b", "role": "caller", "voice": "rms", "text": "No.", "offset": 400, "samples": 600}
        | {"phones": None, **common},
    ]
    write_index(tmp_path, entries)
    return tmp_path


def write_index(directory, entries):
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (directory / INDEX_FILE).write_text(text, encoding="utf-8")


def read_index(directory):
    return [json.loads(line) for line in (directory / INDEX_FILE).read_text().splitlines()]


def test_audio_of_one_utterance_does_not_leak_into_the_next(directory):
    first, second = Corpus(directory)
    assert first.audio.dtype == np.float32
    np.testing.assert_array_equal(first.audio * 32768, np.arange(-500, -100))
    np.testing.assert_array_equal(second.audio * 32768, np.arange(-100, 500))
    assert first.phones == (("y", 0.01), ("s", 0.025))
    assert second.phones is None
    assert first.canonical
    assert not second.canonical


def test_selection_and_slices_agree_with_the_index(directory):
    corpus = Corpus(directory)
    assert corpus.indices(role="caller") == [1]
    assert corpus.indices(role="caller", split="held_out") == []
    assert [utterance.id for utterance in corpus[-1:]] == ["b"]
    assert corpus.seconds(1) == 600 / 16000


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"audio\.i16 is missing"):
        Corpus(tmp_path)


def test_truncated_audio_is_refused(directory):
    path = directory / AUDIO_FILE
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"line 2: its audio ends past the 999 samples"):
        Corpus(directory)


def test_entry_without_text_is_named(directory):
    entries = read_index(directory)
    del entries[1]["text"]
    write_index(directory, entries)
    with pytest.raises(ValueError, match=r"line 2: field 'text' is missing"):
        Corpus(directory)
