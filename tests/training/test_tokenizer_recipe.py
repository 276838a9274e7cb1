"""The speech tokenizer's recipe: its parts, and a training of a few steps from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.sound import phone_band
from agent.speech import SpeechTokenizer
from agent.speech.tokenizer_encoder import EncoderLayer, WhisperVQEncoder
from agent.training.data import AUDIO_FILE, INDEX_FILE, Corpus
from agent.training.tokenizer import Trainer
from agent.training.tokenizer_data import IGNORED, Loader, spell
from agent.training.tokenizer_parts import Quantiser, Settings, frame_positions, look_around

RECIPE = Path(__file__).parents[2] / "agent" / "nano" / "recipe_tokenizer.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    entries, audio, offset = [], [], 0
    for number in range(8):
        samples = 8_000 + 1_000 * number
        held_out = number > 5
        entries.append(
            {
                "id": str(number), "split": "held_out" if held_out else "train",
                "role": "caller", "voice": "noise", "seen_voice": True, "text": "It's five, ok?",
                "intent": None, "offset": offset, "samples": samples,
                "phones": [["pau", 0.1], ["f", 0.3], ["ay", 0.4]] if number % 2 else None,
            }
        )  # fmt: skip
        audio.append(rng.normal(0, 3_000, samples).astype("<i2"))
        offset += samples
    (folder / AUDIO_FILE).write_bytes(np.concatenate(audio).tobytes())
    (folder / INDEX_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return Corpus(folder)


@pytest.fixture(scope="module")
def small() -> Settings:
    return replace(
        Settings.read(RECIPE),
        width=32, heads=4, ffn=32, layers=1, head_layers=1, codes=8, steps=6, batch_seconds=2.0,
        bfloat16=False,
    )  # fmt: skip


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.read_text().replace("warmup:", "warm_up:"))
    with pytest.raises(ValueError, match="warm_up, warmup"):
        Settings.read(path)


def test_spelling_has_letters_apostrophes_and_single_spaces() -> None:
    assert spell("It's  a - b.") == [11, 22, 2, 21, 1, 3, 1, 4]


def test_labels_follow_the_phones_and_are_ignored_where_none_are_known(corpus: Corpus) -> None:
    loader = Loader(corpus, 10.0)
    batch = loader.batch([0, 1], None)
    names = ["pau" if i == loader.phone_names.index("pau") else i for i in batch.phones[1].tolist()]
    assert (batch.phones[0] == IGNORED).all()
    assert names[:5] == ["pau"] * 5
    assert names[6:14] == [loader.phone_names.index("f")] * 8
    assert batch.phones[1, 28:].tolist() == [IGNORED] * (batch.phones.shape[1] - 28)


def test_every_training_utterance_is_drawn_once_an_epoch(corpus: Corpus) -> None:
    plans = Loader(corpus, 3.0).plan(range(6), np.random.default_rng(0))
    assert sorted(index for plan in plans for index in plan) == list(range(6))
    assert len(plans) > 1


@torch.no_grad()
def test_a_head_starts_by_looking_where_it_is_told() -> None:
    layer = EncoderLayer(192, 4, 16)
    shifts = (-5.0, -2.0, 2.0, 5.0)
    look_around(layer, shifts)
    x = layer.self_attn_layer_norm(frame_positions(200, 192, 24))
    query = layer.self_attn.q_proj(x).view(200, 4, 48)
    key = layer.self_attn.k_proj(x).view(200, 4, 48)
    for head, shift in enumerate(shifts):
        scores = query[:, head] @ key[:, head].T
        found = scores.argmax(1) - torch.arange(200)
        assert (found[20:180].float() - shift).abs().max() <= 1.0


def test_codes_start_in_clusters_and_dead_ones_restart(small: Settings) -> None:
    torch.manual_seed(0)
    encoder = WhisperVQEncoder(small.encoder())
    quantiser = Quantiser(encoder, small)
    centres = 10.0 * torch.randn(8, 32)
    vectors = centres.repeat(50, 1) + 0.01 * torch.randn(400, 32)
    quantiser.start(vectors)
    assert encoder.distances(vectors).amin(-1).mean() < encoder.distances(-vectors).amin(-1).mean()
    dead = encoder.codebook.weight.data[0].clone()
    alive = vectors[encoder.quantise(vectors) != 0]
    for _ in range(small.restart_after):
        quantiser.update(alive, encoder.quantise(alive).clamp(min=1))
    assert (encoder.codebook.weight[0] - dead).abs().max() > 1.0


def test_a_training_ends_in_a_checkpoint_that_loads(
    corpus: Corpus, small: Settings, tmp_path: Path
) -> None:
    trainer = Trainer(small, corpus, tmp_path)
    before = trainer.encoder.layers[0].fc1.weight.detach().clone()
    trainer.run()
    assert (trainer.encoder.layers[0].fc1.weight - before).abs().max() > 0
    assert (tmp_path / "DONE").exists()
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6
    assert last["character_error_seen"] >= 0.0
    tokenizer = SpeechTokenizer.from_pretrained(tmp_path / "export")
    assert tokenizer.encoder.config == small.encoder()
    (ids,) = tokenizer.encode([phone_band(corpus[0].audio)])
    assert len(ids) == 7


def test_a_stopped_training_goes_on_where_it_was(
    corpus: Corpus, small: Settings, tmp_path: Path
) -> None:
    Trainer(replace(small, steps=3), corpus, tmp_path).run()
    resumed = Trainer(small, corpus, tmp_path)
    resumed.resume()
    assert resumed.step == 3
    resumed.run()
    assert resumed.step == 6
