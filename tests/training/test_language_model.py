"""The language model's recipe on a corpus of a few beeps: what it shows, learns and writes."""

import json
import shutil
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from agent.speech import LanguageModel
from agent.speech.checkpoint import CheckpointError
from agent.training import language_model as recipes
from agent.training.conversations import Conversations, Mixture, Scene, Takes
from agent.training.data import Corpus
from agent.training.examples import GIVEN, SPEECH, TEXT, Example
from agent.training.phrasings import Intent, Line

NANO = Path(__file__).parents[2] / "agent" / "nano"
CODES = 32
MIXTURE = Mixture(
    questions=6,
    dictations=4,
    readings=3,
    greeted=0.5,
    turns=2,
    typed=0.2,
    whole=0.5,
    cut=0.5,
    drop=0.1,
    replace=0.1,
    double=0.1,
)
ANSWERS = {"greet": "Clinic, hello?", "open": "We open at eight.", "bye": "Goodbye now."}


def settings(**changes):
    values = {
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "multi_query_group_num": 1,
        "kv_channels": 16,
        "ffn_hidden_size": 64,
        "seq_length": 2048,
        "text_tokens": 300,
        "takes": 1,
        "first_takes": 1,
        "line": "corpus.yaml",
        "mixture": MIXTURE.model_dump(),
        "steps": 6,
        "learning_rate": 3e-3,
        "warmup": 2,
        "weight_decay": 0.01,
        "dropout": 0.1,
        "text_weight": 2.0,
        "average": 0.5,
        "bfloat16": False,
        "judge_every": 3,
        "judged": 4,
        "report_every": 3,
        "seed": 0,
    }
    return values | changes


@pytest.fixture(scope="module")
def line():
    callers = {"open": ("When do you open?", "Are you open?"), "bye": ("Thanks, bye.",)}
    return Line(
        name="test",
        intents=tuple(
            Intent(
                name=name,
                answer=answer,
                instruction="Greet the caller." if name == "greet" else None,
                train=callers.get(name, ()),
                held_out=(),
                renderings=1,
            )
            for name, answer in ANSWERS.items()
        ),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_corpus):
    utterances = []

    def add(role, text, intent, **more):
        moments = np.arange(48_000 + 640 * len(utterances)) * (250 + 50 * len(utterances)) / 16_000
        fields = {"role": role, "text": text, "intent": intent, **more}
        utterances.append((fields, (8000 * np.sin(2 * np.pi * moments)).astype(np.int16)))

    for name, answer in ANSWERS.items():
        add("agent", answer, name, canonical=True)
    for text, name in (("When do you open?", "open"), ("Thanks, bye.", "bye")):
        add("caller", text, name)
    add("cover", "A short one.", None)
    add("cover", "words " * 200, None)  # its speech is over before its text
    add("caller", "Are you open?", "open", split="held_out")
    return write_corpus(tmp_path_factory.mktemp("corpus"), utterances)


class BeepTokenizer:
    """A stand-in for the speech tokenizer: a code is how high the beep is."""

    codebook_size = CODES

    def encode(self, waveforms):
        return [self._codes(waveform) for waveform in waveforms]

    def stream(self):
        return self

    def push(self, samples):
        self._pushed = samples
        return np.zeros(0, dtype=np.int64)

    def finish(self):
        return self._codes(self._pushed)

    def _codes(self, samples):
        whole = samples[: len(samples) // 1280 * 1280].reshape(-1, 1280)
        return (np.diff(np.sign(whole), axis=1) != 0).sum(1).astype(np.int64) % CODES


@pytest.fixture
def recipe(line, corpus, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"language_model": settings()}))
    made = recipes.Recipe(
        recipes.Settings.read(path), corpus, line, BeepTokenizer(), tmp_path / "out"
    )
    made.prepare()
    made.hear(1)
    return made


def parts(recipe):
    model = recipes.fresh_model(recipe.layout, 0)
    return model, recipe._conversations(model.text_tokenizer, Takes(recipe.out / "spoken.npz"))


def test_scene_is_no_call_as_the_engine_writes_it(recipe):
    """What may be predicted are whole runs of text and speech; a whole answer ends by a turn."""
    model, conversations = parts(recipe)
    tokenizer = model.text_tokenizer
    rng = np.random.default_rng(0)
    answers = set()
    for _ in range(30):
        for scene in conversations.draw(recipe.takes(), rng):
            assert tokenizer.decode(scene.start[:3]).startswith("[gMASK]<sop><|system|>")
            for exchange in scene.exchanges:
                user = exchange.kinds.index(TEXT)
                assert set(exchange.kinds[:user]) == {GIVEN}
                assert GIVEN not in exchange.kinds[user:]
                asked = tokenizer.decode(exchange.ids[:user])
                assert asked.startswith("<|user|>\n")
                assert asked.endswith("<|assistant|>streaming_transcription\n")
                runs = [(k, len(list(g))) for k, g in groupby(exchange.kinds[user:])]
                assert runs[0][0] == TEXT
                assert all(n == 26 for k, n in runs[:-3] if k == SPEECH)
                said = b"".join(tokenizer.text_bytes(i) for i in exchange.ids[user:])
                answers.add(said.decode())
    assert answers >= set(ANSWERS.values()) | {"A short one.", "When do you open?"}
    assert not any(text.startswith("words words") and "?" in text for text in answers)


