"""Everything of a card measured at once, on a model that answers by the book; and its tables."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the judge's recogniser comes with the extra 'train'")

from agent.evaluation.answering import Answer
from agent.training.evaluation import __main__ as command
from agent.training.evaluation import measure as measuring
from agent.training.evaluation import speaking, understanding
from agent.training.evaluation.measure import NANO_LINES, measure
from agent.training.evaluation.report import markdown, percent

RATE = 22_050
# What callers say, by the loudness of their recording, and what they are answered.
CALLERS = [
    ({"text": "Book me please.", "saying": "book"}, "Which day would you like."),
    ({"text": "Monday please.", "saying": "day:Monday"}, "Monday, and at what time."),
    (
        {"text": "Morning please.", "saying": "time:morning"},
        "You are now booked in here for Monday morning, thank you.",
    ),
    ({"text": "The rain.", "saying": "fallback"}, "Which day would you like."),
    ({"text": "Slow down.", "saying": "slower"}, "Very well."),
    ({"text": "The nurse.", "saying": "nurse"}, "I will get you a nurse."),
    (
        {"text": "The nurse.", "saying": "nurse", "voice": "awb", "seen_voice": False},
        "I will get you a nurse.",
    ),
    ({"text": "开门吗。", "saying": "hours", "language": "zh"}, "我们不开门。"),
]


class Loudness:
    """A tokenizer whose code is how loud a turn is."""

    def encode(self, waveforms):
        return [np.array([round(float(np.abs(audio).max()) * 100)]) for audio in waveforms]


class Decoder:
    sample_rate = RATE

    def decode(self, codes):
        from torch import from_numpy

        return from_numpy(tone(len(codes)))


def tone(tokens):
    return 0.1 * np.sin(np.arange(tokens * RATE * 2 // 25) / 20).astype(np.float32)


@pytest.fixture
def data(tmp_path, write_corpus):
    fields = [one | {"split": "held_out"} for one, _ in CALLERS]
    sounds = [np.full(8_000, 0) for _ in fields]
    for number, sound in enumerate(sounds, 1):
        sound[2_000:6_000] = np.sin(np.arange(4_000) / 3) * 32_767 * number / 20
    fields += [
        {"role": "agent", "canonical": True, "style": "neutral", "text": "Very well."},
        {"role": "cover", "text": "The quiet river."},
    ]
    sounds += [np.full(8_000, 0)] * 2
    audio = [sound.astype(np.int16) for sound in sounds]
    write_corpus(tmp_path / "data", list(zip(fields, audio, strict=True)))
    return tmp_path / "data"


@pytest.fixture
def scripted(data, monkeypatch):
    """The answers of `CALLERS`, and of what needs a tool its call."""

    class Model:
        @staticmethod
        def from_pretrained(path):
            return {"speech_tokenizer": Loudness, "speech_decoder": Decoder}.get(
                path.name, object
            )()

    from agent.training.data import Corpus
    from agent.training.evaluation.callers import listen

    codes = [int(one.codes[0]) for one in listen(Corpus(data), Loudness())]
    assert len(set(codes)) == len(codes)
    said = dict(zip(codes, (text for _, text in CALLERS), strict=True))
    calling = codes[2]

    def conversations(model, calls):
        found = []
        for turns in calls:
            tools = bool(turns[0][1].system and "book" in turns[0][1].system)
            found.append([])
            for tokens, _ in turns:
                code = int(tokens[0])
                answer = Answer(said[code], (code,) * 12)
                if tools and code == calling:
                    call = 'book\n{"day": "Monday", "time": "morning"}'
                    answer = Answer("One moment please.", (code,) * 12, call)
                found[-1].append(answer)
        return found

    class Judge(list):
        def recognise(self, audio):
            return "very well"

    for module in (measuring, understanding, speaking):
        monkeypatch.setattr(module, "conversations", conversations)
    for name in ("SpeechTokenizer", "LanguageModel", "SpeechDecoder"):
        monkeypatch.setattr(measuring, name, Model)
    monkeypatch.setattr(speaking, "speak", lambda decoder, codes: tone(len(codes)))
    monkeypatch.setattr(speaking, "Judge", Judge)
    monkeypatch.setattr(
        understanding, "transcripts", lambda model, spoken: ["The nurse."] * len(spoken)
    )


def test_a_figure_of_the_card_is_missing_or_another(scripted, data, lines, tmp_path):
    figures = json.loads(json.dumps(measure(tmp_path, data, lines)))
    english = figures["answers"]["en"]
    assert english["seen_voices"] == {"count": 6, "right": 5, "share": 0.8333}
    assert english["unseen_voices"]["share"] == 1.0
    assert english["calls_of_several_turns"] == {"count": 2, "right": 2, "share": 1.0}
    assert english["other_questions"]["share"] == 0.0
    assert figures["answers"]["zh"]["seen_voices"]["share"] == 0.0
    assert [one["said"] for one in figures["answers"]["wrong"]] == ["The rain.", "开门吗。"]
    assert (figures["tools"]["count"], figures["tools"]["share"]) == (1, 1.0)
    transcripts = figures["transcripts"]
    assert {name: one["recordings"] for name, one in transcripts.items()} == {
        "English, voices training heard": 6, "English, other voices": 1, "Mandarin": 1
    }  # fmt: skip
    assert transcripts["English, other voices"]["rate"] == 0.0
    assert figures["speech"]["source_voice"]["wer"] == 0.0
    # Of the turns that need no context and ask for no style every answer is judged once.
    assert figures["speech"]["streamed"]["utterances"] == 3
    assert set(figures["styles"]) == {"slow, instructed", "slow, spoken"}
    assert figures["styles"]["slow, spoken"]["questions"] == 2
    few = measure(tmp_path, data, lines, limit=1)
    assert few["answers"]["en"]["seen_voices"]["count"] == 1
    assert few["transcripts"]["Mandarin"]["rate"] is None
    markdown(few)


def test_a_table_tells_something_else(scripted, data, lines, tmp_path):
    table = markdown(measure(tmp_path, data, lines)).splitlines()
    for row in (
        "| English, voices training heard | 6 | 83.3 % |",
        "| English, other voices | 1 | 100.0 % |",
        "| English, whole calls of two and three turns | 2 | 100.0 % |",
        "| English, questions about something else: fallback or transfer | 1 | 0.0 % |",
        "| Mandarin, voices training heard | 1 | 0.0 % |",
        "| tool calls with right arguments | 1 | 100.0 % |",
        "| its source voice | 2 | 0.0 % | 0.0 % |",
        "| slow, instructed | 100.0 % | +0 % | +0.0 semitones |",
        "| book_time | 1 | 100.0 % |",
        "| awb | 1 | 100.0 % |",
    ):
        assert row in table
    columns = 0
    for row in table:
        if row and not columns:
            columns = row.count("|")
        assert row.count("|") == columns or not row
        columns = columns if row else 0


def test_nothing_measured_is_a_percentage():
    assert percent(None) == "-"
    assert percent(0.1234) == "12.3 %"
    nothing = {"rate_percent": None, "pitch_semitones": None, "words_kept": None}
    table = markdown({"answers": {}, "transcripts": {}, "styles": {"slow": nothing}})
    assert "| slow | - | - | - |" in table


def test_the_command_writes_no_file_or_reads_other_lines(
    scripted, data, lines, tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(
        command, "read_line", lambda path: asked.append(path) or lines[len(asked) - 1]
    )
    out = tmp_path / "figures.json"
    arguments = ["evaluation", "--checkpoint", tmp_path, "--data", data, "--out", out]
    monkeypatch.setattr(sys, "argv", [*map(str, arguments)])
    command.main()
    assert asked == list(NANO_LINES)
    assert all(path.is_file() for path in asked)
    assert capsys.readouterr().out.strip() == markdown(json.loads(out.read_text()))
