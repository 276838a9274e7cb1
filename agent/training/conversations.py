"""Conversations to train a language model on: speech codes in, interleaved answers out.

A scene is the start of a conversation and many ways in which it may go on, so that the start is
read once for all of them. Three kinds, all written by :mod:`agent.speech.prompt`, so that training
and calls cannot differ:

- calls: callers' questions, spoken (sometimes typed), and the line's answers, after a greeting and
  earlier turns, some of those cut as after a barge-in;
- dictation: callers' speech and its words as text alone;
- reading: sentences that are to be said as they stand, in the agent's voice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.sound import Audio, phone_band
from agent.speech.prompt import (
    SPEECH_SYSTEM,
    TEXT_SYSTEM,
    TRANSCRIBE_SYSTEM,
    Interleave,
    Prompt,
    heard,
)
from agent.speech.text_tokenizer import TextTokenizer
from agent.speech.tokenizer import SpeechTokenizer
from agent.training.augment import vary
from agent.training.data import Corpus
from agent.training.examples import GIVEN, SPEECH, TEXT, Example
from agent.training.phrasings import Line
from agent.training.recipe import Section
from agent.training.shards import SAMPLE_RATE

Codes = npt.NDArray[np.int64]


def stream_codes(tokenizer: SpeechTokenizer, audio: npt.NDArray[np.float32]) -> Codes:
    """Codes of float32 [n] at 16 kHz, by the stream: what a call gives."""
    stream = tokenizer.stream()
    return np.concatenate([stream.push(audio), stream.finish()])


def hear(
    corpus: Corpus, indices: Sequence[int], tokenizer: SpeechTokenizer, seed: int
) -> Iterator[tuple[int, Codes]]:
    """Indices and codes of callers' utterances, as random phone lines and a detector leave them.

    Before the words 0 to 0.5 s of quiet, which also moves them against the token grid; after them
    0.1 to 0.8 s.
    """
    for index, utterance in corpus.read(indices):
        rng = np.random.default_rng((seed, index))
        before, after = rng.uniform(0.0, 0.5), rng.uniform(0.1, 0.8)
        quiet = (int(before * SAMPLE_RATE), int(after * SAMPLE_RATE))
        yield index, stream_codes(tokenizer, vary(np.pad(utterance.audio, quiet), rng).audio)


def hear_plainly(audio: Audio, tokenizer: SpeechTokenizer) -> Codes:
    """Codes of an utterance over a clean phone line, with the quiet of an average turn."""
    quiet = (SAMPLE_RATE // 5, SAMPLE_RATE * 2 // 5)
    return stream_codes(tokenizer, phone_band(np.pad(audio, quiet)))


def spoken_codes(audio: Audio, tokenizer: SpeechTokenizer) -> Codes:
    """Codes of an utterance by the agent's voice, as the decoder learns to speak them."""
    codes: Codes
    (codes,) = tokenizer.encode([phone_band(audio)])
    return codes


class Takes:
    """Codes of many utterances in one file, one row of codes for each corpus index.

    Args:
        path: An ``.npz`` that :meth:`save` wrote.
    """

    def __init__(self, path: Path):
        with np.load(path) as arrays:
            parts = np.split(arrays["codes"].astype(np.int64), arrays["ends"][:-1])
            self._rows: dict[int, Codes] = dict(zip(arrays["indices"].tolist(), parts, strict=True))

    @property
    def indices(self) -> list[int]:
        """Corpus indices of the utterances."""
        return list(self._rows)

    def __contains__(self, index: int) -> bool:
        return index in self._rows

    def __getitem__(self, index: int) -> Codes:
        """Codes of one utterance."""
        return self._rows[index]

    @staticmethod
    def save(path: Path, codes_of: Iterable[tuple[int, Codes]]) -> None:
        """Write indices and their codes; the file appears only when it is whole."""
        indices, rows = zip(*codes_of, strict=True)
        partial = path.with_suffix(".tmp.npz")
        ends = np.cumsum([len(row) for row in rows])
        codes = np.concatenate(rows).astype(np.int32)
        np.savez(partial, indices=np.asarray(indices), ends=ends, codes=codes)
        partial.rename(path)


