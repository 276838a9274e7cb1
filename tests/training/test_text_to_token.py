"""Text to codes and pre-training on a few made-up pairs: what is learnt, written and resumed."""

import json
import shutil

import numpy as np
import pytest
import torch
from loguru import logger

from agent.speech import LanguageModel
from agent.training import interleaving, pretraining, text_to_token
from agent.training.examples import GIVEN, SPEECH, TEXT, losses
from agent.training.lora import Lora
from agent.training.pretraining import Shares
from agent.training.sequences import Sequences
from agent.training.shards import Shards, ShardWriter
from agent.training.text_to_token import TextToToken
from agent.training.tuning import NewModel, Tuning, judge, merge, recompute_blocks

CODES = 16
WORDS = {"one": [1, 1, 2], "two": [3, 4, 4], "three": [5, 6, 7], "four": [8, 9]}
MODEL = NewModel(
    hidden_size=32, num_layers=2, num_attention_heads=2, multi_query_group_num=1, kv_channels=16,
    ffn_hidden_size=64, seq_length=256, text_tokens=262, codes=CODES,
)  # fmt: skip
TRAIN = Tuning(
    steps=60, batch_ids=200, longest=64, learning_rate=1e-2, warmup=5, weight_decay=0.01,
    report_every=20, judge_every=60, saved_as="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    writer = ShardWriter(path)
    rng = np.random.default_rng(0)
    for number in range(60):
        words = rng.choice(list(WORDS), 3).tolist()
        codes = [code for word in words for code in WORDS[word]]
        split = "held_out" if number >= 50 else "train"
        writer.add({"id": f"p{number}", "text": " ".join(words), "split": split}, None, codes)
    return path


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("text_to_token")
    settings = text_to_token.Settings(pairs=pairs, model=MODEL, train=TRAIN)
    text_to_token.run(settings, None, path / "run", path / "made")
    return path


def log(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


def test_text_to_token_learns_nothing_or_its_checkpoint_does_not_speak(trained):
    lines = log(trained / "run")
    assert lines[-1]["speech"] < 0.5 * lines[0]["speech"]
    assert lines[-1]["held_out_speech"] < lines[0]["speech"]
    model = TextToToken.from_pretrained(trained / "made")
    said = model.say(["one two", "four"], temperature=0.5, seed=3)
    assert said == model.say(["one two", "four"], temperature=0.5, seed=3)
    assert all(0 <= code < CODES for codes in said for code in codes)
    assert all(0 < len(codes) <= 25 * 2 for codes in said)


def test_the_export_has_not_the_weights_that_did_best(pairs, tmp_path):
    train = TRAIN.model_copy(
        update={
            "steps": 3,
            "report_every": 1,
            "judge_every": 1,
            "learning_rate": 0.5,
            "warmup": 1,
            "last_rate": 1.0,
        }
    )
    settings = text_to_token.Settings(pairs=pairs, model=MODEL, train=train)
    text_to_token.run(settings, None, tmp_path / "run", tmp_path / "made")
    best = min(log(tmp_path / "run"), key=lambda line: line["held_out_speech"])
    assert best["step"] < 3  # the rate is far too high
    model = LanguageModel.from_pretrained(tmp_path / "made")
    shards = Shards(pairs)
    sequences = Sequences(model.text_tokenizer, 64)
    examples = [text_to_token.read(shards, index, sequences) for index in shards.split()[1]]
    found = judge(model, examples, 200)["held_out_speech"]
    assert found == pytest.approx(best["held_out_speech"], abs=1e-3)
    last = settings.model_copy(update={"train": train.model_copy(update={"export": "last"})})
    text_to_token.run(last, None, tmp_path / "run", tmp_path / "last")
    last_model = LanguageModel.from_pretrained(tmp_path / "last")
    assert judge(last_model, examples, 200)["held_out_speech"] > found


def test_a_text_said_in_company_is_said_differently(trained):
    model = TextToToken.from_pretrained(trained / "made")
    together = model.say(["one two three", "four", "two"])
    assert together == [model.say([text])[0] for text in ("one two three", "four", "two")]


def test_examples_are_not_as_documented(trained):
    tokenizer = LanguageModel.from_pretrained(trained / "made").text_tokenizer
    sequences = Sequences(tokenizer, 64)
    codes = "<|audio_3|><|audio_4|>"
    begin, end = "<|begin_of_audio|>", "<|end_of_audio|>"
    words = "<|begin_of_transcription|>two<|end_of_transcription|>"
    for example, text in (
        (sequences.recognition("two", [3, 4]), f"{begin}{codes}{end}{words}"),
        (sequences.reading("two", [3, 4]), f"{words}{begin}{codes}{end}"),
        (
            sequences.reading("two", [3, 4], "slowly"),
            f"<|system|>\nslowly{words}{begin}{codes}{end}",
        ),
        (
            sequences.interleaved(["one ", [3, 4], " three"]),
            f"one {begin}{codes}{end} three<|endoftext|>",
        ),
        (sequences.speech([3, 4]), f"{begin}{codes}{end}<|endoftext|>"),
        (sequences.text("two"), "two<|endoftext|>"),
    ):
        assert tokenizer.decode(example.ids) == f"[gMASK]<sop>{text}"
        assert example.kinds[:2] == [GIVEN, GIVEN]
        ids = [i for i, kind in zip(example.ids, example.kinds, strict=True) if kind == SPEECH]
        if ids:
            assert tokenizer.decode(ids) == codes + end
    assert sequences.reading("two", [3] * 64) is None
    assert sequences.recognition("two", [3] * 64) is None
    assert len(sequences.speech([3] * 99).ids) == 64


@pytest.fixture(scope="module")
def mixed(pairs, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("interleaved")
    model = TextToToken.from_pretrained(trained / "made")
    settings = interleaving.Settings(spoken=0.4, span=2.0, temperature=0.0)
    interleaving.run(settings, pairs, model, path)
    return pretraining.Settings(
        text=pairs, interleaved=path, speech=pairs, pairs=pairs, model=MODEL,
        shares=Shares(text=0.3, interleaved=0.4, speech=0.1, recognition=0.1, reading=0.1),
        train=TRAIN.model_copy(update={"steps": 12, "report_every": 4, "dropout": 0.1}),
    )  # fmt: skip


def test_a_stopped_pretraining_ends_elsewhere_or_its_checkpoint_does_not_load(
    mixed, tmp_path, interrupted
):
    pretraining.run(mixed, None, tmp_path / "whole", tmp_path / "expected")
    interrupted(lambda: pretraining.run(mixed, None, tmp_path / "stopped", None), step=7)
    pretraining.run(mixed, None, tmp_path / "stopped", tmp_path / "found")
    expected = LanguageModel.from_pretrained(tmp_path / "expected").state_dict()
    found = LanguageModel.from_pretrained(tmp_path / "found").state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    lines = log(tmp_path / "whole")
    assert lines[-1]["text"] < lines[0]["text"]
    drawn = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)["mix"]["ids"]
    for kind, share in mixed.shares:
        assert drawn[kind] / sum(drawn.values()) == pytest.approx(share, abs=0.03)


def test_a_corrupt_pair_ends_the_training_or_is_not_named(mixed, pairs, tmp_path):
    copy = shutil.copytree(pairs, tmp_path / "pairs")
    codes = bytearray((copy / "000000.ids").read_bytes())
    codes[0] ^= 1  # of the first pair
    (copy / "000000.ids").write_bytes(bytes(codes))
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["extra"]), level="WARNING")
    shares = Shares(text=0, interleaved=0, speech=1, recognition=0, reading=0)
    settings = mixed.model_copy(update={"speech": copy, "shares": shares})
    pretraining.run(settings, None, tmp_path / "run", None)
    logger.remove(sink)
    assert len(heard) == 1
    assert "sample 'p0' fails its checksum" in heard[0]["problem"]


