"""Row groups on the golden weights, without a reference on the machine."""

import importlib
from pathlib import Path

import pytest
import torch

from agent.bench import decoding
from agent.bench.__main__ import GROUPS, main
from agent.bench.agreement import check
from agent.bench.bench import Bench, Weights
from agent.bench.decoding import _at_block, _copied
from agent.bench.prompt_window import _settled, streamed_mel
from agent.bench.table import NOT_HERE, Figure
from agent.speech.decoder import DecoderSettings


@pytest.fixture(scope="module")
def bench(goldens: Path) -> Bench:
    made = Bench(Weights("tiny", goldens), Weights("also tiny", goldens), quick=True)
    for weights in (made.mid_size, made.nano):
        weights.decoder.settings = DecoderSettings(steps=1)
    return made


@pytest.mark.parametrize("name", ["listening", "first-audio", "decoder", "language-model"])
def test_without_a_reference_the_rest_does_not_run(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_TOKENS", 30)
    results = importlib.import_module(GROUPS[name]).run(bench)
    figures = [row for row in results if isinstance(row, Figure)]
    assert figures
    for row in figures:
        assert all(value > 0 for value in row.ours.values)
        if not row.other:
            assert row.against in (NOT_HERE, "-")
            assert row.ratio is None


def test_a_prompt_that_covers_everything_is_not_the_full_one(bench: Bench) -> None:
    decoder = bench.nano.decoder
    codes = torch.arange(25)
    full, covering, shorter = (
        streamed_mel(decoder, DecoderSettings(steps=2, prompt_blocks=blocks), codes)
        for blocks in (25, 2, 1)
    )
    assert torch.equal(full, covering)
    assert not torch.equal(full, shorter)
    assert full.shape[1] == decoder.flow.frames(25)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ([5.0, 2.0, 1.95, 2.05, 1.9], "2 blocks"),
        ([5.0, 4.0, 3.0, 2.0, 1.0], "not before 6 blocks"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "1 blocks"),
    ],
)
def test_the_fall_ends_too_early(values: list[float], where: str) -> None:
    assert _settled(values) == where


def test_nothing_to_compare_with_is_a_difference(bench: Bench) -> None:
    lines, same = check(bench)
    assert same
    assert lines == ["No reference: nothing to compare with."]


def test_a_block_that_is_timed_twice_is_not_the_same_block(bench: Bench) -> None:
    decoder = bench.nano.decoder
    settings = decoder.settings
    codes = torch.arange(40)
    stream = _at_block(decoder, codes, 3)
    assert decoder.settings is settings
    assert stream._mels.decoded == 20
    assert stream._mels.settings is settings
    twice = [_copied(stream).push(codes[20:30]) for _ in range(2)]
    assert torch.equal(*twice)
    assert torch.equal(stream.push(codes[20:30]), twice[0])


def test_a_checkout_that_is_none_is_measured(tmp_path: Path, capsys) -> None:
    assert main(["--reference", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "flow_inference.py" in capsys.readouterr().err
