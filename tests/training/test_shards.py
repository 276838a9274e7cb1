import json

import numpy as np
import pytest
from loguru import logger

from agent.training.shards import CorruptSampleError, Order, Shards, ShardWriter, shuffled


@pytest.fixture
def warnings():
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["extra"]["problem"]), level=30)
    yield heard
    logger.remove(sink)


def fill(path, count, **bounds):
    writer = ShardWriter(path, **bounds)
    for number in range(writer.count, count):
        audio = np.full(160 * (number + 1), number, np.int16)
        writer.add({"id": f"s{number}", "kind": number % 2}, audio, np.arange(number))
    return writer


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_sample_gets_its_neighbours_audio_or_codes(tmp_path):
    fill(tmp_path, 5, seconds=0.05)
    shards = Shards(tmp_path, ["kind"])
    assert len(shards) == 5
    for number in range(5):
        sample = shards[number]
        assert sample.entry["id"] == f"s{number}"
        assert sample.audio.tolist() == [number] * 160 * (number + 1)
        assert sample.codes.tolist() == list(range(number))
        assert shards.seconds(number) == (number + 1) / 100
    assert shards.indices(kind=1) == [1, 3]


def test_a_shard_grows_past_its_bounds(tmp_path):
    fill(tmp_path / "long", 6, seconds=0.05)
    assert max(path.stat().st_size for path in (tmp_path / "long").glob("*.i16")) <= 2 * 960
    fill(tmp_path / "many", 6, samples=2)
    assert len(list((tmp_path / "many").glob("*.jsonl"))) == 3


def test_a_stopped_writer_leaves_half_a_sample_or_writes_one_twice(tmp_path):
    fill(tmp_path / "whole", 8, samples=4)
    path = tmp_path / "stopped"
    fill(path, 3, samples=4)
    with (path / "000000.i16").open("ab") as file:
        file.write(b"half a sample, without a line")
    with (path / "000000.jsonl").open("ab") as file:
        file.write(b'{"id": "hal')
    assert len(Shards(path)) == 3
    fill(path, 8, samples=4)
    for whole in (tmp_path / "whole").iterdir():
        assert (path / whole.name).read_bytes() == whole.read_bytes()


def test_a_changed_sample_is_read_and_the_rest_is_lost(tmp_path, warnings):
    fill(tmp_path, 4)
    flip(tmp_path / "000000.i16", 2 * 160 + 7)
    shards = Shards(tmp_path)
    with pytest.raises(CorruptSampleError, match="'s1' fails its checksum"):
        shards[1]
    for _ in range(2):
        assert [index for index, _ in shards.read(range(4))] == [0, 2, 3]
    assert shards.skipped == 1
    assert len(warnings) == 1
    assert "'s1'" in warnings[0]


def test_an_entry_that_lacks_a_field_or_ends_past_the_file_stops_the_rest(tmp_path, warnings):
    fill(tmp_path, 4)
    path = tmp_path / "000000.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"kind": 1, ', "")
    lines[2] = "{no json"
    path.write_text("\n".join(lines) + "\n")
    audio = tmp_path / "000000.i16"
    audio.write_bytes(audio.read_bytes()[:-2])
    shards = Shards(tmp_path, ["kind"])
    assert [shards.entry(i)["id"] for i in range(len(shards))] == ["s0"]
    assert shards.skipped == 3
    assert "line 2: sample 's1': field 'kind' is missing" in warnings[0]
    assert "line 3" in warnings[1]
    assert "sample 's3': it ends past the shard's 1599 audio samples" in warnings[2]


def test_a_directory_without_samples_is_taken_for_a_data_set(tmp_path):
    with pytest.raises(ValueError, match="no shards"):
        Shards(tmp_path)
    (tmp_path / "000000.jsonl").write_text(json.dumps({"id": "x"}) + "\n")
    with pytest.raises(ValueError, match="no usable sample"):
        Shards(tmp_path)


def test_an_epoch_misses_a_sample_or_repeats_the_last_order():
    indices = [3, 5, 8, 9, 11]
    first, second = shuffled(indices, 1, 0), shuffled(indices, 1, 1)
    assert sorted(first) == sorted(second) == indices
    assert first != second
    order = Order(indices, 1)
    walk = [order[position] for position in range(10)]
    assert walk == first + second
    assert Order(indices, 1)[7] == walk[7]
