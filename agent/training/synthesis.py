"""Renders the nano corpus: every line of it spoken by free synthetic voices.

``glm-voice train corpus`` writes what :class:`agent.training.data.Corpus` reads. The agent's voice
comes first, so that the vocoder can be trained while callers are still being rendered. Same corpus,
seed and synthesisers: same files.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.evaluation.text import Language, words
from agent.training.line import NEUTRAL, Line, read_line, unheard_words
from agent.training.recipe import Section
from agent.training.sentences import SentenceGenerator
from agent.training.shards import SAMPLE_RATE, SHARD_SECONDS, ShardWriter
from agent.training.voices import (
    AGENT_VOICES,
    CALLERS,
    STYLES,
    Manner,
    Phones,
    Voice,
    espeak,
    festival,
    flite,
    level,
    require_synthesisers,
    shifted,
    trim,
)

ANSWER_STRETCHES = (0.93, 1.07)
"""Paces beside those of the styles at which answers are spoken, for variety."""
_CHUNK = 48


class Settings(Section):
    """What is rendered; the section "corpus" of a settings file.

    Attributes:
        lines: YAML files of what is said on the line, one a language.
        words: YAML file of word lists, for sentences of random words.
        cover: Such sentences in the agent's voice.
        cover_others: The same in callers' voices.
        agent_says: Sentences of callers that the agent's voice says as well, of each language.
        processes: How many synthesisers run at once.
        shard_seconds: Most audio in a shard.
        seed: Of everything that is drawn.
    """

    section = "corpus"

    lines: list[Path]
    words: Path
    cover: int
    cover_others: int
    agent_says: int
    processes: int = 2
    shard_seconds: float = SHARD_SECONDS
    seed: int


@dataclass(frozen=True)
class Order:
    """One utterance to be rendered.

    Attributes:
        id: Its name.
        role: "agent", "caller" or "cover".
        voice: Who says it.
        text: What is said.
        language: In which language.
        manner: How.
        split: "train" or "held_out".
        seen_voice: Whether training may hear the voice.
        saying: What it says on the line, if anything.
        style: How the agent says it.
        canonical: Whether this is how the agent says it.
    """

    id: str
    role: str
    voice: str
    text: str
    language: Language
    manner: Manner
    split: str = "train"
    seen_voice: bool = True
    saying: str | None = None
    style: str | None = None
    canonical: bool = False

    def entry(self) -> dict[str, Any]:
        """Its line in the index."""
        return {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "manner"
        }


def _manner(rng: random.Random, low: float, high: float) -> Manner:
    return Manner(stretch=rng.uniform(low, high), pitch=rng.randint(35, 65))


def _draw(voices: Sequence[Voice], count: int, rng: random.Random) -> list[Voice]:
    """Draw different voices by weight (Efraimidis and Spirakis' keys, u ** (1 / weight))."""
    return sorted(voices, key=lambda v: rng.random() ** (1 / v.weight), reverse=True)[:count]


def agent_orders(line: Line, cover: Sequence[str], seed: int) -> Iterator[Order]:
    """What the agent says: each text in each style, at a few paces, then sentences for its sounds.

    Styles are those of the line's instructions; they are how a voice of flite is set.
    """
    language, voice = line.language, AGENT_VOICES[line.language]
    styles = [NEUTRAL, *line.styles]
    for number, text in enumerate(line.texts()):
        for style in styles:
            yield Order(
                f"agent-{language}-{number:03d}-{style}", "agent", voice, text, language,
                STYLES[style], style=style, canonical=True,
            )  # fmt: skip
        for take, stretch in enumerate(ANSWER_STRETCHES):
            yield Order(
                f"agent-{language}-{number:03d}-{take}", "agent", voice, text, language,
                Manner(stretch), style=NEUTRAL,
            )  # fmt: skip
    rng = random.Random(f"{seed} cover {language}")
    for index, text in enumerate(cover):
        # One in thirty is kept to measure the voice on sentences it was not trained on.
        split = "held_out" if index % 30 == 29 else "train"
        style = styles[index // 2 % len(styles)] if index % 2 else NEUTRAL
        manner = Manner(rng.uniform(0.9, 1.15)) if style == NEUTRAL else STYLES[style]
        name = f"cover-{language}-{index:04d}"
        yield Order(name, "cover", voice, text, language, manner, split, style=style)


def caller_orders(line: Line, cover: Sequence[str], seed: int) -> list[Order]:
    """What callers say, shuffled, so that any beginning of it is a fair sample of the whole."""
    language = line.language
    rng = random.Random(f"{seed} callers {language}")
    voices = CALLERS[language]
    seen = [voice for voice in voices if voice.seen]
    unseen = [voice for voice in voices if not voice.seen]
    # The four most natural voices speak every held-out sentence, and one other.
    natural = sorted(seen, key=lambda voice: -voice.weight)[:4]
    others = [voice for voice in seen if voice not in natural]
    orders = []
    for saying in line.sayings.values():
        spoken = [("train", text, _draw(seen, saying.renderings, rng)) for text in saying.train]
        spoken += [
            ("held_out", text, [*natural, rng.choice(others), *unseen]) for text in saying.held_out
        ]
        for number, (split, text, speakers) in enumerate(spoken):
            for take, voice in enumerate(speakers):
                orders.append(
                    Order(
                        f"caller-{language}-{saying.name}-{number:03d}-{take}", "caller",
                        voice.name, text, language, _manner(rng, 0.85, 1.2), split, voice.seen,
                        saying.name,
                    )
                )  # fmt: skip
    for index, text in enumerate(cover):
        voice, manner = _draw(seen, 1, rng)[0], _manner(rng, 0.85, 1.2)
        name = f"cover-other-{language}-{index:04d}"
        orders.append(Order(name, "cover", voice.name, text, language, manner))
    rng.shuffle(orders)
    return orders


def render(orders: list[Order]) -> list[tuple[npt.NDArray[np.int16], Phones | None]]:
    """Speak some orders; returns int16 [n] at 16 kHz and the phones where known, for each."""
    rendered = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speakers = [_speaker(order) for order in orders]
        by_festival = [i for i, speaker in enumerate(speakers) if speaker[0] == "festival"]
        requests = [(speakers[i][1], orders[i].text, speakers[i][2]) for i in by_festival]
        from_festival = dict(
            zip(by_festival, festival(requests, folder) if requests else [], strict=True)
        )
        for index, (order, speaker) in enumerate(zip(orders, speakers, strict=True)):
            engine, voice, manner, shift = speaker
            phones = None
            if engine == "festival":
                audio = from_festival[index]
            elif engine == "flite":
                audio, phones = flite(voice, order.text, manner, folder)
            else:
                audio = espeak(voice, order.text, manner, folder)
            if shift != 1.0:
                audio, phones = shifted(audio, phones, shift)
            audio, phones = trim(audio, phones)
            rendered.append((np.round(level(audio) * 32767).astype("<i2"), phones))
    return rendered


def _speaker(order: Order) -> tuple[str, str, Manner, float]:
    """Engine, its voice, how it is asked to speak, and how far it is shifted."""
    engine, voice = order.voice.split(":", 1)
    voice, _, shift = voice.partition("@")
    factor = float(shift or 1.0)
    return engine, voice, replace(order.manner, stretch=order.manner.stretch * factor), factor


def write(
    orders: list[Order], out: Path, processes: int, shard_seconds: float = SHARD_SECONDS
) -> int:
    """Render orders into shards, in order, so that they can be read while they grow.

    What is there already, from a run that was stopped, is not rendered again.

    Returns:
        How many were rendered.
    """
    writer = ShardWriter(out, shard_seconds)
    rest = orders[writer.count :]
    chunks = [rest[start : start + _CHUNK] for start in range(0, len(rest), _CHUNK)]
    began, seconds = time.monotonic(), 0.0
    with ProcessPoolExecutor(processes) as pool:
        for number, (chunk, rendered) in enumerate(
            zip(chunks, pool.map(render, chunks), strict=True), 1
        ):
            for order, (samples, phones) in zip(chunk, rendered, strict=True):
                writer.add(order.entry() | {"phones": phones}, samples)
                seconds += len(samples) / SAMPLE_RATE
            left = (time.monotonic() - began) / number * (len(chunks) - number)
            print(
                f"{writer.count}/{len(orders)} utterances, {seconds / 3600:.2f} h rendered"
                f"  left {left / 60:.1f} min",
                flush=True,
            )
    return len(rest)


def run(settings: Settings, out: Path) -> None:
    """Render the corpus, or what is missing of it.

    Raises:
        ValueError: Held-out words that training would never hear.
        RuntimeError: A synthesiser is not installed.
    """
    lines = [read_line(path, settings.seed) for path in settings.lines]
    for path, line in zip(settings.lines, lines, strict=True):
        if unheard := unheard_words(line):
            raise ValueError(
                f"{path}: held-out words that training never hears: {', '.join(sorted(unheard))}"
            )
    require_synthesisers()
    agents: list[Order] = []
    callers: list[Order] = []
    for line in lines:
        said = [text for saying in line.sayings.values() for text in saying.train]
        rng = random.Random(f"{settings.seed} agent says {line.language}")
        also = rng.sample(said, min(settings.agent_says, len(said)))
        covers, others = _covers(settings, line) if line.language == "en" else ([], [])
        agents += agent_orders(line, [*covers, *also], settings.seed)
        callers += caller_orders(line, others, settings.seed)
    random.Random(f"{settings.seed} order").shuffle(callers)
    orders = agents + callers
    write(orders, out, settings.processes, settings.shard_seconds)
    print(f"{len(orders)} utterances in {out}")


def _covers(settings: Settings, line: Line) -> tuple[list[str], list[str]]:
    """Sentences of random words, for the agent's voice and for callers'."""
    said = [*line.texts(), *(text for saying in line.sayings.values() for text in saying.train)]
    vocabulary = {word for text in said for word in words(text)}
    generator = SentenceGenerator.from_file(
        settings.words, more=(word for word in vocabulary if len(word) > 1), seed=settings.seed
    )
    cover = [generator.sentence() for _ in range(settings.cover + settings.cover_others)]
    return cover[: settings.cover], cover[settings.cover :]