def test_adapters_over_a_published_checkpoint_export_another_model(mixed, goldens, tmp_path):
    lora = Lora(rank=2, alpha=4.0, targets=["query_key_value", "dense_4h_to_h"])
    train = mixed.train.model_copy(update={"lora": lora, "steps": 3, "checkpointing": True})
    settings = mixed.model_copy(update={"model": None, "train": train})
    start = goldens / "language_model"
    pretraining.run(settings, start, tmp_path / "run", tmp_path / "made")
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert all("lora" in name for name in saved["weights"])
    before = LanguageModel.from_pretrained(start).state_dict()
    after = LanguageModel.from_pretrained(tmp_path / "made").state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.split(".")[-2] in lora.targets for name in changed)
    merge(start, tmp_path / "made" / "adapter.safetensors", tmp_path / "merged")
    merged = LanguageModel.from_pretrained(tmp_path / "merged").state_dict()
    for name, value in after.items():
        torch.testing.assert_close(merged[name], value)


def test_recomputing_changes_the_gradient(goldens):
    gradients = []
    for recompute in (False, True):
        model = LanguageModel.from_pretrained(goldens / "language_model")
        if recompute:
            recompute_blocks(model)
        example = Sequences(model.text_tokenizer, 64).interleaved(["hello", [1, 2], " there"])
        losses(model, [example, example]).together.backward()
        gradients.append(
            model.get_parameter("transformer.encoder.layers.0.mlp.dense_4h_to_h.weight").grad
        )
    torch.testing.assert_close(gradients[0], gradients[1])


def test_weights_of_text_and_speech_do_nothing(goldens):
    model = LanguageModel.from_pretrained(goldens / "language_model")
    example = Sequences(model.text_tokenizer, 64).interleaved(["hello", [1, 2], " there"])
    with torch.no_grad():
        equal, text = losses(model, [example]), losses(model, [example], 1.0, 0.0)
    texts, speeches = equal.counts
    assert texts == example.kinds.count(TEXT)
    assert float(text.together) == pytest.approx(float(equal.text), rel=1e-5)
    mean = (float(equal.text) * texts + float(equal.speech) * speeches) / (texts + speeches)
    assert float(equal.together) == pytest.approx(mean, rel=1e-5)


def test_a_share_without_data_or_no_start_is_accepted(mixed, tmp_path):
    with pytest.raises(ValueError, match=r"'pretrain\.speech' is missing: 'pretrain\.shares\.sp"):
        pretraining.run(mixed.model_copy(update={"speech": None}), None, tmp_path, None)
    with pytest.raises(ValueError, match="--start, or the field 'model'"):
        pretraining.run(mixed.model_copy(update={"model": None}), None, tmp_path, None)
