"""The flow's recipe: what it learns from is what a stream will ask, and what it writes loads."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agent.speech import SpeechDecoder
from agent.speech.checkpoint import read_yaml
from agent.speech.flow import Flow, FlowConfig
from agent.training import flow as recipe
from agent.training.flow import Settings, StandIn, Take, Windows, export, flow_losses, load_takes
from agent.training.voices import AGENT_VOICES

SETTINGS = Path(__file__).parents[2] / "agent" / "nano" / "recipe_flow.yaml"


@pytest.fixture(scope="module")
def section(goldens: Path) -> dict[str, Any]:
    found = read_yaml(goldens / "speech_decoder" / "config.yaml")["flow"]
    return {**found, "mel_mean": -6.0, "mel_std": 2.0}


@pytest.fixture
def flow(section) -> Flow:
    torch.manual_seed(0)
    return Flow(FlowConfig.from_mapping(section, 22050, "config.yaml"))


@pytest.fixture
def takes(flow) -> list[Take]:
    """Ids and frames are numbered, so that a window tells where it was cut."""
    made = []
    for count in (23, 57):
        frames = torch.arange(flow.frames(count), dtype=torch.float32)
        made.append(Take(torch.arange(count), frames.expand(80, -1) * 2 - 6, False))
    return made


def test_windows_begin_at_block_borders_and_mel_fits_tokens(flow, takes):
    windows, rng = Windows(takes, flow, [10, 20, 30]), np.random.default_rng(1)
    led = 0
    for _ in range(40):
        batch = windows.draw(rng, 3)
        windowed = zip(batch.tokens, batch.mel, batch.prompt, batch.known, strict=True)
        for tokens, mel, prompt, given in windowed:
            begin = int(tokens[0])
            assert begin % 10 == 0
            assert mel.shape[1] == flow.frames(len(tokens))
            # The normalisation turns the numbers back into themselves.
            assert mel[0, 0] == flow.frames(begin)
            known = int((prompt[0] != 0).sum())
            assert known == given
            if known:
                led += 1
                blocks = [flow.frames(begin + n) - flow.frames(begin) for n in (10, 20, 30)]
                assert known in blocks
                assert known < mel.shape[1]
                assert (prompt - mel)[:, 1:known].abs().max() < 1.0
    assert led > 20


def test_windows_of_a_first_block_have_no_prompt(flow, takes):
    batch = Windows(takes, flow, [10]).draw(np.random.default_rng(2), 16)
    assert not batch.prompt.any()


def test_what_a_stream_throws_away_is_learnt(flow, takes):
    """Where a prompt says what comes the flow may say anything, unless the prompt is hidden."""
    batch = Windows(takes, flow, [20]).draw(np.random.default_rng(4), 6)
    led = batch.known > 0
    assert led.any()
    velocity = flow.eval().velocity

    def spoilt(state, time, mu, prompt, shown):
        found = velocity(state, time, mu, prompt, shown)
        for row, (known, seen) in enumerate(zip(batch.known, shown, strict=True)):
            found[row, :, : int(known)] += 5.0 if seen else 0.0
        return found

    def matching(hidden):
        return flow_losses(flow, batch, hidden, torch.Generator().manual_seed(5))[0]

    before = [matching(hidden) for hidden in (0.0, 1.0)]
    flow.velocity = spoilt
    assert [matching(hidden) for hidden in (0.0, 1.0)] == before
    batch.known[led] -= 1
    assert matching(0.0) > before[0]


def test_training_steps_lower_both_losses(flow, section):
    generator = torch.Generator().manual_seed(0)
    take = Take(torch.randint(256, (20,), generator=generator), torch.full((80, 137), -4.0), False)
    windows, rng = Windows([take], flow, [20]), np.random.default_rng(3)
    recipe.initialise(flow, 0)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses = flow_losses(flow, windows.draw(rng, 2), 0.2, generator)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        history.append([loss.item() for loss in losses])
    assert np.all(np.mean(history[-3:], axis=0) < np.mean(history[:3], axis=0))


def test_stand_in_codes_are_as_many_as_the_tokenizers(flow, write_corpus, tmp_path):
    rng = np.random.default_rng(0)
    voices = [*AGENT_VOICES.values(), "somebody else", AGENT_VOICES["en"]]
    lengths = [16000, 12801, 20000, 12800]
    noise = [rng.normal(0, 3000, length).astype(np.int16) for length in lengths]
    fields = [{"role": "agent", "voice": voice} for voice in voices]
    corpus = write_corpus(tmp_path, list(zip(fields, noise, strict=True)))
    stand_in = StandIn(corpus, codes=8, seed=0, rounds=2)
    takes = load_takes(corpus, stand_in, flow, "train")
    assert [len(take.tokens) for take in takes] == [13, 10, 11]
    assert [take.mel.shape[1] for take in takes] == [flow.frames(n) for n in (13, 10, 11)]
    assert all(0 <= int(take.tokens.min()) <= int(take.tokens.max()) < 8 for take in takes)
    with pytest.raises(ValueError, match="no utterance of nobody or noone in split 'train'"):
        load_takes(corpus, stand_in, flow, "train", ("nobody", "noone"))


def test_an_export_loads_and_leaves_the_vocoders_section_alone(flow, section, goldens, tmp_path):
    published = goldens / "speech_decoder"
    shutil.copy(published / "hift.pt", tmp_path / "hift.pt")
    hift = read_yaml(published / "config.yaml")["hift"]
    before = {"sample_rate": 22050, "hift": hift}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before), encoding="utf-8")
    export(flow, section, {"steps": 3, "prompt_blocks": 2}, tmp_path)
    assert read_yaml(tmp_path / "config.yaml")["hift"] == hift
    decoder = SpeechDecoder.from_pretrained(tmp_path)
    assert (decoder.settings.steps, decoder.settings.prompt_blocks) == (3, 2)
    assert decoder.flow.config.mel_std == 2.0
    assert len(decoder.decode(torch.arange(12))) == decoder.flow.frames(12) * 256


def test_the_shipped_recipes_model_can_be_built():
    settings = Settings.read(SETTINGS)
    config = FlowConfig.from_mapping(settings.model, 22050, SETTINGS)
    assert set(settings.lengths) <= set(range(0, 100, config.encoder.block_size))
    stages = [settings.answers_at(step) for step, _ in settings.answers]
    assert len(stages) > 1
    assert stages == sorted(set(stages))


def test_a_stopped_training_ends_elsewhere(section, takes, tmp_path, interrupted):
    changes = {"model": section, "steps": 4, "batch": 2, "lengths": [10, 20], "report_every": 2}
    changes |= {"judge_every": 4, "bfloat16": False}
    settings = Settings.read(SETTINGS).model_copy(update=changes)

    def train(out):
        torch.manual_seed(0)
        flow = Flow(FlowConfig.from_mapping(section, 22050, "config.yaml"))
        recipe.initialise(flow, 0)
        return recipe.train(settings, flow, takes, takes, tmp_path / out).values

    whole = train("whole")
    interrupted(lambda: train("stopped"), step=3)
    stopped = train("stopped")
    for name, value in whole.items():
        torch.testing.assert_close(stopped[name], value, rtol=0, atol=0)
