"""Recordings of two lines whose codes tell which one it is, and conversations drawn from them."""

import itertools
import re

import numpy as np
import pytest

from agent.speech.text_tokenizer import TextTokenizer
from agent.training.conversations import Conversations, Mixture, Takes
from agent.training.line import NEUTRAL, read_line

LINES = {
    "en": """
name: test
values: {DAY: [Monday, Friday]}
styles: {slow: [Speak slowly., Slowly please.]}
tools: [{name: book, description: Books., parameters: {type: object}}]
sayings: {day: {train: on DAY, held_out: DAY please}}
intents:
  - {name: greet, instruction: Greet the caller., answer: "Clinic, hello?"}
  - {name: open, train: "{when|at what time} do you open?", answer: We open at eight.}
  - {name: book, train: book me in, answer: Which day.}
  - name: book_day
    after: book
    says: day
    answer: Booked for DAY.
    tool:
      before: One moment.
      call: {book: {day: DAY}}
      results: {done: It is DAY., full: DAY is full.}
  - {name: thanks, after: book_day, train: great, answer: See you on DAY.}
  - {name: move, train: to DAY instead, answer: Moved to DAY.}
  - {name: slower, train: slowly, answer: Very well., style: slow}
  - {name: fallback, train: what is new, answer: No idea.}
""",
    "zh": """
language: zh
values: {DAY: [星期一, 星期五]}
sayings: {day: {train: DAY吧, held_out: DAY呢？}}
intents:
  - {name: greet, instruction: 问候来电者。, answer: 诊所您好。}
  - {name: book, train: 我想预约, answer: 哪天？}
  - {name: book_day, after: book, says: day, answer: 约好DAY。}
""",
}
PLAIN = Mixture(
    questions=4, dictations=3, readings=2, languages={"en": 1.0}, greeted=1.0, turns=3, follow=0.5,
    unknown=0.0, styled=0.0, tools=0.0, typed=0.0, whole=1.0, cut=0.0, drop=0.0, replace=0.0,
    double=0.0,
)  # fmt: skip


class Material:
    """Recordings whose codes tell which one it is: nothing but their number, over and over."""

    def __init__(self, folder, write_corpus, tokenizer):
        self.tokenizer = tokenizer
        self.folder = folder
        self.lines = {}
        fields = []
        for language, text in LINES.items():
            path = folder / f"{language}.yaml"
            path.write_text(text, encoding="utf-8")
            self.lines[language] = line = read_line(path)
            for style in (NEUTRAL, *line.styles):
                common = {"role": "agent", "canonical": True, "style": style, "language": language}
                fields += [common | {"text": said} for said in line.texts()]
            for saying in line.sayings.values():
                common = {"language": language, "saying": saying.name}
                fields += [common | {"text": said} for said in saying.train]
        fields += [
            {"role": "cover", "text": "random words"},
            {"role": "cover", "text": "A short one.", "style": NEUTRAL},
            {"role": "cover", "text": "words " * 90, "style": NEUTRAL},
        ]
        silence = np.zeros(160, np.int16)
        self.corpus = write_corpus(folder / "data", [(field, silence) for field in fields])
        self.sentences = self.corpus.indices(role="cover", style=NEUTRAL)
        self.agent = self.corpus.indices(role="agent")
        others = {*self.sentences, *self.agent}
        self.callers = [index for index in range(len(fields)) if index not in others]
        self.spoken = self.takes("spoken", [*self.agent, *self.sentences], 60)
        self.heard = [self.takes("take_0", self.callers, 4)]

    def takes(self, name, indices, length):
        path = self.folder / f"{name}.npz"
        Takes.save(path, ((index, np.full(length, index)) for index in indices))
        return Takes(path)

    def conversations(self, corpus=None, spoken=None, **mixture):
        changed = PLAIN.model_copy(update=mixture)
        return Conversations(
            self.lines, corpus or self.corpus, spoken or self.spoken, self.tokenizer, changed,
            self.callers, self.sentences,
        )  # fmt: skip

    def calls(self, count=40, **mixture):
        """Calls that are drawn: the start and an exchange, and the same as they read."""
        conversations, rng = self.conversations(**mixture), np.random.default_rng(0)
        for _ in range(count):
            scene = conversations.draw(self.heard, rng)[0]
            for exchange in scene.exchanges:
                yield scene.start, exchange, self.read([*scene.start, *exchange.ids])

    def read(self, ids):
        """(role, text, number of the recording or None) of every part of a conversation."""
        roles = ("system", "user", "assistant", "observation")
        marks = {self.tokenizer.special(f"<|{role}|>"): role for role in roles}
        read = []
        for begins, part in itertools.groupby(ids, marks.__contains__):
            if begins:
                read += [(marks[mark], "", None) for mark in part]
            elif read:
                speech, text = [], []
                for i in part:
                    (speech if self.tokenizer.is_speech(i) else text).append(i)
                (number,) = {i - self.tokenizer.audio_offset for i in speech} or {None}
                said = re.sub(r"<\|.*?\|>", "", self.tokenizer.decode(text))
                said = said.removeprefix("streaming_transcription").strip("\n")
                read[-1] = (read[-1][0], said, number)
        return read

    def learnt(self, exchange, kind):
        """What is to be predicted as text or as speech, or what is given."""
        pairs = zip(exchange.ids, exchange.kinds, strict=True)
        return self.tokenizer.decode(i for i, of in pairs if of == kind)

    def said(self, number, field="text"):
        return self.corpus.field(number, field)

    def answers(self, read):
        """(text, style) of what the agent says in a conversation."""
        spoken = [(text, number) for role, text, number in read if role == "assistant"]
        return [(text, self.said(number, "style")) for text, number in spoken if number is not None]

    def asked(self, read):
        """The sayings of what the caller says."""
        numbers = [number for role, _, number in read if role == "user"]
        return [self.said(number, "saying") for number in numbers if number is not None]


@pytest.fixture(scope="session")
def tokenizer(goldens):
    return TextTokenizer.from_pretrained(goldens / "language_model")


@pytest.fixture(scope="session")
def material(tmp_path_factory, write_corpus, tokenizer):
    return Material(tmp_path_factory.mktemp("material"), write_corpus, tokenizer)
