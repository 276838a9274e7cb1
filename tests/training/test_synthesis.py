import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agent.training import synthesis, voices
from agent.training.data import Corpus
from agent.training.phrasings import Intent, Line
from agent.training.shards import SAMPLE_RATE
from agent.training.synthesis import Settings, agent_orders, caller_orders, write
from agent.training.voices import CALLERS, level, trim

synthesisers = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("flite", "espeak-ng", "festival")),
    reason="flite, espeak-ng or festival is not installed",
)


@pytest.fixture
def line():
    hours = Intent("hours", "We are open.", None, ("When are you open?",), ("Are you open?",), 4)
    return Line("A clinic", (hours,))


def test_unseen_voices_speak_only_held_out_sentences(line):
    orders = caller_orders(line, ["Something else."] * 30, seed=0)
    unseen = {voice.name for voice in CALLERS if not voice.seen}
    assert {order.voice for order in orders if not order.seen} == unseen
    assert {order.split for order in orders if order.voice in unseen} == {"held_out"}
    assert len({order.id for order in orders}) == len(orders)


def test_agent_has_one_canonical_answer_at_its_own_pace(line):
    canonical = [order for order in agent_orders(line, [], seed=0) if order.canonical]
    assert [(order.text, order.manner.stretch) for order in canonical] == [("We are open.", 1.0)]


def test_phones_follow_the_audio_when_silence_is_cut():
    speech = 0.3 * np.sin(np.arange(SAMPLE_RATE // 2) / 5)
    quiet = np.zeros(SAMPLE_RATE // 2)
    audio = np.concatenate([quiet, speech, quiet]).astype(np.float32)
    cut, phones = trim(audio, [("pau", 0.5), ("aa", 1.0), ("pau", 1.2), ("pau", 1.5)], keep=0.1)
    assert len(cut) / SAMPLE_RATE == pytest.approx(0.7, abs=0.021)
    assert phones is not None
    assert [name for name, _ in phones] == ["pau", "aa", "pau"]
    ends = [end for _, end in phones]
    np.testing.assert_allclose(ends, [0.1, 0.6, 0.7], atol=0.021)


def test_level_never_clips():
    spike = np.zeros(16000, np.float32)
    spike[100] = 0.5
    assert np.abs(level(spike, rms=0.3)).max() <= 0.951


def test_missing_program_is_named(monkeypatch):
    monkeypatch.setattr(voices.shutil, "which", lambda name: None if name == "flite" else name)
    with pytest.raises(RuntimeError, match="not installed: flite"):
        voices.require_synthesisers()


def test_shipped_settings_name_no_line():
    settings = Settings.read(Path(__file__).parents[2] / "agent" / "nano" / "recipe_corpus.yaml")
    assert settings.line.is_file()
    assert settings.words.is_file()


def test_a_stopped_rendering_starts_again_or_leaves_a_gap(line, tmp_path, monkeypatch):
    rendered = []

    def beep(orders):
        rendered.extend(order.id for order in orders)
        return [(np.full(160 * (n + 1), n, np.int16), [("aa", 0.01)]) for n, _ in enumerate(orders)]

    monkeypatch.setattr(synthesis, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(synthesis, "render", beep)
    orders = caller_orders(line, ["Something else."] * 60, seed=0)
    write(orders[:20], tmp_path, processes=1, shard_seconds=0.5)
    write(orders, tmp_path, processes=1, shard_seconds=0.5)
    assert rendered == [order.id for order in orders]
    corpus = Corpus(tmp_path)
    found = [utterance for _, utterance in corpus.read(range(len(corpus)))]
    assert [utterance.id for utterance in found] == rendered
    assert [utterance.text for utterance in found] == [order.text for order in orders]
    assert found[0].phones == (("aa", 0.01),)
    assert len(list(tmp_path.glob("*.jsonl"))) > 1


@synthesisers
def test_rendering_twice_gives_the_same_speech(line, tmp_path):
    orders = [
        *agent_orders(line, ["The quiet river."], seed=0),
        *caller_orders(line, [], seed=0),
    ]
    corpora = []
    for name in ("once", "twice"):
        if name == "twice":  # stopped after three, and run again
            write(orders[:3], tmp_path / name, processes=1)
        write(orders, tmp_path / name, processes=1)
        corpora.append(Corpus(tmp_path / name))
    assert len(corpora[0]) == len(orders)
    for first, second in zip(*(c.read(range(len(orders))) for c in corpora), strict=True):
        first, second = first[1], second[1]
        np.testing.assert_array_equal(first.audio, second.audio)
        assert 0.3 < len(first.audio) / SAMPLE_RATE < 5
    phones = corpora[0][0].phones
    assert phones is not None
    assert phones[-1][1] == pytest.approx(len(corpora[0][0].audio) / SAMPLE_RATE, abs=0.05)
