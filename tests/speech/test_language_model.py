"""Parity with the published language model, and what its checkpoint files may get wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.speech import LanguageModel
from agent.speech.checkpoint import CheckpointError
from agent.speech.kv_cache import KVCache

CASES = ("speech", "text", "short", "single")


@pytest.fixture(scope="module")
def model(goldens):
    return LanguageModel.from_pretrained(goldens / "language_model")


@pytest.fixture(scope="module")
def expected(goldens):
    with np.load(goldens / "expected" / "lm.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def checkpoint(goldens, tmp_path):
    return shutil.copytree(goldens / "language_model", tmp_path / "language_model")


@pytest.mark.parametrize("case", CASES)
def test_logits_differ_from_the_reference(model, expected, case):
    tail = expected[f"{case}_logits_tail"]
    logits = model.logits(expected[f"{case}_input_ids"])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[-len(tail) :], tail, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_greedy_continuation_differs_from_the_reference(model, expected, case):
    ids = expected[f"{case}_input_ids"]
    assert list(model.generate(ids, 60)) == expected[f"{case}_greedy"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_cache_changes_the_logits_of_a_step(model, expected, case):
    """Token by token over the cache gives what the reference's own steps gave."""
    cache = model.cache(capacity=1)  # grows, over and over
    new = torch.tensor(expected[f"{case}_input_ids"])
    for token, logits in zip(
        expected[f"{case}_greedy"], expected[f"{case}_step_logits"], strict=True
    ):
        with torch.no_grad():
            step = model(new, [len(new)], [cache])[-1]
        np.testing.assert_allclose(step, logits, atol=1e-4, rtol=0)
        new = torch.tensor([token])


def test_bfloat16_rounds_elsewhere_than_the_reference(goldens, expected):
    model = LanguageModel.from_pretrained(goldens / "language_model", dtype=torch.bfloat16)
    for case in CASES:
        logits = model.logits(expected[f"{case}_input_ids"])[-1]
        # Logits near 10 are 0.06 apart in bfloat16; other kernels may round another way.
        np.testing.assert_allclose(logits, expected[f"{case}_bf16_last_logits"], atol=0.13, rtol=0)


def test_sequences_of_a_batch_see_each_other(model, expected):
    """The reference's left-padded batch, packed here: no padding, the same logits."""
    rows = [
        row[mask.astype(bool)]
        for row, mask in zip(expected["padded_input_ids"], expected["padded_mask"], strict=True)
    ]
    lengths = [len(row) for row in rows]
    with torch.no_grad():
        logits = model(torch.tensor(np.concatenate(rows)), lengths)
    last = logits[np.cumsum(lengths) - 1]
    np.testing.assert_allclose(last, expected["padded_last_logits"], atol=1e-4, rtol=0)


def test_any_division_of_a_prompt_changes_its_logits(model, expected):
    ids = torch.tensor(expected["speech_input_ids"])
    whole = model.logits(ids)
    generator = np.random.default_rng(2)
    for _ in range(5):
        cuts = np.sort(generator.integers(1, len(ids), 6)).tolist()
        cache, parts = model.cache(), []
        for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
            if end > start:
                with torch.no_grad():
                    parts.append(model(ids[start:end], [end - start], [cache]))
        np.testing.assert_allclose(torch.cat(parts), whole, atol=1e-4, rtol=0)


def test_cut_cache_remembers_what_was_cut(model, expected):
    ids = torch.tensor(expected["text_input_ids"])
    cache = model.cache()
    with torch.no_grad():
        model(ids, [len(ids)], [cache])
        cache.truncate(50)
        other = torch.tensor(expected["speech_input_ids"])[:20]
        logits = model(other, [20], [cache])
    whole = model.logits(torch.cat((ids[:50], other)))[50:]
    np.testing.assert_allclose(logits, whole, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="cannot cut a cache of 70 tokens to 71"):
        cache.truncate(71)


@torch.no_grad()
def test_quick_way_gives_other_logits(model, expected):
    """Prompts and single tokens in one batch, some of their logits, against all at once."""
    names = ("speech", "text", "short", "single")
    prompts = [torch.tensor(expected[f"{name}_input_ids"]) for name in names]
    whole = [torch.tensor(model.logits(torch.cat((ids, ids[:3])))) for ids in prompts]
    caches = [model.cache(1) for _ in prompts]
    model(torch.cat(prompts[:2]), [len(ids) for ids in prompts[:2]], caches[:2], torch.tensor([0]))
    chunks = [prompts[0][:1], prompts[1][:3], prompts[2], prompts[3]]
    lengths = [len(chunk) for chunk in chunks]
    ends = np.cumsum(lengths) - 1
    rows = torch.tensor([ends[3], ends[0], ends[1] - 1])
    logits = model(torch.cat(chunks), lengths, caches, rows)
    places = ((3, len(prompts[3]) - 1), (0, len(prompts[0])), (1, len(prompts[1]) + 1))
    right = torch.stack([whole[n][place] for n, place in places])
    np.testing.assert_allclose(logits, right, atol=1e-4, rtol=0)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert model(torch.tensor([3, 4]), [1, 1], caches[2:], nothing).shape == (0, 576)
    logits = model(torch.tensor([5, 6]), [1, 1], caches[2:])
    right = [model.logits([*prompts[n], *more])[-1] for n, more in ((2, (3, 5)), (3, (4, 6)))]
    np.testing.assert_allclose(logits, right, atol=1e-4, rtol=0)


