"""Conversations to train a language model on: speech codes in, interleaved answers out.

A scene is the start of a conversation and many ways in which it may go on, so that the start is
read once for all of them. Four kinds, all written by :mod:`agent.speech.prompt`, so that training
and calls cannot differ:

- calls: callers' questions, spoken (sometimes typed), and the line's answers, after a greeting and
  earlier turns, some of those cut as after a barge-in; in some the agent was asked for a style, in
  some it has tools and uses them;
- dictation: callers' speech and its words as text alone;
- reading: sentences that are to be said as they stand, in the agent's voice;
- greetings, before a caller has said anything.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.evaluation.text import Language
from agent.sound import Audio, phone_band
from agent.speech.prompt import TRANSCRIBE_SYSTEM, Interleave, Prompt, heard
from agent.speech.system_prompt import TEXT_SYSTEM, system_prompt
from agent.speech.text_tokenizer import TextTokenizer
from agent.speech.tokenizer import SpeechTokenizer
from agent.training.augment import vary
from agent.training.data import Corpus
from agent.training.examples import GIVEN, SPEECH, TEXT, Example
from agent.training.line import NEUTRAL, Intent, Line
from agent.training.recipe import Section
from agent.training.shards import SAMPLE_RATE

Codes = npt.NDArray[np.int64]
_FALLBACK = "fallback"
_UNKNOWN = "(random words)"
_TOGETHER = 2000  # utterances in memory, of which those of equal length are tokenised together
# Share of greeted calls whose greeting is in whichever language, whatever the caller speaks.
_OTHER_GREETING = 0.3


def hear(
    corpus: Corpus, indices: Sequence[int], tokenizer: SpeechTokenizer, seed: int
) -> Iterator[tuple[int, Codes]]:
    """Indices and codes of callers' utterances, as random phone lines and a detector leave them.

    Before the words 0 to 0.5 s of quiet, which also moves them against the token grid; after them
    0.1 to 0.8 s. What has equal lengths is tokenised together: only then has it the ids that it
    would have alone, in a call.
    """
    utterances = corpus.read(indices)
    while some := list(itertools.islice(utterances, _TOGETHER)):
        alike: dict[int, list[tuple[int, Audio]]] = defaultdict(list)
        for index, utterance in some:
            rng = np.random.default_rng((seed, index))
            before, after = rng.uniform(0.0, 0.5), rng.uniform(0.1, 0.8)
            quiet = (int(before * SAMPLE_RATE), int(after * SAMPLE_RATE))
            heard = vary(np.pad(utterance.audio, quiet), rng).audio
            alike[tokenizer.padded(len(heard))].append((index, heard))
        for group in alike.values():
            codes = tokenizer.encode([heard for _, heard in group])
            yield from zip((index for index, _ in group), codes, strict=True)


def on_the_phone(audio: Audio) -> Audio:
    """A caller's turn, float32 [n] at 16 kHz: the quiet that a detector leaves, a phone's band."""
    return phone_band(np.pad(audio, (SAMPLE_RATE // 5, SAMPLE_RATE * 2 // 5)))


def hear_plainly(audio: Audio, tokenizer: SpeechTokenizer) -> Codes:
    """Codes of an utterance over a clean phone line, with the quiet of an average turn."""
    codes: Codes
    (codes,) = tokenizer.encode([on_the_phone(audio)])
    return codes


def spoken_codes(audio: Audio, tokenizer: SpeechTokenizer) -> Codes:
    """Codes of an utterance over a clean phone line."""
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
        greetings: Greetings of calls with system prompts of all kinds.
        languages: Share of calls in each language.
        greeted: Share of calls that begin with the agent's greeting.
        turns: Most earlier turns; half of the calls have none.
        follow: Share of turns that go on from the answer before, where the line goes on from it.
        amid: Share of calls whose last turns led to an answer that the line goes on from. By chance
            few get that far.
        intents: How often an intent is asked for, 1 where it is not named.
        unknown: Share of the questions of the intent "fallback" that are sentences of random words.
        styled: Share of calls with an instruction that asks for a style.
        tools: Share of calls in which the agent has tools.
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
    greetings: int = 0
    languages: dict[Language, float]
    greeted: float
    turns: int
    follow: float
    amid: float = 0.0
    intents: dict[str, float] = {}  # noqa: RUF012
    unknown: float
    styled: float
    tools: float
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


@dataclass(frozen=True)
class Call:
    """Where a call has got to.

    Attributes:
        line: In which language it is.
        tools: Whether the agent has tools.
        style: How it speaks by now.
        answered: The intent whose answer was last given.
    """

    line: Line
    tools: bool = False
    style: str = NEUTRAL
    answered: Intent | None = None

    def after(self, intent: Intent) -> Call:
        """The call when an intent has been answered."""
        return replace(self, style=intent.style or self.style, answered=intent)


class Conversations:
    """Draws scenes from a tokenised corpus.

    Args:
        lines: What is said, by language.
        corpus: Its recordings.
        spoken: Codes of the agent's voice.
        tokenizer: Text to ids.
        mixture: In which shares.
        callers: Corpus indices of utterances to listen to: questions, and others for dictation.
        sentences: Corpus indices of the agent's voice, to be read aloud.

    Raises:
        ValueError: The agent's recording of an answer is missing, was left out as corrupt, or is so
            short that it ends before its text.
    """

    def __init__(
        self,
        lines: Mapping[Language, Line],
        corpus: Corpus,
        spoken: Takes,
        tokenizer: TextTokenizer,
        mixture: Mixture,
        callers: Sequence[int],
        sentences: Sequence[int],
    ):
        self._lines = lines
        self._prompt = Prompt(tokenizer)
        self._tokenizer = tokenizer
        self._mixture = mixture
        self._interleave = Interleave()
        self._answers = self._voiced(corpus, spoken)
        for line in lines.values():
            for text, style in itertools.product(line.texts(), [NEUTRAL, *line.styles]):
                if (text, style) not in self._answers:
                    raise ValueError(f"answer {text!r}, {style}: the agent never says it")
        self._readings: list[tuple[str, list[int]]] = []
        for index in sentences:
            text = corpus.text(index)
            try:
                self._readings.append((text, self._answer(text, spoken[index])))
            except ValueError:
                continue  # more text than the interleave can bring before its speech
        self._said = [
            (text, self._answers[text, NEUTRAL]) for line in lines.values() for text in line.texts()
        ]
        asked: defaultdict[str, list[int]] = defaultdict(list)
        self._words = []
        for index in callers:
            saying = corpus.field(index, "saying")
            language = corpus.field(index, "language")
            asked[f"{language} {saying or _UNKNOWN}"].append(index)
            self._words.append((index, tokenizer.encode_plain(corpus.text(index))))
        self._asked = dict(asked)

    def draw(self, takes: Sequence[Takes], rng: np.random.Generator) -> list[Scene]:
        """A call, a dictation, a reading and some greetings; a caller is heard in one of the takes.

        The greetings are scenes of their own, since what makes them differ is how they start.
        """
        greetings = [self._greeted(rng) for _ in range(self._mixture.greetings)]
        return [self._call(takes, rng), self._dictation(takes, rng), self._reading(rng), *greetings]

    def overhear(
        self, takes: Sequence[Takes], count: int, rng: np.random.Generator
    ) -> Iterator[tuple[list[int], int]]:
        """So many callers' utterances: their ids, noisy, and corpus indices."""
        for _ in range(count):
            codes, index, _ = self._utterance(takes, rng)
            yield self._tokenizer.speech_ids(codes), index

    def judged(
        self, questions: Iterable[tuple[Codes, Intent]], language: Language, tools: bool
    ) -> list[Scene]:
        """Spoken questions, each with what an agent should do, after a greeting and what led there.

        With tools an answer ends where the call does, since what comes then is up to the result.
        """
        line = self._lines[language]
        rng = np.random.default_rng(0)  # draws what tools gave back before
        by_context: defaultdict[str, list[tuple[Codes, Intent]]] = defaultdict(list)
        for codes, intent in questions:
            by_context[intent.after or ""].append((codes, intent))
        scenes = []
        for context, asked in by_context.items():
            call = Call(line, tools)
            start = self._opened(call, None)
            for earlier in _way_to(line, context):
                user = self._prompt.typed(_typed(line, earlier))
                start += [*user, *self._response(call, earlier, rng).ids]
            exchanges = [
                self._exchange(self._prompt.spoken(codes.tolist()), self._response(call, i, None))
                for codes, i in asked
            ]
            scenes.append(Scene(start, exchanges))
        return scenes

    def _voiced(self, corpus: Corpus, spoken: Takes) -> dict[tuple[str, str], list[int]]:
        answers: dict[tuple[str, str], list[int]] = {}
        for index in corpus.indices(role="agent", canonical=True):
            text, style = corpus.text(index), corpus.field(index, "style") or NEUTRAL
            if index not in spoken:
                raise ValueError(f"answer {text!r}: the recording of the agent's voice is corrupt")
            try:
                answers[text, style] = self._answer(text, spoken[index])
            except ValueError as error:
                raise ValueError(f"answer {text!r}, {style}: {error}") from error
        return answers

    def _answer(self, text: str, codes: Codes) -> list[int]:
        speech = self._tokenizer.speech_ids(codes.tolist())
        return self._interleave.arrange(self._tokenizer.encode_plain(text), speech)

    def _greeting(
        self, call: Call, rng: np.random.Generator | None, first: bool = True
    ) -> tuple[list[int], list[int], list[int]]:
        """System prompt; what asks for a greeting, the plain one if rng is None; the greeting.

        Args:
            call: What the system prompt is about.
            rng: Draws how it is put.
            first: Whether the agent speaks first.
        """
        asked = call.line.styles.get(call.style)
        instruction = None if asked is None or rng is None else asked[rng.integers(len(asked))]
        tools = call.line.tools if call.tools else ()
        prompt = system_prompt(not first, instruction, tools)
        if instruction and not tools and rng is not None and rng.random() < 0.5:
            prompt = instruction  # in place of the published prompt, as a gateway's settings may
        line = call.line
        if rng is not None and rng.random() < _OTHER_GREETING:
            line = list(self._lines.values())[rng.integers(len(self._lines))]
        intent = line.greeting
        style = call.style if call.style in line.styles else NEUTRAL
        typed = self._prompt.typed(intent.instruction or "")
        return self._prompt.opening(prompt), typed, self._answers[intent.answer, style]

    def _opened(self, call: Call, rng: np.random.Generator | None) -> list[int]:
        """System prompt and perhaps the greeting; always the plain greeting if rng is None."""
        greeted = rng is None or rng.random() < self._mixture.greeted
        start, asked, greeting = self._greeting(call, rng, greeted)
        return [*start, *asked, *self._perhaps_cut(greeting, rng)] if greeted else start

    def _drawn(self, rng: np.random.Generator) -> Call:
        """A call that has not begun."""
        mixture = self._mixture
        shares = np.array([mixture.languages.get(language, 0.0) for language in self._lines])
        line = list(self._lines.values())[rng.choice(len(shares), p=shares / shares.sum())]
        styles = list(line.styles) if rng.random() < mixture.styled else []
        style = styles[rng.integers(len(styles))] if styles else NEUTRAL
        return Call(line, bool(line.tools) and rng.random() < mixture.tools, style)

    def _greeted(self, rng: np.random.Generator) -> Scene:
        """A call's greeting, which ends where the caller's turn begins."""
        start, asked, greeting = self._greeting(self._drawn(rng), rng)
        return Scene(start, [self._exchange(asked, self._spoken(greeting))])

    def _call(self, takes: Sequence[Takes], rng: np.random.Generator) -> Scene:
        mixture, call = self._mixture, self._drawn(rng)
        line, start = call.line, self._opened(call, rng)
        turns = max(0, int(rng.integers(-mixture.turns, mixture.turns + 1)))
        led = self._led(line, rng) if rng.random() < mixture.amid else []
        for intent in [*[None] * (turns - len(led)), *led]:
            wanted = intent or self._wanted(call, rng)
            user = self._said_by(call, wanted, takes, rng)
            start += [*user, *self._perhaps_cut(self._response(call, wanted, rng).ids, rng)]
            call = call.after(wanted)
        exchanges = []
        for _ in range(mixture.questions):
            intent = self._wanted(call, rng)
            user = self._said_by(call, intent, takes, rng)
            response = self._response(call, intent, rng)
            exchanges.append(self._exchange(user, response, rng.random() < mixture.whole))
        return Scene(start, exchanges)

    def _perhaps_cut(self, answer: list[int], rng: np.random.Generator | None) -> list[int]:
        called = self._prompt.assistant in answer  # a call is not cut from its result
        if rng is None or called or rng.random() >= self._mixture.cut:
            return answer
        flags = list(map(self._tokenizer.is_speech, answer))
        return heard(answer, flags, int(rng.integers(0, sum(flags))))

    def _response(self, call: Call, intent: Intent, rng: np.random.Generator | None) -> Example:
        """What the agent says and does, and which of it is to be predicted.

        Without rng it ends where a tool has been called.
        """
        style = intent.style or call.style
        if intent.tool is None or not call.tools:
            return self._spoken(self._answers[intent.answer, style])
        tool = intent.tool
        before = self._spoken(self._answers[tool.before, style])
        called = self._prompt.call(tool.name, tool.arguments)
        ids, kinds = [*before.ids, *called], [*before.kinds, *[TEXT] * len(called)]
        if rng is not None:
            result, text = tool.results[rng.integers(len(tool.results))]
            given = self._prompt.result(result)
            then = self._spoken(self._answers[text, style])
            ids += [*given, *then.ids]
            kinds += [TEXT, *[GIVEN] * (len(given) - 1), *then.kinds]
        return Example(ids, kinds)

    def _spoken(self, answer: list[int]) -> Example:
        return Example(answer, [SPEECH if self._tokenizer.is_speech(i) else TEXT for i in answer])

    def _asked_on(self, line: Line) -> list[Intent]:
        """The intents that callers have asked for in the recordings."""
        return [i for i in line.intents.values() if f"{line.language} {i.says}" in self._asked]

    def _led(self, line: Line, rng: np.random.Generator) -> list[Intent]:
        """The turns that lead to one of the answers that the line goes on from, if there is any."""
        asked = self._asked_on(line)
        ways = [_way_to(line, name) for name in sorted({i.after for i in asked if i.after})]
        ways = [way for way in ways if all(intent in asked for intent in way)]
        if not ways:
            return []
        kinds = Counter(way[-1].kind for way in ways)
        weights = np.array([1 / kinds[way[-1].kind] for way in ways])
        return ways[rng.choice(len(ways), p=weights / weights.sum())]

    def _wanted(self, call: Call, rng: np.random.Generator) -> Intent:
        """What a caller wants next."""
        mixture, asked = self._mixture, self._asked_on(call.line)
        here = [i for i in asked if call.answered and i.after == call.answered.name]
        if not here or rng.random() >= mixture.follow:
            here = [intent for intent in asked if intent.after is None]
        # Each kind alike, however many values it has.
        kinds = Counter(intent.kind for intent in here)
        weights = np.array([mixture.intents.get(i.kind, 1.0) / kinds[i.kind] for i in here])
        return here[rng.choice(len(here), p=weights / weights.sum())]

    def _said_by(
        self, call: Call, intent: Intent, takes: Sequence[Takes], rng: np.random.Generator
    ) -> list[int]:
        """A caller's turn with which it says so."""
        mixture, line = self._mixture, call.line
        assert intent.says is not None
        if rng.random() < mixture.typed:
            texts = line.sayings[intent.says].train
            return self._prompt.typed(texts[rng.integers(len(texts))])
        recordings = self._asked[f"{line.language} {intent.says}"]
        unknown = self._asked.get(f"{line.language} {_UNKNOWN}", [])
        if intent.kind == _FALLBACK and unknown and rng.random() < mixture.unknown:
            recordings = unknown
        index = recordings[rng.integers(len(recordings))]
        return self._prompt.spoken(self._noisy(takes, index, rng))

    def _dictation(self, takes: Sequence[Takes], rng: np.random.Generator) -> Scene:
        exchanges = []
        for _ in range(self._mixture.dictations):
            codes, _, words = self._utterance(takes, rng)
            user = self._prompt.spoken(codes)
            exchanges.append(self._exchange(user, Example(words, [TEXT] * len(words))))
        return Scene(self._prompt.opening(TRANSCRIBE_SYSTEM), exchanges)

    def _utterance(
        self, takes: Sequence[Takes], rng: np.random.Generator
    ) -> tuple[list[int], int, list[int]]:
        """Any caller's utterance: its noisy codes, its corpus index, the ids of its words."""
        index, words = self._words[rng.integers(len(self._words))]
        return self._noisy(takes, index, rng), index, words

    def _reading(self, rng: np.random.Generator) -> Scene:
        """Texts to say, half of them the line's own answers."""
        exchanges = []
        for _ in range(self._mixture.readings):
            texts = self._said if rng.random() < 0.5 else self._readings
            text, answer = texts[rng.integers(len(texts))]
            exchanges.append(self._exchange(self._prompt.say(text), self._spoken(answer)))
        line = list(self._lines.values())[rng.integers(len(self._lines))]
        greeting = line.greeting
        asked = self._prompt.typed(greeting.instruction or "")
        said = self._spoken(self._answers[greeting.answer, NEUTRAL])
        exchanges.append(self._exchange(asked, said))
        return Scene(self._prompt.opening(TEXT_SYSTEM), exchanges)

    def _exchange(self, user: Sequence[int], response: Example, whole: bool = True) -> Example:
        # An answer ends with the id that begins the next turn, or a tool's result.
        observation, called = self._prompt.observation, self._prompt.assistant in response.ids
        ids, kinds = list(response.ids), list(response.kinds)
        ended = called and observation not in ids
        ids, kinds = [*ids, observation if ended else self._prompt.user], [*kinds, TEXT]
        if not whole and SPEECH in kinds:
            end = ids.index(observation) + 1 if called else kinds.index(SPEECH)
            ids, kinds = ids[:end], kinds[:end]
        return Example([*user, *ids], [GIVEN] * len(user) + kinds)

    def _noisy(self, takes: Sequence[Takes], index: int, rng: np.random.Generator) -> list[int]:
        codes = takes[rng.integers(len(takes))][index]
        mixture = self._mixture
        fate = rng.random(len(codes))
        replaced = rng.integers(0, self._tokenizer.audio_count, len(codes))
        lost = fate < mixture.drop
        fate -= mixture.drop
        wrong = ~lost & (fate < mixture.replace)
        twice = ~lost & ~wrong & (fate < mixture.replace + mixture.double)
        noisy: list[int] = np.repeat(np.where(wrong, replaced, codes), 1 - lost + twice).tolist()
        return noisy or codes.tolist()


def _typed(line: Line, intent: Intent) -> str:
    """How a caller may put what an intent wants."""
    return line.sayings[intent.says].train[0] if intent.says else intent.instruction or ""


def _way_to(line: Line, name: str) -> list[Intent]:
    """The intents that lead to the context an intent needs."""
    way: list[Intent] = []
    while name:
        way.insert(0, line.intents[name])
        name = way[0].after or ""
    return way
