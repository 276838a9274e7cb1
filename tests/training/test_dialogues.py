"""Spoken dialogues as the engine will meet them, and a fine-tuning on a few."""

import json

import numpy as np
import pytest
import torch
from loguru import logger

from agent.speech import LanguageModel
from agent.speech.prompt import Interleave, Prompt
from agent.speech.system_prompt import SPEECH_SYSTEM, TEXT_SYSTEM, system_prompt
from agent.training import finetuning
from agent.training.dialogues import Dialogues
from agent.training.examples import GIVEN, SPEECH, TEXT
from agent.training.finetuning import Dialogue
from agent.training.lora import Lora
from agent.training.shards import ShardWriter
from agent.training.tuning import Tuning

TOOL = {"name": "book", "description": "Books.", "parameters": {"type": "object"}}
TURNS = [
    {"role": "caller", "text": "Book me in, cheerfully.", "codes": [0, 5]},
    {"role": "agent", "text": "One moment.", "codes": [5, 35]},
    {"role": "call", "name": "book", "arguments": {"day": "Montag ä"}},
    {"role": "result", "text": "done"},
    {"role": "agent", "text": "You are booked!", "codes": [35, 70]},
    {"role": "caller", "text": "Thanks"},
    {"role": "agent", "text": "Bye.", "codes": [70, 80]},
]
CODES = [number % 200 for number in range(80)]


@pytest.fixture(scope="module")
def tokenizer(goldens):
    return LanguageModel.from_pretrained(goldens / "language_model").text_tokenizer


def test_a_dialogue_is_written_otherwise_than_a_call(tokenizer):
    entry = {"turns": TURNS, "instructions": "Be brief.", "tools": [TOOL]}
    example = Dialogues(tokenizer).example(entry, CODES)
    text = tokenizer.decode(example.ids)
    prompt, reply = Prompt(tokenizer), "<|assistant|>streaming_transcription\n"
    call = f"<|assistant|>book\n{json.dumps({'day': 'Montag ä'}, ensure_ascii=False)}"
    assert f"{call}<|observation|>\ndone{reply}" in text
    assert "Be brief." in text
    assert '## book\n\n{\n    "name": "book"' in text
    opening = prompt.opening(system_prompt(True, "Be brief.", [TOOL]))
    answer = Interleave().arrange(
        tokenizer.encode_plain("One moment."), tokenizer.speech_ids(CODES[5:35])
    )
    start = [*opening, *prompt.spoken(CODES[:5]), *answer]
    assert example.ids[: len(start)] == start
    assert f"Thanks{reply}Bye.<|audio_70|>" in text
    assert example.ids[-1] == prompt.user


def test_what_the_agent_does_not_decide_is_learnt(tokenizer):
    example = Dialogues(tokenizer).example({"turns": TURNS}, CODES)
    pairs = list(zip(example.ids, example.kinds, strict=True))
    learnt = tokenizer.decode(i for i, kind in pairs if kind == TEXT)
    arguments = '{"day": "Montag ä"}'
    assert learnt == (
        f"One moment.<|assistant|>book\n{arguments}<|observation|>You are booked!<|user|>"
        "Bye.<|user|>"
    )
    spoken = [i - tokenizer.audio_offset for i, kind in pairs if kind == SPEECH]
    assert spoken == CODES[5:]
    given = tokenizer.decode(i for i, kind in pairs if kind == GIVEN)
    assert "done" in given
    assert "Thanks" in given


def test_a_typed_beginning_gets_the_prompt_of_speech(tokenizer):
    typed = [{"role": "caller", "text": "Hello"}, {"role": "agent", "text": "Hi", "codes": [0, 9]}]
    text = tokenizer.decode(Dialogues(tokenizer).example({"turns": typed}, CODES).ids)
    assert TEXT_SYSTEM in text
    assert SPEECH_SYSTEM not in text
    assert system_prompt(True, None, ()) == SPEECH_SYSTEM


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (TURNS[1:], "turn 1: 'agent' may not follow 'nothing'"),
        ([TURNS[0], TURNS[3]], "turn 2: 'result' may not follow 'caller'"),
        ([TURNS[0], {"role": "agent", "text": "Hi"}], "turn 2: the agent's turn has no speech"),
        (
            [TURNS[0], {"role": "agent", "text": "word " * 60, "codes": [0, 9]}],
            "turn 2: 9 speech tokens are too few",
        ),
    ],
)
def test_a_wrong_turn_is_not_named(tokenizer, turns, message):
    with pytest.raises(ValueError, match=message):
        Dialogues(tokenizer).example({"turns": turns}, CODES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("dialogues")
    writer = ShardWriter(path)
    for number in range(6):
        turns = TURNS if number != 2 else TURNS[1:]
        split = "held_out" if number == 5 else "train"
        writer.add({"id": f"d{number}", "split": split, "turns": turns}, codes=np.array(CODES))
    return path


def settings(data, **changes):
    values = {
        "steps": 4, "batch_ids": 700, "longest": 1000, "learning_rate": 3e-3, "warmup": 1,
        "report_every": 1, "judge_every": 4, "saved_as": "float32", "speech_weight": 5.0,
    }  # fmt: skip
    return finetuning.Settings(
        dialogues={"calls": Dialogue(data=data)}, train=Tuning(**values | changes)
    )


@pytest.mark.parametrize(
    "lora", [None, Lora(rank=2, alpha=8.0, targets=["query_key_value", "dense"])]
)
def test_finetuning_learns_nothing_or_cannot_be_resumed(data, goldens, tmp_path, interrupted, lora):
    start = goldens / "language_model"
    recipe = settings(data, lora=lora)
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["extra"]), level="WARNING")
    finetuning.run(recipe, start, tmp_path / "whole", tmp_path / "expected")
    logger.remove(sink)
    assert [(extra["data"], extra["dialogue"]) for extra in heard] == [("calls", "d2")]
    interrupted(lambda: finetuning.run(recipe, start, tmp_path / "stopped", None), step=2)
    finetuning.run(recipe, start, tmp_path / "stopped", tmp_path / "found")
    models = [LanguageModel.from_pretrained(tmp_path / name) for name in ("expected", "found")]
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, rtol=0, atol=0)
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["text"] < first["text"]
    assert last["speech"] < first["speech"]
    assert last["held_out_text"] < first["text"]