@torch.no_grad()
def test_quick_way_remembers_old_weights(goldens):
    """Weights may change, or the whole model its type, after its first step."""
    model = LanguageModel.from_pretrained(goldens / "language_model")
    ids = torch.tensor([5])
    for change in (
        lambda: model.transformer["output_layer"].weight.mul_(2.0),
        lambda: model.transformer["encoder"]["layers"][1].mlp.dense_h_to_4h.weight.mul_(2.0),
        lambda: model.transformer["encoder"]["layers"][0].input_layernorm.weight.mul_(2.0),
        lambda: model.double(),
        lambda: model.float(),
    ):
        model(ids, [1], [model.cache()])
        change()
        logits = model(ids, [1], [model.cache()])
        np.testing.assert_allclose(logits, model.logits(ids), atol=1e-4, rtol=0)


def test_model_cannot_be_trained(model, expected):
    """Gradients reach every parameter, through packed sequences."""
    ids = torch.tensor(expected["short_input_ids"])
    logits = model(torch.cat((ids, ids)), [len(ids)] * 2)
    logits.logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()


def test_sampling_ignores_its_seed_or_the_process(model, expected):
    ids = expected["short_input_ids"]
    state = torch.get_rng_state()
    first = list(model.generate(ids, 20, temperature=1.0, top_p=0.9, seed=1))
    assert first == list(model.generate(ids, 20, temperature=1.0, top_p=0.9, seed=1))
    assert first != list(model.generate(ids, 20, temperature=1.0, top_p=0.9, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_stop_id_is_yielded(model, expected):
    ids, greedy = expected["short_input_ids"], expected["short_greedy"].tolist()
    assert list(model.generate(ids, 60, stop_ids={greedy[5]})) == greedy[:5]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 576], "token id 576 at position 1, expected 0 to 575"),
        ([-1], "token id -1 at position 0"),
        (np.zeros(0, int), "no token ids"),
        ([1.5], "dtype torch.float32, expected one row of whole numbers"),
        ([[1]], r"shape \(1, 1\)"),
        (np.zeros(1025, int), "1025 token ids, expected at most .* seq_length of 1024"),
    ],
)
def test_bad_ids_reach_the_model(model, ids, message):
    with pytest.raises(ValueError, match=message):
        model.logits(ids)


def test_sequence_grows_past_the_last_position(model):
    with pytest.raises(ValueError, match="1025 tokens are more than the model's seq_length"):
        list(model.generate(np.zeros(1000, int), 100))


def test_cache_is_allocated_for_every_position(model):
    cache = KVCache(model.config, capacity=4)
    cache.reserve(5)
    assert cache._store.shape[3] == 8


def _set(checkpoint, name, field, value):
    path = checkpoint / name
    config = json.loads(path.read_text())
    if value is None:
        del config[field]
    else:
        config[field] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", None, "config.json: field 'hidden_size' is missing"),
        ("hidden_size", "64", "field 'hidden_size' is '64', expected int"),
        ("num_layers", 0, "field 'num_layers' is 0, expected 1"),
        ("rmsnorm", False, "field 'rmsnorm' is False, expected True"),
        ("multi_query_group_num", 3, "'multi_query_group_num' is 3, expected a divisor"),
        ("kv_channels", 6, "'kv_channels' is 6, expected a multiple of 4"),
        ("eos_token_id", [9999], "'eos_token_id' is .9999., expected ids"),
        ("torch_dtype", "int4", "'torch_dtype' is 'int4', expected one of float32"),
        ("ffn_hidden_size", 64, "dense_h_to_4h.weight' has shape .256, 64., .* asks for .128, 64."),
        ("padded_vocab_size", 575, "'padded_vocab_size' is 575, expected at least 576"),
    ],
)
def test_wrong_config_is_accepted(checkpoint, field, value, message):
    _set(checkpoint, "config.json", field, value)
    with pytest.raises(CheckpointError, match=message):
        LanguageModel.from_pretrained(checkpoint)


def test_damaged_shard_is_accepted(checkpoint):
    shard = checkpoint / "model-00002-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00004\.safetensors"):
        LanguageModel.from_pretrained(checkpoint)


def test_missing_weight_is_filled_with_noise(checkpoint):
    shard = checkpoint / "model-00004-of-00004.safetensors"
    tensors = load_file(shard)
    del tensors["transformer.output_layer.weight"]
    save_file(tensors, shard)
    with pytest.raises(CheckpointError, match=r"'transformer\.output_layer\.weight'"):
        LanguageModel.from_pretrained(checkpoint)


def test_half_precision_weights_do_not_load(checkpoint, expected):
    """A checkpoint saved in fp16, as the nano one is, runs in float32."""
    for shard in checkpoint.glob("*.safetensors"):
        save_file({name: t.half() for name, t in load_file(shard).items()}, shard)
    model = LanguageModel.from_pretrained(checkpoint)
    assert model.rope.dtype == torch.float32
    tail = expected["short_logits_tail"]
    np.testing.assert_allclose(model.logits(expected["short_input_ids"]), tail, atol=0.1, rtol=0)
