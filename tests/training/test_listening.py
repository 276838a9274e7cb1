"""Listening: a model's first blocks learn what codes spell, and only they."""

import json

import numpy as np
import pytest
import torch

from agent.training import listening
from agent.training.language_model_layout import Sizes, fresh_model, write_layout

LETTERS = 5


@pytest.fixture
def model(tmp_path):
    sizes = {
        "hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "multi_query_group_num": 1,
        "kv_channels": 16, "ffn_hidden_size": 64, "seq_length": 128, "text_tokens": 300,
    }  # fmt: skip
    write_layout(Sizes(**sizes), ["a text"], LETTERS, tmp_path / "layout")
    return fresh_model(tmp_path / "layout", 0)


@pytest.fixture
def settings():
    return listening.Settings(
        blocks=1, steps=200, utterances=8, learning_rate=1e-2, warmup=5, beside=0, weight=0.3
    )


def draw(count, rng, first):
    """Utterances whose codes are their letters."""
    for _ in range(count):
        letters = rng.integers(0, LETTERS, rng.integers(3, 8)).tolist()
        yield [first + letter for letter in letters], [n + 1 for n in letters]


def learn(model, settings, out, judged=()):
    first = model.audio_offset
    listening.learn(
        listening.Listener(model, settings.blocks, 0),
        settings,
        lambda count, rng: draw(count, rng, first),
        {"en": list(judged)},
        out,
        weight_decay=0.01,
        judge_every=100,
        seed=0,
    )


def test_blocks_hear_nothing_or_others_change(model, settings, tmp_path):
    before = {name: value.clone() for name, value in model.named_parameters()}
    judged = list(draw(20, np.random.default_rng(9), model.audio_offset))
    learn(model, settings, tmp_path / "out", judged)
    reports = [json.loads(one) for one in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in reports] == [100, 200]
    assert reports[1]["ctc"] < 0.3 * reports[0]["ctc"]
    assert reports[1]["cer_en"] < 0.05
    changed = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert "transformer.encoder.layers.0.mlp.dense_h_to_4h.weight" in changed
    assert "transformer.embedding.word_embeddings.weight" in changed
    assert not any("layers.1" in name or "output_layer" in name for name in changed)


def test_stopped_listening_ends_elsewhere(model, settings, tmp_path, interrupted):
    settings = settings.model_copy(update={"steps": 6})
    start = {name: value.clone() for name, value in model.state_dict().items()}
    learn(model, settings, tmp_path / "whole")
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    interrupted(lambda: learn(model, settings, tmp_path / "parts"), step=4)
    model.load_state_dict(start)
    learn(model, settings, tmp_path / "parts")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_utterance_too_short_for_its_letters_spoils_the_loss(model):
    listener = listening.Listener(model, 1, 0)
    said = ([model.audio_offset] * 4, [1, 2])
    alone = listening.loss(listener, [said])
    assert torch.isfinite(alone)
    torch.testing.assert_close(
        listening.loss(listener, [said, ([model.audio_offset], [1] * 9)]), alone
    )


def test_error_rate_of_the_deaf():
    """Letters that stand at no place are errors, and so are those nobody said."""

    class Listener:
        def eval(self):
            return self

        def __call__(self, utterances):
            logs = torch.zeros(max(map(len, utterances)), len(utterances), LETTERS + 1)
            for number, ids in enumerate(utterances):
                logs[torch.arange(len(ids)), number, torch.tensor(ids)] = 1.0
            return logs

    assert listening.judge(Listener(), [([1, 0, 1, 2, 2], [1, 1, 2])]) == 0.0
    assert listening.judge(Listener(), [([0, 0], [1, 2]), ([3], [3, 4])]) == pytest.approx(3 / 4)
