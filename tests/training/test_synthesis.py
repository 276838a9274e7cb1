import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agent.training import synthesis
from agent.training.data import Corpus
from agent.training.line import Intent, Line, Saying
from agent.training.shards import SAMPLE_RATE
from agent.training.synthesis import Settings, agent_orders, caller_orders, write
from agent.training.voices import AGENT_VOICES, CALLERS, STYLES

synthesisers = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("flite", "espeak-ng", "festival")),
    reason="flite, espeak-ng or festival is not installed",
)


def hours(language, answer, train, held_out, styles=()):
    return Line(
        "A clinic",
        language,
        {"hours": Intent("hours", answer, says="hours")},
        {"hours": Saying("hours", train, held_out, 4)},
        styles=dict.fromkeys(styles, ("Be so.",)),
    )


@pytest.fixture
def line():
    return hours("en", "We are open.", ("When are you open?",), ("Are you open?",))


@pytest.fixture
def mandarin():
    return hours("zh", "我们八点开门。", ("几点开门？",), ("开门吗？",))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_unseen_voices_speak_in_training(line, mandarin, language):
    asked = line if language == "en" else mandarin
    orders = caller_orders(asked, ["Something else."] * 30, seed=0)
    unseen = {voice.name for voice in CALLERS[language] if not voice.seen}
    assert {order.voice for order in orders if not order.seen_voice} == unseen
    assert {order.split for order in orders if order.voice in unseen} == {"held_out"}
    assert {order.language for order in orders} == {language}
    assert {order.saying for order in orders} == {"hours", None}
    assert {order.style for order in orders} == {None}
    assert len({order.id for order in orders}) == len(orders)
    trained = [order.voice for order in orders if order.saying and order.split == "train"]
    assert len(set(trained)) == len(trained) == 4  # each rendering in another voice


def test_an_answer_is_canonical_twice_or_in_a_style_nobody_asks_for():
    line = hours("en", "We are open.", (), (), styles=("slow", "cheerful"))
    orders = list(agent_orders(line, ["A cover."] * 60, seed=0))
    canonical = [order for order in orders if order.canonical]
    assert [(order.text, order.style, order.manner) for order in canonical] == [
        ("We are open.", style, STYLES[style]) for style in ("neutral", "slow", "cheerful")
    ]
    assert {order.voice for order in orders} == {AGENT_VOICES["en"]}
    covers = [order for order in orders if order.role == "cover"]
    assert {order.style for order in covers if order.split == "train"} == {
        "neutral", "slow", "cheerful"
    }  # fmt: skip
    assert sum(order.style == "neutral" for order in covers) >= 30
    assert all(o.manner == STYLES[o.style] for o in covers if o.style != "neutral")
    assert [order.split for order in covers].count("held_out") == 2
    assert len({order.id for order in orders}) == len(orders)


def test_the_agent_speaks_mandarin_in_its_english_voice(mandarin):
    orders = list(agent_orders(mandarin, [], seed=0))
    assert {(o.voice, o.language, o.style) for o in orders} == {
        (AGENT_VOICES["zh"], "zh", "neutral")
    }


def test_held_out_words_that_training_never_hears_are_rendered(tmp_path):
    words = Path(__file__).parents[2] / "agent" / "nano" / "words.yaml"
    path = tmp_path / "line.yaml"
    path.write_text("intents: [{name: a, answer: Yes., train: one, held_out: one tiger}]")
    settings = Settings(
        lines=[path], words=words, cover=1, cover_others=1, agent_says=1, processes=1, seed=0
    )
    with pytest.raises(ValueError, match=r"line\.yaml: held-out words that .* never hears: tiger"):
        synthesis.run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shipped_settings_name_no_line():
    settings = Settings.read(Path(__file__).parents[2] / "agent" / "nano" / "recipe_corpus.yaml")
    assert all(path.is_file() for path in settings.lines)
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
    assert [utterance.saying for utterance in found] == [order.saying for order in orders]
    assert found[0].phones == (("aa", 0.01),)
    assert len(list(tmp_path.glob("*.jsonl"))) > 1


def test_both_lines_are_ordered_in_their_own_tongue(tmp_path, monkeypatch):
    """The agent comes first, so that a vocoder can begin; callers of both lines are mixed."""
    nano = Path(__file__).parents[2] / "agent" / "nano"
    texts = {
        "en": "intents: [{name: a, answer: Yes., train: '{one|two} {three|four}'}]",
        "zh": "{language: zh, intents: [{name: a, answer: 好。, train: '{一|二}{三|四}'}]}",
    }
    for language, text in texts.items():
        (tmp_path / f"{language}.yaml").write_text(text, encoding="utf-8")
    settings = Settings(
        lines=[tmp_path / "en.yaml", tmp_path / "zh.yaml"], words=nano / "words.yaml", cover=4,
        cover_others=3, agent_says=2, processes=1, seed=0,
    )  # fmt: skip
    written = []
    monkeypatch.setattr(synthesis, "require_synthesisers", lambda: None)
    monkeypatch.setattr(synthesis, "write", lambda orders, *rest: written.extend(orders))
    synthesis.run(settings, tmp_path / "out")
    voices = [order.voice in AGENT_VOICES.values() for order in written]
    assert voices == sorted(voices, reverse=True)
    agent = [order for order in written if order.voice in AGENT_VOICES.values()]
    covers = {
        language: [o.text for o in agent if o.role == "cover" and o.language == language]
        for language in ("en", "zh")
    }
    assert len(covers["en"]) == 4 + 2
    assert len(covers["zh"]) == 2
    assert all(ord(text[0]) > 0x3000 for text in covers["zh"])
    callers = [order.language for order in written[len(agent) :]]
    assert callers != sorted(callers)
    assert all(
        (order.voice in [voice.name for voice in CALLERS[order.language]])
        for order in written[len(agent) :]
    )


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
