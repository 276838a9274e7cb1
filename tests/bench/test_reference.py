"""The other side of the benchmark, played by a script that speaks the worker's protocol."""

import sys
from pathlib import Path

import pytest
import yaml

from agent.bench import listening
from agent.bench.bench import Bench, Weights
from agent.bench.reference import Reference, ReferenceFailure
from agent.bench.reference_worker import _first_step, _tagged
from agent.bench.table import NOT_HERE, Figure

FAKE = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    command = request.pop("command")
    if command == "hello":
        reply = {"result": {"parts": {"tokenizer": None, "language_model": "no such file",
                 "decoder": None}, "versions": {"torch": "0"}}}
    elif command == "tokens":
        reply = {"result": {"ids": [], "seconds": 1e6}}
    elif command == "load":
        reply = {"result": {}}
    elif command == "die":
        sys.exit("out of memory")
    else:
        reply = {"error": "KeyError: " + command}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(FAKE, encoding="utf-8")
    return path


@pytest.fixture
def reference(worker: Path, tmp_path: Path):
    with Reference(tmp_path, Path(sys.executable), worker=worker) as running:
        yield running


def test_a_ratio_is_not_that_of_the_two_sides(reference: Reference, goldens: Path) -> None:
    weights = Weights("tiny", goldens)
    bench = Bench(mid_size=weights, nano=weights, reference=reference, quick=True)
    figures = [row for row in listening.run(bench) if isinstance(row, Figure)]
    assert figures
    for row in figures:
        assert row.ratio == row.ours.median / 1e6
    assert figures[0].met is True


def test_a_missing_part_hides_the_others(reference: Reference, goldens: Path) -> None:
    bench = Bench(Weights("a", goldens), Weights("b", goldens), reference)
    assert bench.reason("tokenizer") is None
    assert bench.reason("tokenizer", "language_model") == f"{NOT_HERE} (no such file)"
    assert bench.load(bench.nano, "language_model") is None
    assert bench.load(bench.nano, "decoder") is reference


def test_a_failure_of_the_reference_is_silent(reference: Reference) -> None:
    with pytest.raises(ReferenceFailure, match="mel: KeyError: mel"):
        reference.call("mel")
    with pytest.raises(ReferenceFailure, match="out of memory"):
        reference.call("die")
    with pytest.raises(ReferenceFailure, match="ended"):
        reference.call("tokens")


def test_an_interpreter_that_is_not_there_is_no_reference(worker: Path, tmp_path: Path) -> None:
    with pytest.raises(ReferenceFailure, match="nowhere"):
        Reference(tmp_path, tmp_path / "nowhere", worker=worker)


def test_the_reference_is_built_from_other_classes_or_fields(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    section = {"mel_mean": -6.0, "input_size": 8, "encoder": {"block_size": 10}}
    config.write_text(yaml.safe_dump({"flow": section, "decoding": {"steps": 6}}), encoding="utf-8")
    text = _tagged(config, tmp_path).read_text(encoding="utf-8")
    assert "flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec" in text
    assert "encoder: !new:cosyvoice.transformer.encoder.BlockConformerEncoder" in text
    assert "mel_mean" not in text
    assert "decoding" not in text


def test_a_config_with_tags_is_written_over(goldens: Path, tmp_path: Path) -> None:
    config = goldens / "speech_decoder" / "config.yaml"
    assert _tagged(config, tmp_path) == config


def test_steps_that_were_not_run_are_not_counted() -> None:
    class Estimator:
        calls = 0

        def forward(self) -> int:
            self.calls += 1
            return self.calls

    estimator = Estimator()
    with _first_step(estimator, True) as skipped:
        answers = [estimator.forward() for _ in range(20)]
    assert estimator.calls == 2
    assert answers[-1] == 2
    assert len(skipped) == 18
    estimator.forward()
    assert estimator.calls == 3
