import numpy as np
import pytest
import torch

from agent.speech import LanguageModel
from agent.speech.checkpoint import CheckpointError
from agent.training import lora
from agent.training.lora import AdaptedLinear, Lora

SETTINGS = Lora(rank=3, alpha=6.0, targets=["query_key_value", "dense", "dense_4h_to_h"])
IDS = [5, 9, 2, 40, 7]


@pytest.fixture
def model(goldens):
    return LanguageModel.from_pretrained(goldens / "language_model")


def spoil(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, AdaptedLinear):
            torch.nn.init.normal_(module.lora_b, std=0.1)


def test_adapters_change_the_model_before_the_first_step(model):
    before = model.logits(IDS)
    names = lora.adapt(model, SETTINGS, seed=0)
    assert len(names) == 3 * model.config.num_layers
    np.testing.assert_array_equal(model.logits(IDS), before)


def test_merged_logits_differ_from_adapted_ones(model):
    names = set(model.state_dict())
    before = model.logits(IDS)
    lora.adapt(model, SETTINGS, seed=0)
    spoil(model)
    adapted = model.logits(IDS)
    assert np.abs(adapted - before).max() > 0.1
    lora.merge(model)
    np.testing.assert_allclose(model.logits(IDS), adapted, atol=1e-4, rtol=0)
    assert set(model.state_dict()) == names


def test_saved_adapters_give_other_logits(model, goldens, tmp_path):
    lora.adapt(model, SETTINGS, seed=0)
    spoil(model)
    lora.save(model, SETTINGS, tmp_path / "adapter.safetensors")
    other = LanguageModel.from_pretrained(goldens / "language_model")
    lora.load(other, tmp_path / "adapter.safetensors")
    np.testing.assert_array_equal(other.logits(IDS), model.logits(IDS))


def test_only_adapters_learn(model):
    lora.adapt(model, SETTINGS, seed=0)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.endswith(("lora_a", "lora_b")) for name in learning)


def test_a_target_that_is_none_is_not_named(model):
    with pytest.raises(ValueError, match="no linear layer is called 'q_proj', there are dense, "):
        lora.adapt(model, Lora(rank=1, alpha=1.0, targets=["q_proj"]), seed=0)


def test_another_file_is_taken_for_adapters(model, goldens, tmp_path):
    with pytest.raises(CheckpointError, match="not a file of adapters"):
        lora.load(model, goldens / "language_model" / "config.json")
    lora.adapt(model, SETTINGS, seed=0)
    lora.save(model, SETTINGS.model_copy(update={"rank": 2}), tmp_path / "a.safetensors")
    other = LanguageModel.from_pretrained(goldens / "language_model")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        lora.load(other, tmp_path / "a.safetensors")
