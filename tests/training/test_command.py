"""``glm-voice train`` itself: what it is given reaches the recipes, and mistakes are named."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from agent.cli import main
from agent.speech import SpeechDecoder, SpeechTokenizer
from agent.speech.checkpoint import read_yaml
from agent.training import command

NANO = Path(__file__).parents[2] / "agent" / "nano"


def run(*arguments: object) -> int:
    return main(["train", *map(str, arguments)])


def changed(tmp_path: Path, part: str, **values: object) -> Path:
    settings = yaml.safe_load((NANO / f"recipe_{part}.yaml").read_text())
    settings[part] |= values
    path = tmp_path / f"{part}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_corpus):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data")
    fields = [{"voice": "flite:slt", "role": "agent", "text": "Hello there.", "split": split}
              for split in ("train", "train", "held_out")]  # fmt: skip
    noise = [rng.normal(0, 3000, 24_000).astype(np.int16) for _ in fields]
    write_corpus(path, list(zip(fields, noise, strict=True)))
    return path


def test_a_tokenizer_and_a_flow_on_its_codes_make_no_checkpoint(tmp_path, data, goldens, capsys):
    out, made = tmp_path / "run", tmp_path / "made"
    small = {"width": 32, "ffn": 32, "layers": 1, "head_layers": 1, "codes": 8, "steps": 2}
    settings = changed(tmp_path, "tokenizer", **small)
    tokenizer = made / "speech_tokenizer"
    assert run("tokenizer", "--settings", settings, "--data", data, "--out", out / "t",
               "--export", tokenizer) == 0  # fmt: skip
    assert SpeechTokenizer.from_pretrained(tokenizer).codebook_size == 8
    published = goldens / "speech_decoder"
    model = read_yaml(published / "config.yaml")["flow"]
    settings = changed(tmp_path, "flow", model=model, steps=1, batch=1, lengths=[10])
    decoder = made / "speech_decoder"
    assert run("flow", "--settings", settings, "--data", data, "--tokenizer", tokenizer,
               "--out", out / "f", "--export", decoder) == 0  # fmt: skip
    assert "parameters" in capsys.readouterr().out
    hift = read_yaml(published / "config.yaml")["hift"]
    config = read_yaml(decoder / "config.yaml") | {"hift": hift}
    (decoder / "config.yaml").write_text(yaml.safe_dump(config))
    (decoder / "hift.pt").write_bytes((published / "hift.pt").read_bytes())
    assert SpeechDecoder.from_pretrained(decoder).settings.steps == 6


def test_a_mistake_in_settings_or_data_is_not_named(tmp_path, data, capsys):
    settings = changed(tmp_path, "tokenizer", steps="many")
    assert run("tokenizer", "--settings", settings, "--data", data, "--out", tmp_path / "o") == 2
    assert "field 'tokenizer.steps' is wrong" in capsys.readouterr().err
    settings = changed(tmp_path, "tokenizer")
    assert run("tokenizer", "--settings", settings, "--data", tmp_path, "--out", tmp_path) == 2
    assert "no shards" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("tokenizer", "--settings", settings)
    assert "--data, --out" in capsys.readouterr().err


def test_the_shipped_sequence_gives_a_part_what_another_wrote(tmp_path, monkeypatch):
    given = {}
    for name in ("corpus", "tokenizer", "vocoder", "flow", "language-model"):
        part = command.Part(
            "", lambda options, name=name: given.update({name: options}), ("--out",)
        )
        monkeypatch.setitem(command.PARTS, name, part)
    assert run("nano", "--settings", NANO, "--out", tmp_path, "--export", tmp_path / "made") == 0
    assert list(given) == ["corpus", "tokenizer", "vocoder", "flow", "language-model"]
    assert all(options.settings.is_file() for options in given.values())
    assert given["corpus"].out == given["flow"].data
    assert given["tokenizer"].export == given["language-model"].tokenizer
    assert given["vocoder"].export == given["flow"].export == tmp_path / "made" / "speech_decoder"