def test_exchange_sees_its_neighbours(recipe):
    """The logits of an exchange are those of its start and itself, written out in full."""
    model, conversations = parts(recipe)
    model.eval()
    scenes = conversations.draw(recipe.takes(), np.random.default_rng(1))
    with torch.no_grad():
        logits, targets, kinds, owners = recipes.predictions(model, scenes)
    number = 0
    for scene in scenes:
        for exchange in scene.exchanges:
            whole = scene.start + exchange.ids
            rows = [len(scene.start) + n for n, kind in enumerate(exchange.kinds) if kind]
            expected = model.logits(whole)[np.array(rows) - 1]
            np.testing.assert_allclose(logits[owners == number], expected, atol=1e-4, rtol=0)
            assert targets[owners == number].tolist() == [whole[row] for row in rows]
            assert kinds[owners == number].tolist() == [k for k in exchange.kinds if k]
            number += 1


def test_start_of_a_scene_learns_nothing(recipe):
    model, conversations = parts(recipe)
    scenes = conversations.draw(recipe.takes(), np.random.default_rng(2))
    recipes.losses(model, scenes, 2).together.backward()
    sop = model.text_tokenizer.special("<sop>")
    assert model.transformer["embedding"]["word_embeddings"].weight.grad[sop].abs().sum() > 0


def test_judge_calls_a_wrong_answer_right(recipe):
    model, _ = parts(recipe)
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        likely = model(torch.tensor([1, 2, 3, *ids]), [7]).argmax(-1)
    right = Example([4, int(likely[2])], [GIVEN, TEXT])
    with torch.no_grad():
        token = int(model(torch.tensor([1, 2, 3, 4]), [4])[-1].argmax())
    right, wrong = Example([4, token], [GIVEN, TEXT]), Example([4, token + 1], [GIVEN, TEXT])
    shares = recipes.judge(model, [Scene([1, 2, 3], [right, wrong])])
    assert shares == {"exact_text": 0.5, "exact_speech": 1.0}


def test_trained_checkpoint_cannot_be_loaded(recipe):
    recipe.run()
    model = LanguageModel.from_pretrained(recipe.out / "best")
    assert model.text_tokenizer.audio_count == CODES
    assert model.config.num_layers == 2
    assert model.logits([1, 2, 3]).shape == (3, model.config.padded_vocab_size)
    lines = [json.loads(one) for one in (recipe.out / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == [3, 6]
    assert "exact_text" in lines[-1]


def test_stopped_training_starts_again_or_ends_elsewhere(recipe, tmp_path, interrupted):
    again = recipes.Recipe(
        recipe.settings, recipe.corpus, recipe.line, BeepTokenizer(), tmp_path / "again"
    )
    again.prepare()
    again.hear(1)
    again.run()
    interrupted(recipe.run, step=4)
    recipe.run(tmp_path / "export")
    expected = torch.load(again.out / "last.pt", weights_only=True)
    found = torch.load(recipe.out / "last.pt", weights_only=True)
    for name, value in expected["average"].items():
        torch.testing.assert_close(found["average"][name], value, rtol=0, atol=0)
    assert LanguageModel.from_pretrained(tmp_path / "export").config.num_layers == 2
    size = (recipe.out / "log.jsonl").stat().st_size
    recipe.run()  # all of its steps are done
    assert (recipe.out / "log.jsonl").stat().st_size == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepps": 3}, "field 'language_model.stepps' is unknown"),
        ({"mixture": {}}, "field 'language_model.mixture.cut' is missing"),
    ],
)
def test_wrong_recipe_is_accepted(tmp_path, changes, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"language_model": settings(**changes)}))
    with pytest.raises(ValueError, match=message):
        recipes.Settings.read(path)


def test_a_corrupt_recording_ends_the_preparation(recipe, line, tmp_path):
    data = shutil.copytree(recipe.corpus._shards.path, tmp_path / "data")

    def spoil(index):
        place = recipe.corpus._shards.entry(index)["offset"]
        sound = bytearray((data / "000000.i16").read_bytes())
        sound[2 * place] ^= 1
        (data / "000000.i16").write_bytes(bytes(sound))
        made = recipes.Recipe(
            recipe.settings, Corpus(data), line, BeepTokenizer(), tmp_path / str(index)
        )
        made.prepare()
        made.hear(1)
        return made

    made = spoil(recipe.callers[0])
    assert made.corpus.skipped == 1
    made.run()
    with pytest.raises(ValueError, match="answer 'greet': the recording of the agent's voice is"):
        spoil(recipe.agent[0]).run()


def test_interrupted_take_is_read(recipe):
    """A take that was being written when its process died does not count."""
    (recipe.out / "take_1.tmp.npz").write_bytes(b"half")
    assert len(recipe.takes()) == 1


def test_takes_of_conversations_need_a_checkpoint(recipe):
    (recipe.layout / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        recipes.fresh_model(recipe.layout, 0)


def test_nano_recipe_lacks_a_field():
    settings = recipes.Settings.read(NANO / "recipe_language_model.yaml")
    assert settings.mixture.questions > 0
    assert settings.line.is_file()


def test_conversations_draw_the_same_for_the_same_seed(recipe):
    _, conversations = parts(recipe)
    assert isinstance(conversations, Conversations)
    first, second = (conversations.draw(recipe.takes(), np.random.default_rng(9)) for _ in range(2))
    assert first == second
