"""``glm-voice train`` itself: what it is given reaches the recipes, and mistakes are named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from agent.cli import main
from agent.speech.checkpoint import read_yaml
from agent.training import command, vocoder
from agent.training.voices import AGENT_VOICES

NANO = Path(__file__).parents[2] / "agent" / "nano"


def run(*arguments: object) -> int:
    return main(["train", *map(str, arguments)])


def changed(tmp_path: Path, part: str, **values: object) -> Path:
    settings = yaml.safe_load((NANO / f"recipe_{part}.yaml").read_text())
    (section,) = settings
    settings[section] |= values
    path = tmp_path / f"recipe_{part}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_corpus):
    """Noise that is said to be a line of two answers."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data")
    agent, caller = {"voice": AGENT_VOICES["en"], "style": "neutral"}, {"voice": "caller"}
    fields = [
        agent | {"role": "agent", "text": text, "canonical": True}
        for text in ("Clinic, hello?", "We open at eight.")
    ]
    fields += [
        agent | {"role": "cover", "text": "A few words."},
        agent | {"role": "cover", "text": "Some more.", "split": "held_out"},
        caller | {"text": "When do you open?", "saying": "open"},
        caller | {"text": "Are you open?", "saying": "open", "split": "held_out"},
    ]
    noise = [rng.normal(0, 3000, 56_000).astype(np.int16) for _ in fields]
    write_corpus(path, list(zip(fields, noise, strict=True)))
    return path


LINE = """
name: test
intents:
  - {name: greet, answer: "Clinic, hello?", instruction: Greet the caller.}
  - {name: open, answer: We open at eight., train: "When do you open?", held_out: "Are you open?"}
"""


def test_the_shipped_sequence_cut_short_makes_no_checkpoint_that_speaks(
    tmp_path, data, goldens, monkeypatch, capsys
):
    monkeypatch.setattr(vocoder, "pitch", lambda audio, n: np.full(n, 120, np.float32))
    published = read_yaml(goldens / "speech_decoder" / "config.yaml")
    recipes, made = tmp_path / "recipes", tmp_path / "made"
    recipes.mkdir()
    (recipes / "line.yaml").write_text(LINE)
    changed(recipes, "corpus")
    sizes = {"width": 32, "ffn": 32, "layers": 1, "head_layers": 1, "codes": 256, "steps": 3}
    changed(recipes, "tokenizer", **sizes)
    changed(recipes, "tokenizer_continued", **sizes, workers=0)
    changed(recipes, "vocoder", model=published["hift"], steps=2, batch=1, frames=8)
    changed(recipes, "flow", model=published["flow"], steps=2, batch=1, lengths=[10])
    changed(
        recipes, "language_model", lines=["line.yaml"], hidden_size=32, num_attention_heads=2,
        kv_channels=16, ffn_hidden_size=32, num_layers=1, text_tokens=300, takes=1, steps=2,
        report_every=1, judge_every=2, judged=1, scenes=1, workers=0,
        listening={
            "blocks": 1, "steps": 2, "utterances": 2, "learning_rate": 1e-3, "warmup": 1,
            "beside": 1, "weight": 0.3,
        },
    )  # fmt: skip
    shutil.copytree(data, tmp_path / "run" / "data")
    monkeypatch.setitem(command.PARTS, "corpus", command.Part("", lambda _options: None, ()))
    arguments = ["--settings", recipes, "--out", tmp_path / "run", "--export", made]
    assert run("nano", *arguments) == 0
    assert {path.name for path in made.iterdir()} == {
        "speech_tokenizer", "speech_decoder", "language_model"
    }  # fmt: skip
    assert main(["say", "open", "-o", str(tmp_path / "say.wav"), "--checkpoint", str(made)]) == 0
    assert soundfile.info(tmp_path / "say.wav").frames > 0
    spoken = tmp_path / "noise.wav"
    soundfile.write(spoken, 0.1 * np.random.default_rng(1).standard_normal(16_000), 16_000)
    capsys.readouterr()
    assert main(["tokenize", str(spoken), "--checkpoint", str(made)]) == 0
    assert len(capsys.readouterr().out.split()) == 13
    # All of it is done: a second run trains nothing.
    assert run("nano", *arguments) == 0
    assert "/3  " not in capsys.readouterr().out


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
    runs = []
    for name in ("corpus", "tokenizer", "vocoder", "flow", "language-model"):
        part = command.Part("", lambda options, name=name: runs.append((name, options)), ("--out",))
        monkeypatch.setitem(command.PARTS, name, part)
    assert run("nano", "--settings", NANO, "--out", tmp_path, "--export", tmp_path / "made") == 0
    order = ["corpus", "tokenizer", "tokenizer", "vocoder", "flow", "language-model"]
    assert [name for name, _ in runs] == order
    assert all(options.settings.is_file() for _, options in runs)
    assert runs[1][1].out == runs[2][1].start
    given = dict(runs)
    assert given["corpus"].out == given["flow"].data
    assert given["tokenizer"].export == given["language-model"].tokenizer
    assert given["vocoder"].export == given["flow"].export == tmp_path / "made" / "speech_decoder"
