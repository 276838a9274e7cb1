"""The flow against what the reference computed, and what its parts promise."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.speech.checkpoint import CheckpointError, load_into, read_pickle, read_yaml
from agent.speech.flow import Flow, FlowConfig
from agent.speech.flow_encoder import EncoderCache

NO_PROMPT = torch.zeros(1, 80, 0)


@pytest.fixture(scope="module")
def section(goldens: Path) -> dict[str, Any]:
    return read_yaml(goldens / "speech_decoder" / "config.yaml")["flow"]


@pytest.fixture(scope="module")
def weights(goldens: Path) -> dict[str, torch.Tensor]:
    return read_pickle(goldens / "speech_decoder" / "flow.pt")


@pytest.fixture(scope="module")
def flow(section, weights) -> Flow:
    made = Flow(FlowConfig.from_mapping(section, 22050, "config.yaml")).eval()
    load_into(made, weights, "flow.pt")
    return made


@pytest.fixture(scope="module")
def expected(goldens: Path) -> dict[str, torch.Tensor]:
    arrays = np.load(goldens / "expected" / "flow.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.mark.parametrize("count", [1, 10, 25])
@torch.inference_mode()
def test_mel_from_the_stored_noise_is_the_references(flow, expected, count):
    tokens, noise = expected[f"n{count}_tokens"], expected[f"n{count}_z"]
    mel = flow.sample(tokens, noise, NO_PROMPT, steps=10, guidance=0.7)
    assert torch.allclose(mel, expected[f"n{count}_mel"], atol=1e-4)


@torch.inference_mode()
def test_each_stage_is_the_references(flow, expected):
    tokens, noise = expected["n25_tokens"], expected["n25_z"]
    encoded = flow.encoder(flow.input_embedding(tokens))
    assert torch.allclose(encoded, expected["n25_encoder"], atol=1e-4)
    assert torch.allclose(flow.encoder_proj(encoded), expected["n25_encoder_proj"], atol=1e-4)
    mu = flow.condition(tokens, 172)
    assert torch.allclose(mu.transpose(1, 2), expected["n25_mu"], atol=1e-4)
    assert torch.equal(flow.spk_embed_affine_layer.bias, expected["n25_spks"][0])
    for led, name in ((1.0, "cond"), (0.0, "uncond")):
        velocity = flow.velocity(
            noise, torch.zeros(1), mu, torch.zeros_like(noise), torch.tensor([led])
        )
        assert torch.allclose(velocity, expected[f"n25_step0_{name}_dphi"], atol=1e-4)


@torch.inference_mode()
def test_mel_after_a_prompt_is_the_references(flow, expected):
    tokens = torch.cat([expected["prompt_tokens"], expected["prompt_new_tokens"]], dim=1)
    prompt = expected["prompt_feat"].transpose(1, 2)
    mel = flow.sample(tokens, expected["prompt_z"], prompt, steps=10, guidance=0.7)
    assert torch.allclose(mel[..., prompt.shape[-1] :], expected["prompt_mel"], atol=1e-4)


@torch.inference_mode()
def test_no_guidance_ignores_the_estimate_without_conditions(flow, expected):
    tokens, noise = expected["n10_tokens"], expected["n10_z"]
    mel = flow.sample(tokens, noise, NO_PROMPT, steps=1, guidance=0.0)
    mu = flow.condition(tokens, noise.shape[-1])
    led = flow.velocity(noise, torch.zeros(1), mu, torch.zeros_like(noise), torch.ones(1))
    assert torch.allclose(mel, noise + led, atol=1e-6)


@torch.inference_mode()
def test_later_tokens_leave_the_encoding_of_complete_blocks_alone(flow, expected):
    embedded = flow.input_embedding(expected["n25_tokens"])
    whole, part = flow.encoder(embedded), flow.encoder(embedded[:, :20])
    assert torch.allclose(whole[:, :20], part, atol=1e-5)
    inside = flow.encoder(embedded[:, :15])
    assert torch.allclose(whole[:, :10], inside[:, :10], atol=1e-5)
    assert not torch.allclose(whole[:, 10:15], inside[:, 10:15], atol=1e-2)


@torch.inference_mode()
def test_tokens_encoded_block_by_block_are_those_encoded_at_once(flow):
    tokens = torch.randint(256, (1, 63), generator=torch.Generator().manual_seed(2))
    whole = flow.encode(tokens)
    cache = EncoderCache(window=1000)
    pieces = [flow.encode(piece, cache) for piece in torch.split(tokens, [10, 30, 10, 13], dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-4)
    assert len(cache) == 63


@torch.inference_mode()
def test_an_encoder_cache_keeps_no_more_than_its_window(flow):
    tokens = torch.randint(256, (1, 63), generator=torch.Generator().manual_seed(2))
    cache = EncoderCache(window=20)
    for piece in torch.split(tokens[:, :40], 10, dim=1):
        flow.encode(piece, cache)
    assert len(cache) == 20
    # The first layer's keys and values are those of the tokens alone; so is what one layer sees.
    fresh = EncoderCache(window=20)
    flow.encode(tokens[:, 20:40], fresh)
    assert torch.allclose(cache.layers[0][0], fresh.layers[0][0], atol=1e-5)


def test_gradients_reach_the_same_velocity_as_inference(flow, expected):
    tokens, noise = expected["n10_tokens"], expected["n10_z"]
    arguments = (noise, torch.full((1,), 0.3), flow.condition(tokens, 68), noise, torch.ones(1))
    learning = flow.velocity(*arguments)
    assert learning.requires_grad
    with torch.no_grad():
        assert torch.allclose(learning, flow.velocity(*arguments), atol=1e-5)


def test_frames_come_from_the_cumulative_count(flow):
    assert [flow.frames(n) for n in (0, 1, 10, 20, 25, 64)] == [0, 6, 68, 137, 172, 441]
    # Double precision would round 15435 down here.
    assert flow.frames(2240) == 15435


@torch.inference_mode()
def test_a_shift_and_scale_in_the_config_act_on_prompt_and_result(section, weights, flow, expected):
    config = FlowConfig.from_mapping(
        {**section, "mel_mean": -6.0, "mel_std": 2.0}, 22050, "config.yaml"
    )
    scaled = Flow(config).eval()
    load_into(scaled, weights, "flow.pt")
    tokens, noise = expected["n10_tokens"], expected["n10_z"]
    prompt = expected["n10_mel"][..., :30]
    plain = flow.sample(tokens, noise, prompt, steps=2, guidance=0.7)
    moved = scaled.sample(tokens, noise, prompt * 2 - 6, steps=2, guidance=0.7)
    assert torch.allclose(moved, plain * 2 - 6, atol=1e-4)


def _set(section: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(section)
    *parents, last = name.split(".")
    part = changed
    for parent in parents:
        part = part[parent]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return changed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", None),
        ("vocab_size", 0),
        ("vocab_size", "many"),
        ("input_frame_rate", -12.5),
        ("mel_std", 0.0),
        ("encoder.selfattention_layer_type", "rel_selfattn"),
        ("encoder.use_cnn_module", True),
        ("encoder.attention_heads", 3),
        ("encoder.block_size", 0),
        ("encoder.input_size", 32),
        ("length_regulator.channels", 64),
        ("decoder.cfm_params.content.t_scheduler", "linear"),
        ("decoder.estimator.in_channels", 240),
        ("decoder.estimator.out_channels", 100),
        ("decoder.estimator.channels", []),
        ("decoder.estimator.channels", [60, 64]),
        ("decoder.estimator.act_fn", "snakebeta"),
    ],
)
def test_a_config_of_another_architecture_is_refused_by_field(section, name, value):
    with pytest.raises(CheckpointError, match=rf"config\.yaml.*{name.split('.')[-1]}"):
        FlowConfig.from_mapping(_set(section, name, value), 22050, "config.yaml")


def test_weights_that_do_not_fit_the_config_are_refused_by_name(section, weights):
    config = FlowConfig.from_mapping(_set(section, "vocab_size", 300), 22050, "config.yaml")
    with pytest.raises(CheckpointError, match=r"flow\.pt.*input_embedding\.weight.*300"):
        load_into(Flow(config), weights, "flow.pt")
