"""The guard breaks loops and leaves ordinary answers alone."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.offline import read_wav
from agent.speech import LanguageModel, SpeechTokenizer
from agent.speech.generation import GenerationEngine
from agent.speech.repetition import LONGEST_RUN, SPEECH_SPAN, TEXT_SPAN, RepetitionGuard
from agent.speech.request import TurnRequest
from agent.speech.sampling import Choice, choose

ROOT = Path(__file__).parents[2]
AUDIO = (1000, 2000)


def fed(ids, **settings):
    guard = RepetitionGuard(AUDIO, **settings)
    for token in ids:
        guard.push(token)
    return guard


def first_barred(ids, **settings):
    """How many ids pass before the next one is barred; all where none is."""
    guard = RepetitionGuard(AUDIO, **settings)
    for position, token in enumerate(ids):
        if token in guard.barred:
            return position
        guard.push(token)
    return len(ids)


def most_often(ids, length):
    """How often the commonest span of more than one id occurs, overlaps not counted."""
    times, begun = Counter(), {}
    for start in range(len(ids) - length + 1):
        span = tuple(ids[start : start + length])
        if len(set(span)) > 1 and start - begun.get(span, -length) >= length:
            times[span] += 1
            begun[span] = start
    return max(times.values(), default=0)


def test_steady_sound_goes_on_past_three_seconds():
    assert first_barred([1005] * 100) == LONGEST_RUN
    assert fed([1005] * LONGEST_RUN).barred == {1005}
    assert fed([*[1005] * LONGEST_RUN, 1006]).barred == set()


def test_span_is_said_a_third_time():
    span = list(range(1000, 1000 + SPEECH_SPAN))
    others = [1500, *span, 1501, 1502, *span, 1503, *span]
    assert first_barred(others) == len(others) - 1
    assert first_barred(others, speech_span=SPEECH_SPAN + 1) == len(others)
    assert first_barred(others, speech_span=8) < len(others) - 1


def test_text_span_is_said_a_third_time():
    span = list(range(10, 10 + TEXT_SPAN))
    assert first_barred([*span, 50, *span, 51, *span]) == 3 * TEXT_SPAN + 1


def test_interleave_hides_a_repetition():
    """Speech is cut by text that differs, and the other way round."""
    span = list(range(1000, 1000 + SPEECH_SPAN))
    ids, text = [], 0
    for _ in range(3):
        for start in range(0, SPEECH_SPAN, 5):
            ids += [*span[start : start + 5], text % 900]
            text += 1
    assert first_barred(ids) == len(ids) - 2


def test_recurring_pause_is_barred():
    pause = [1000] * 25
    ids = [i for n in range(20) for i in (*pause, 1001 + n)]
    assert first_barred(ids) == len(ids)


def test_overlapping_occurrences_count():
    """Two seconds of a syllable repeated is speech; a loop of it is not."""
    ids = [1000, 1001, 1002] * 30
    assert 2 * SPEECH_SPAN < first_barred(ids) <= 4 * SPEECH_SPAN


def test_span_of_one_code_is_accepted():
    with pytest.raises(ValueError, match="speech_span is 1, expected 2 or more"):
        RepetitionGuard(AUDIO, speech_span=1)


@pytest.fixture(scope="module")
def looping(goldens, tmp_path_factory):
    """A model that sees only the last id, so that greedy answers go round in a circle."""
    path = shutil.copytree(goldens / "language_model", tmp_path_factory.mktemp("lm") / "long")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "seq_length": 2100}))
    model = LanguageModel.from_pretrained(path)
    for block in model.transformer["encoder"]["layers"]:
        with torch.no_grad():
            block.self_attention.dense.weight.zero_()
    return model


def test_loop_is_not_broken(looping, goldens):
    audio = (looping.audio_offset, looping.audio_offset + looping.text_tokenizer.audio_count)
    with np.load(goldens / "expected" / "lm.npz") as arrays:
        prompt = arrays["short_input_ids"]
    answers = {}
    for guarded in (False, True):
        guard = RepetitionGuard(audio)
        cache, new, ids = looping.cache(), torch.tensor(prompt), []
        for _ in range(2000):
            with torch.no_grad():
                last = torch.tensor([len(new) - 1])
                logits = looping(new, [len(new)], [cache], last)
            barred = {*looping.config.eos_token_id, *(guard.barred if guarded else ())}
            (token,) = choose(logits, [Choice(0.0, 1.0, None, barred=barred)])
            guard.push(token)
            ids.append(token)
            new = torch.tensor([token])
        answers[guarded] = ids
    assert len(set(answers[False])) < 20
    assert len(set(answers[True])) > 80
    speech = [i for i in answers[True] if looping.text_tokenizer.is_speech(i)]
    text = [i for i in answers[True] if not looping.text_tokenizer.is_speech(i)]
    assert most_often(speech, SPEECH_SPAN) <= 2
    assert most_often(text, TEXT_SPAN) <= 2
    assert first_barred([i - audio[0] + AUDIO[0] for i in speech]) == len(speech)


def test_ordinary_answer_is_changed(monkeypatch):
    """Nothing is ever barred in what the shipped model answers to the demo's lines."""
    barred = []

    class Watched(RepetitionGuard):
        @property
        def barred(self):
            barred.extend(super().barred)
            return super().barred

    monkeypatch.setattr("agent.speech.generation.RepetitionGuard", Watched)
    checkpoint = ROOT / "agent" / "nano" / "checkpoint"
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    model = LanguageModel.from_pretrained(checkpoint / "language_model")
    engine = GenerationEngine(model, lead_limit=10_000)
    lines = sorted((ROOT / "telephony" / "simulator" / "demo" / "lines").glob("*.wav"))
    for line in lines:
        codes = tokenizer.encode([read_wav(line)])[0]
        engine.submit(line.stem, codes, TurnRequest(temperature=0.0))
    said = Counter()
    while not engine.idle:
        for piece in engine.step():
            said[piece.session] += len(piece.speech_tokens)
    assert len(said) == len(lines)
    assert min(said.values()) > 20
    assert not barred
