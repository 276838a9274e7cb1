"""The speech tokenizer's recipe: its parts, and a training of a few steps from end to end."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.sound import phone_band
from agent.speech import SpeechTokenizer
from agent.speech.tokenizer_encoder import EncoderLayer, WhisperVQEncoder
from agent.training.data import Corpus
from agent.training.tokenizer import Trainer
from agent.training.tokenizer_data import CHARACTERS, IGNORED, Loader, Plans, spell
from agent.training.tokenizer_parts import Quantiser, Settings, frame_positions, look_around

RECIPE = Path(__file__).parents[2] / "agent" / "nano" / "recipe_tokenizer.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_corpus: Callable[..., Corpus]) -> Corpus:
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(8):
        fields = {
            "split": "held_out" if number > 5 else "train", "text": "It's five, ok?",
            "phones": [["pau", 0.1], ["f", 0.3], ["ay", 0.4]] if number % 2 else None,
            "style": {1: "slow", 2: "fast", 4: "slow"}.get(number),
        }  # fmt: skip
        utterances.append((fields, rng.normal(0, 3_000, 8_000 + 1_000 * number).astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("corpus"), utterances)


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.read_text().replace("warmup:", "warm_up:"))
    with pytest.raises(
        ValueError, match=r"tokenizer\.warmup' is missing; field 'tokenizer\.warm_up' is"
    ):
        Settings.read(path)


def test_spelling_has_letters_apostrophes_and_single_spaces() -> None:
    assert spell("It's  a - b.") == [11, 22, 2, 21, 1, 3, 1, 4]


def test_mandarin_is_spelt_without_tones_or_with_blanks_between_syllables() -> None:
    pytest.importorskip("pypinyin", reason="only trainings need it")
    spelt = "".join(CHARACTERS[number - 1] for number in spell("你好，我妈妈的。", "zh"))
    assert spelt == "ni3hao3 wo3ma1ma1de5"


def test_a_style_belongs_to_another_utterance(corpus: Corpus, small_tokenizer: Settings) -> None:
    loader = Loader(corpus, 10.0)
    batch = loader.batch([0, 1, 2, 4], None)
    assert loader.styles == ["fast", "slow"]
    assert batch.styles.tolist() == [IGNORED, 1, 0, 1]
    assert batch.to("cpu").styles.tolist() == batch.styles.tolist()


def test_styles_are_learnt_where_they_are_not_known_or_teach_the_encoder_nothing(
    corpus: Corpus, small_tokenizer: Settings, tmp_path: Path
) -> None:
    first, last, encoders = {}, {}, {}
    for weight in (0.0, 5.0):
        changes = {"style": weight, "warmup": 1, "learning_rate": 0.02}
        trainer = Trainer(
            small_tokenizer.model_copy(update=changes), corpus, tmp_path / str(weight)
        )
        batch = trainer.loader.batch([1, 2], None)
        losses = [trainer.optimise(batch, np.random.default_rng(0))["style"] for _ in range(4)]
        first[weight], last[weight] = losses[0], losses[-1]
        encoders[weight] = trainer.encoder.layers[0].fc1.weight.detach().clone()
    assert first[0.0] == first[5.0]
    assert last[5.0] < 0.9 * min(first[5.0], last[0.0])
    assert (encoders[5.0] - encoders[0.0]).abs().max() > 1e-3
    unknown = trainer.loader.batch([0, 3], None)
    assert trainer.optimise(unknown, np.random.default_rng(0))["style"] == 0.0


def test_labels_follow_the_phones_and_are_ignored_where_none_are_known(corpus: Corpus) -> None:
    loader = Loader(corpus, 10.0)
    batch = loader.batch([0, 1], None)
    names = ["pau" if i == loader.phone_names.index("pau") else i for i in batch.phones[1].tolist()]
    assert (batch.phones[0] == IGNORED).all()
    assert names[:5] == ["pau"] * 5
    assert names[6:14] == [loader.phone_names.index("f")] * 8
    assert batch.phones[1, 28:].tolist() == [IGNORED] * (batch.phones.shape[1] - 28)


def test_every_training_utterance_is_drawn_once_an_epoch(corpus: Corpus) -> None:
    plans = Loader(corpus, 3.0).plan(range(6), seed=0, epoch=0)
    assert sorted(index for plan in plans for index in plan) == list(range(6))
    assert len(plans) > 1


def test_the_batches_of_any_step_can_be_asked_for(corpus: Corpus) -> None:
    loader = Loader(corpus, 3.0)
    epochs = [loader.plan(range(6), seed=0, epoch=epoch) for epoch in range(3)]
    wanted = [plan for epoch in epochs for plan in epoch]
    plans = Plans(loader, range(6), 0)
    last = len(wanted) - 1
    assert [plans[step] for step in (last, 0, *range(len(wanted)))] == [
        wanted[last],
        *wanted[:1],
        *wanted,
    ]


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


def test_codes_start_in_clusters_and_dead_ones_restart(small_tokenizer: Settings) -> None:
    torch.manual_seed(0)
    encoder = WhisperVQEncoder(small_tokenizer.encoder())
    quantiser = Quantiser(encoder, small_tokenizer)
    centres = 10.0 * torch.randn(8, 32)
    vectors = centres.repeat(50, 1) + 0.01 * torch.randn(400, 32)
    quantiser.collect(vectors)
    quantiser.start()
    assert encoder.distances(vectors).amin(-1).mean() < encoder.distances(-vectors).amin(-1).mean()
    dead = encoder.codebook.weight.data[0].clone()
    alive = vectors[encoder.quantise(vectors) != 0]
    for _ in range(small_tokenizer.restart_after):
        quantiser.update(alive, encoder.quantise(alive).clamp(min=1))
    assert (encoder.codebook.weight[0] - dead).abs().max() > 1.0


@torch.no_grad()
def test_ids_are_those_of_the_codes_before_an_update(small_tokenizer: Settings) -> None:
    torch.manual_seed(0)
    encoder = WhisperVQEncoder(small_tokenizer.encoder())
    quantiser = Quantiser(encoder, small_tokenizer)
    vectors = 5.0 * torch.randn(60, 32)
    quantiser.collect(vectors)
    encoder.quantise(vectors)
    for change in (quantiser.start, lambda: quantiser.update(vectors * 3, torch.arange(60) % 8)):
        change()
        nearest = torch.cdist(vectors, encoder.codebook.weight).argmin(-1)
        assert torch.equal(encoder.quantise(vectors), nearest)


def test_a_training_ends_in_a_checkpoint_that_loads(
    corpus: Corpus, small_tokenizer: Settings, tmp_path: Path
) -> None:
    trainer = Trainer(small_tokenizer, corpus, tmp_path)
    before = trainer.encoder.layers[0].fc1.weight.detach().clone()
    trainer.run(tmp_path / "export")
    assert (trainer.encoder.layers[0].fc1.weight - before).abs().max() > 0
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6
    assert last["character_error_seen"] >= 0.0
    tokenizer = SpeechTokenizer.from_pretrained(tmp_path / "export")
    assert tokenizer.encoder.config == small_tokenizer.encoder()
    (ids,) = tokenizer.encode([phone_band(corpus[0].audio)])
    assert len(ids) == 7


def test_a_training_goes_on_from_an_earlier_one(
    corpus: Corpus, small_tokenizer: Settings, tmp_path: Path
) -> None:
    first = Trainer(small_tokenizer, corpus, tmp_path / "first")
    first.run(None)
    on = small_tokenizer.model_copy(update={"continuous": 0.0, "ramp": 0.0, "batch_seconds": 4.0})
    second = Trainer(on, corpus, tmp_path / "second", start=tmp_path / "first")
    assert (second.step, second.strength(0)) == (0, small_tokenizer.variation)
    for name in ("encoder", "reader", "quantiser"):
        for key, value in getattr(first, name).state_dict().items():
            torch.testing.assert_close(getattr(second, name).state_dict()[key], value)
    second.run(None)
    moved = second.encoder.codebook.weight - first.encoder.codebook.weight
    assert 0.0 < moved.abs().max() < 1.0


def test_a_stopped_training_ends_where_another_does(
    corpus: Corpus, small_tokenizer: Settings, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    whole = Trainer(small_tokenizer, corpus, tmp_path / "whole")
    whole.run(None)
    for step in (1, 4):  # before the codes start, and after
        interrupted(lambda: Trainer(small_tokenizer, corpus, tmp_path / "stopped").run(None), step)
    resumed = Trainer(small_tokenizer, corpus, tmp_path / "stopped")
    assert resumed.step == 4
    resumed.run(None)
    for name, value in whole.encoder.state_dict().items():
        torch.testing.assert_close(resumed.encoder.state_dict()[name], value, rtol=0, atol=0)


def test_a_corrupt_utterance_ends_the_training(
    corpus: Corpus, small_tokenizer: Settings, tmp_path: Path, write_corpus: Callable[..., Corpus]
) -> None:
    rows = [corpus[i] for i in range(8)]
    fields = [{"split": u.split, "text": u.text, "phones": u.phones} for u in rows]
    audio = [(u.audio * 32768).astype(np.int16) for u in rows]
    write_corpus(tmp_path / "data", list(zip(fields, audio, strict=True)))
    sound = tmp_path / "data" / "000000.i16"
    data = bytearray(sound.read_bytes())
    data[2 * len(audio[0]) + 10] ^= 1
    sound.write_bytes(bytes(data))
    spoilt = Corpus(tmp_path / "data")
    Trainer(small_tokenizer, spoilt, tmp_path / "run").run(None)
    assert spoilt.skipped == 1
