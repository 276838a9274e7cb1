"""The vocoder's recipe: its discriminators, its two stages, and what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.speech import SpeechDecoder
from agent.training import vocoder as recipe
from agent.training.discriminators import (
    Discriminators,
    PeriodDiscriminator,
    ResolutionDiscriminator,
    feature_distance,
    passing,
    telling_apart,
)
from agent.training.mel import log_mel
from agent.training.vocoder import Adversarial, Settings, Take, Training

SETTINGS = Path(__file__).parents[2] / "agent" / "nano" / "recipe_vocoder.yaml"
TRAINING = Training(
    steps=4, batch=2, frames=8, lr=1e-3, average=0.5, bfloat16=False, report_every=1, seed=0,
    adversarial=Adversarial(start=2, width=2),
)  # fmt: skip


@pytest.fixture
def takes():
    time = torch.arange(40 * 256) / 22_050
    made = []
    for pitch in (150.0, 220.0):
        wave = 0.3 * torch.sin(2 * torch.pi * pitch * time)
        made.append(Take(wave, log_mel(wave), torch.full((40,), pitch)))
    return made


def load(goldens):
    return SpeechDecoder.from_pretrained(goldens / "speech_decoder").vocoder


def log(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


def test_a_period_is_not_seen_in_columns():
    """What repeats every period looks the same in every row, and so does its judgement."""
    torch.manual_seed(0)
    judge = PeriodDiscriminator(5, width=2)
    audio = torch.tensor([0.1, -0.4, 0.3, 0.2, 0.0]).repeat(1, 200)
    opinion, features = judge(audio)
    inner = opinion[0, 0, 1:-1]
    torch.testing.assert_close(inner, inner[:1].expand_as(inner), atol=1e-5, rtol=0)
    assert opinion.shape[-1] == 5
    assert [feature.shape[1] for feature in features] == [2, 8, 32, 64, 64]
    assert judge(torch.randn(3, 1003))[0].shape[0] == 3


def test_a_spectrogram_has_another_resolution():
    judge = ResolutionDiscriminator((512, 50, 240), width=2)
    opinion, features = judge(torch.randn(2, 4000))
    assert [feature.shape[2] for feature in features] == [257, 257, 257, 257, 257]
    assert features[0].shape[3] == 81
    assert opinion.shape[1] == 1
    silence = torch.zeros(1, 4000, requires_grad=True)
    judge(silence)[0].sum().backward()
    assert torch.isfinite(silence.grad).all()


def test_losses_do_not_know_who_is_right():
    right = [(torch.ones(2, 1, 3), [torch.ones(2, 4)])]
    wrong = [(torch.zeros(2, 1, 3), [torch.zeros(2, 4)])]
    assert telling_apart(right, wrong) == 0
    assert telling_apart(wrong, right) == 2
    assert passing(right) == 0
    assert passing(wrong) == 1
    assert feature_distance(right, wrong) == 1


def test_discriminators_cannot_learn_to_tell_noise_from_a_tone():
    torch.manual_seed(0)
    judges = Discriminators(width=2)
    optimizer = torch.optim.AdamW(judges.parameters(), lr=3e-3)
    tone = 0.3 * torch.sin(torch.arange(2048) / 10)[None]
    history = []
    for _ in range(12):
        loss = telling_apart(judges(tone), judges(0.3 * torch.randn(1, 2048)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-3:]) < 0.9 * np.mean(history[:3])


def test_a_stopped_training_ends_elsewhere_or_its_export_does_not_load(
    goldens, takes, tmp_path, interrupted
):
    whole = recipe.train(TRAINING, load(goldens), takes, tmp_path / "whole").values
    interrupted(lambda: recipe.train(TRAINING, load(goldens), takes, tmp_path / "stopped"), step=3)
    model = load(goldens)
    average = recipe.train(TRAINING, model, takes, tmp_path / "stopped")
    for name, value in whole.items():
        torch.testing.assert_close(average.values[name], value, rtol=0, atol=0)
    lines = log(tmp_path / "whole")
    assert [line["apart"] > 0 for line in lines] == [False, False, True, True]
    average.copy_to(model)
    recipe.plain(model)
    from agent.speech.checkpoint import read_yaml

    config = read_yaml(goldens / "speech_decoder" / "config.yaml")
    recipe.export(model, config["hift"], tmp_path / "made")
    exported = torch.load(tmp_path / "made" / "hift.pt", weights_only=True)
    original = torch.load(goldens / "speech_decoder" / "hift.pt", weights_only=True)
    assert exported.keys() == original.keys()


def test_regression_alone_makes_it_no_better(goldens, takes, tmp_path):
    training = TRAINING.model_copy(update={"adversarial": None, "steps": 12, "lr": 3e-3})
    recipe.train(training, load(goldens), takes, tmp_path)
    lines = log(tmp_path)
    assert np.mean([line["mel"] for line in lines[-3:]]) < np.mean(
        [line["mel"] for line in lines[:3]]
    )


def test_the_shipped_recipe_is_refused():
    assert Settings.read(SETTINGS).adversarial is None
