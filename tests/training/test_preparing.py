import numpy as np
import pytest

from agent.training import preparing
from agent.training.preparing import Settings
from agent.training.shards import Shards, ShardWriter


class Counter:
    """A stand-in for the speech tokenizer: a code a 80 ms, and how often it was asked."""

    asked = 0

    def encode(self, waveforms):
        self.asked += len(waveforms)
        return [np.arange(len(waveform) // 1280) for waveform in waveforms]


def test_a_stopped_encoding_tokenises_again_or_loses_fields(tmp_path):
    writer = ShardWriter(tmp_path / "audio")
    for number in range(3):
        audio = None if number == 1 else np.full(1280 * (number + 1), 5, np.int16)
        writer.add({"id": f"s{number}", "text": f"text {number}"}, audio)
    tokenizer, settings = Counter(), Settings(phone_band=True)
    preparing.encode(settings, tmp_path / "audio", tokenizer, tmp_path / "codes")
    preparing.encode(settings, tmp_path / "audio", tokenizer, tmp_path / "codes")
    assert tokenizer.asked == 2
    shards = Shards(tmp_path / "codes")
    assert [shards[i].entry["text"] for i in range(len(shards))] == ["text 0", "text 2"]
    assert [shards[i].codes.tolist() for i in range(len(shards))] == [[0], [0, 1, 2]]
    assert not any(len(shards[i].audio) for i in range(len(shards)))


def test_lines_of_text_files_are_lost_or_written_twice(tmp_path):
    source = tmp_path / "files"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("one\n\n two \n", "utf-8")
    (source / "deep" / "b.txt").write_text("drei Wörter hier", "utf-8")
    for _ in range(2):
        preparing.texts(source, tmp_path / "out")
    shards = Shards(tmp_path / "out")
    assert list(shards.texts()) == ["one", "two", "drei Wörter hier"]
    assert list(shards.ids()) == ["a.txt:1", "a.txt:3", "deep/b.txt:1"]
    (source / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.txt: not UTF-8"):
        preparing.texts(source, tmp_path / "other")
    with pytest.raises(ValueError, match=r"no \*\.txt files"):
        preparing.texts(tmp_path / "out", tmp_path / "other")