class Mixture(Section):
    """How scenes are drawn.

    Attributes:
        questions: Ways to go on in a call.
        dictations: The same in dictation.
        readings: The same in reading.
        greeted: Share of calls that begin with the agent's greeting.
        turns: Most earlier turns; half of the calls have none.
        typed: Share of questions that are typed.
        whole: Share of answers trained to their end. The others stop after their first run of
            text: what comes then is soon known by heart, what the caller wants is not.
        cut: Share of earlier answers cut as after a barge-in.
        drop: Share of a caller's codes that are lost.
        replace: Share that are wrong.
        double: Share that come twice.
    """

    questions: int
    dictations: int
    readings: int
    greeted: float
    turns: int
    typed: float
    whole: float
    cut: float
    drop: float
    replace: float
    double: float


@dataclass(frozen=True)
class Scene:
    """The ids that start a conversation, and exchanges of which each alone goes on from there."""

    start: list[int]
    exchanges: list[Example]


class Conversations:
    """Draws scenes from a tokenised corpus.

    Args:
        line: What is said on the line.
        corpus: Its recordings.
        spoken: Codes of the agent's voice.
        tokenizer: Text to ids.
        mixture: In which shares.
        callers: Corpus indices of utterances to listen to: questions, and others for dictation.
        sentences: Corpus indices of the agent's voice, to be read aloud.

    Raises:
        ValueError: The agent's recording of an answer was left out as corrupt.
    """

    def __init__(
        self,
        line: Line,
        corpus: Corpus,
        spoken: Takes,
        tokenizer: TextTokenizer,
        mixture: Mixture,
        callers: Sequence[int],
        sentences: Sequence[int],
    ):
        self._prompt = Prompt(tokenizer)
        self._tokenizer = tokenizer
        self._mixture = mixture
        self._interleave = Interleave()
        texts = {index: corpus.text(index) for index in (*callers, *sentences)}
        self._answers: dict[str, list[int]] = {}
        for index in corpus.indices(role="agent", canonical=True):
            intent = corpus.intent(index)
            assert intent is not None
            if index not in spoken:
                raise ValueError(
                    f"answer {intent!r}: the recording of the agent's voice is corrupt"
                )
            self._answers[intent] = self._answer(corpus.text(index), spoken[index])
        self._readings: list[tuple[str, list[int]]] = []
        for index in sentences:
            try:
                answer = self._answer(texts[index], spoken[index])
            except ValueError:
                continue  # more text than the interleave can bring before its speech
            self._readings.append((texts[index], answer))
        self._said = [(intent.answer, self._answers[intent.name]) for intent in line.intents]
        self._typed = {intent.name: intent.train for intent in line.intents}
        greeting = next(intent for intent in line.intents if intent.instruction)
        self._greet = self._prompt.typed(greeting.instruction or "")
        self._greeting = self._answers[greeting.name]
        intents = {index: corpus.intent(index) for index in callers}
        self._questions = [(index, intent) for index, intent in intents.items() if intent]
        self._words = [(index, tokenizer.encode_plain(texts[index])) for index in callers]

    def draw(self, takes: Sequence[Takes], rng: np.random.Generator) -> list[Scene]:
        """One scene of each kind, its callers heard in one of the takes each."""
        return [self._call(takes, rng), self._dictation(takes, rng), self._reading(rng)]

    def judged(self, questions: Iterable[tuple[Codes, str]]) -> Scene:
        """Spoken questions after the greeting, each with its intent and its whole answer."""
        exchanges = [
            self._exchange(self._prompt.spoken(codes.tolist()), self._answers[intent])
            for codes, intent in questions
        ]
        return Scene(self._opened(greeted=True), exchanges)

    def _answer(self, text: str, codes: Codes) -> list[int]:
        speech = self._tokenizer.speech_ids(codes.tolist())
        return self._interleave.arrange(self._tokenizer.encode_plain(text), speech)

    def _opened(self, greeted: bool, greeting: Sequence[int] | None = None) -> list[int]:
        if not greeted:
            return self._prompt.opening(SPEECH_SYSTEM)
        said = self._greeting if greeting is None else greeting
        return [*self._prompt.opening(TEXT_SYSTEM), *self._greet, *said]

    def _call(self, takes: Sequence[Takes], rng: np.random.Generator) -> Scene:
        mixture = self._mixture
        start = self._opened(rng.random() < mixture.greeted, self._perhaps_cut(self._greeting, rng))
        for _ in range(max(0, int(rng.integers(-mixture.turns, mixture.turns + 1)))):
            user, answer = self._question(takes, rng)
            start += [*user, *self._perhaps_cut(answer, rng)]
        exchanges = []
        for _ in range(mixture.questions):
            user, answer = self._question(takes, rng)
            exchanges.append(self._exchange(user, answer, rng.random() < mixture.whole))
        return Scene(start, exchanges)

    def _perhaps_cut(self, answer: list[int], rng: np.random.Generator) -> list[int]:
        if rng.random() >= self._mixture.cut:
            return answer
        flags = list(map(self._tokenizer.is_speech, answer))
        return heard(answer, flags, int(rng.integers(0, sum(flags))))

    def _question(
        self, takes: Sequence[Takes], rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        index, intent = self._questions[rng.integers(len(self._questions))]
        if rng.random() < self._mixture.typed:
            texts = self._typed[intent]
            user = self._prompt.typed(texts[rng.integers(len(texts))])
        else:
            user = self._prompt.spoken(self._noisy(takes, index, rng))
        return user, self._answers[intent]

    def _dictation(self, takes: Sequence[Takes], rng: np.random.Generator) -> Scene:
        exchanges = []
        for _ in range(self._mixture.dictations):
            index, words = self._words[rng.integers(len(self._words))]
            user = self._prompt.spoken(self._noisy(takes, index, rng))
            exchanges.append(self._exchange(user, words))
        return Scene(self._prompt.opening(TRANSCRIBE_SYSTEM), exchanges)

    def _reading(self, rng: np.random.Generator) -> Scene:
        """Texts to say, half of them the line's own answers, and the greeting."""
        start = self._prompt.opening(TEXT_SYSTEM)
        exchanges = [self._exchange(self._greet, self._greeting)]
        if rng.random() < self._mixture.greeted:
            start, exchanges = self._opened(greeted=True), []
        while len(exchanges) < self._mixture.readings:
            texts = self._said if rng.random() < 0.5 else self._readings
            text, answer = texts[rng.integers(len(texts))]
            exchanges.append(self._exchange(self._prompt.say(text), answer))
        return Scene(start, exchanges)

    def _exchange(self, user: Sequence[int], answer: Sequence[int], whole: bool = True) -> Example:
        kinds = [SPEECH if self._tokenizer.is_speech(i) else TEXT for i in answer]
        # An answer ends with the id that begins the next turn.
        ids, kinds = [*answer, self._prompt.user], [*kinds, TEXT]
        if not whole:
            end = kinds.index(SPEECH)
            ids, kinds = ids[:end], kinds[:end]
        return Example([*user, *ids], [GIVEN] * len(user) + kinds)

    def _noisy(self, takes: Sequence[Takes], index: int, rng: np.random.Generator) -> list[int]:
        codes = takes[rng.integers(len(takes))][index]
        mixture = self._mixture
        fate = rng.random(len(codes))
        replaced = rng.integers(0, self._tokenizer.audio_count, len(codes))
        noisy: list[int] = []
        for code, luck, other in zip(codes.tolist(), fate.tolist(), replaced.tolist(), strict=True):
            if luck < mixture.drop:
                continue
            luck -= mixture.drop
            noisy.append(other if luck < mixture.replace else code)
            if mixture.replace <= luck < mixture.replace + mixture.double:
                noisy.append(code)
        return noisy or codes.tolist()
