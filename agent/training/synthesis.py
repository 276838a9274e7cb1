"""Renders the nano corpus: every line of it spoken by free synthetic voices.

``glm-voice train corpus`` writes what :class:`agent.training.data.Corpus` reads. The agent's voice
comes first, so that the vocoder can be trained while callers are still being rendered. Same corpus,
seed and synthesisers: same files.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.evaluation.text import words
from agent.training.phrasings import Line, read_line, unheard_words
from agent.training.recipe import Section
from agent.training.sentences import SentenceGenerator
from agent.training.shards import SAMPLE_RATE, SHARD_SECONDS, ShardWriter
from agent.training.voices import (
    AGENT_VOICE,
    CALLERS,
    Manner,
    Phones,
    Voice,
    espeak,
    festival,
    flite,
    level,
    require_synthesisers,
    trim,
)

ANSWER_STRETCHES = (1.0, 0.93, 1.07, 1.15)  # the first is canonical
_CHUNK = 48


class Settings(Section):
    """What is rendered; the section "corpus" of a settings file.

    Attributes:
        line: YAML file of what is said on the line.
        words: YAML file of word lists, for sentences of random words.
        cover: Such sentences in the agent's voice.
        cover_others: The same in callers' voices.
        processes: How many synthesisers run at once.
        shard_seconds: Most audio in a shard.
        seed: Of everything that is drawn.
    """

    section = "corpus"

    line: Path
    words: Path
    cover: int
    cover_others: int
    processes: int = 2
    shard_seconds: float = SHARD_SECONDS
    seed: int


@dataclass(frozen=True)
class Order:
    """One utterance to be rendered."""

    id: str
    split: str
    role: str
    voice: str
    seen: bool
    text: str
    intent: str | None
    canonical: bool
    manner: Manner


def _manner(rng: random.Random, low: float, high: float) -> Manner:
    return Manner(stretch=rng.uniform(low, high), pitch=rng.randint(35, 65))


def _draw(voices: list[Voice], count: int, rng: random.Random) -> list[Voice]:
    """Draw different voices by weight (Efraimidis and Spirakis' keys, u ** (1 / weight))."""
    return sorted(voices, key=lambda v: rng.random() ** (1 / v.weight), reverse=True)[:count]


def agent_orders(line: Line, cover: list[str], seed: int) -> Iterator[Order]:
    """What the agent says: each answer at a few paces, then sentences that cover English."""
    for intent in line.intents:
        for index, stretch in enumerate(ANSWER_STRETCHES):
            name, canonical = f"agent-{intent.name}-{index}", index == 0
            manner = Manner(stretch)
            yield Order(
                name, "train", "agent", AGENT_VOICE, True, intent.answer, intent.name, canonical,
                manner,
            )  # fmt: skip
    rng = random.Random(f"{seed} cover")
    for index, text in enumerate(cover):
        manner = Manner(1.0 if index % 2 else rng.uniform(0.9, 1.15))
        # One in thirty is kept to measure the voice on sentences it was not trained on.
        split = "held_out" if index % 30 == 29 else "train"
        yield Order(
            f"cover-{index:04d}", split, "cover", AGENT_VOICE, True, text, None, False, manner
        )


def caller_orders(line: Line, cover: list[str], seed: int) -> list[Order]:
    """What callers say, shuffled, so that any beginning of it is a fair sample of the whole."""
    rng = random.Random(f"{seed} callers")
    seen = [voice for voice in CALLERS if voice.seen]
    unseen = [voice for voice in CALLERS if not voice.seen]
    # The four most natural voices speak every held-out sentence, and one other.
    natural = sorted(seen, key=lambda voice: -voice.weight)[:4]
    others = [voice for voice in seen if voice not in natural]
    orders = []
    for intent in line.intents:
        spoken = [("train", text, _draw(seen, intent.renderings, rng)) for text in intent.train]
        spoken += [
            ("held_out", text, [*natural, rng.choice(others), *unseen]) for text in intent.held_out
        ]
        for number, (split, text, speakers) in enumerate(spoken):
            for take, voice in enumerate(speakers):
                name = f"caller-{intent.name}-{number:03d}-{take}"
                manner = _manner(rng, 0.85, 1.2)
                orders.append(
                    Order(
                        name, split, "caller", voice.name, voice.seen, text, intent.name, False,
                        manner,
                    )
                )  # fmt: skip
    for index, text in enumerate(cover):
        voice, manner = _draw(seen, 1, rng)[0], _manner(rng, 0.85, 1.2)
        name = f"cover-other-{index:04d}"
        orders.append(Order(name, "train", "cover", voice.name, True, text, None, False, manner))
    rng.shuffle(orders)
    return orders


def render(orders: list[Order]) -> list[tuple[npt.NDArray[np.int16], Phones | None]]:
    """Speak some orders; returns int16 [n] at 16 kHz and the phones where known, for each."""
    spoken: list[tuple[npt.NDArray[np.float32], Phones | None]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines = [order.voice.split(":", 1) for order in orders]
        by_festival = [i for i, (engine, _) in enumerate(engines) if engine == "festival"]
        requests = [(engines[i][1], orders[i].text, orders[i].manner) for i in by_festival]
        from_festival = dict(
            zip(by_festival, festival(requests, folder) if requests else [], strict=True)
        )
        for index, (order, (engine, voice)) in enumerate(zip(orders, engines, strict=True)):
            if engine == "festival":
                spoken.append((from_festival[index], None))
            elif engine == "flite":
                spoken.append(flite(voice, order.text, order.manner, folder))
            else:
                spoken.append((espeak(voice, order.text, order.manner, folder), None))
    rendered = []
    for audio, phones in spoken:
        audio, phones = trim(audio, phones)
        rendered.append((np.round(level(audio) * 32767).astype("<i2"), phones))
    return rendered


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
                entry = {
                    "id": order.id,
                    "split": order.split,
                    "role": order.role,
                    "voice": order.voice,
                    "seen_voice": order.seen,
                    "text": order.text,
                    "intent": order.intent,
                    "canonical": order.canonical,
                    "phones": phones,
                }
                writer.add(entry, samples)
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
    line = read_line(settings.line, settings.seed)
    if unheard := unheard_words(line):
        raise ValueError(
            f"{settings.line}: held-out words that training never hears: "
            f"{', '.join(sorted(unheard))}"
        )
    require_synthesisers()
    vocabulary = {word for intent in line.intents for word in words(intent.answer)}
    vocabulary.update(word for intent in line.intents for t in intent.train for word in words(t))
    generator = SentenceGenerator.from_file(
        settings.words, more=(word for word in vocabulary if len(word) > 1), seed=settings.seed
    )
    cover = [generator.sentence() for _ in range(settings.cover + settings.cover_others)]
    orders = list(agent_orders(line, cover[: settings.cover], settings.seed))
    orders += caller_orders(line, cover[settings.cover :], settings.seed)
    write(orders, out, settings.processes, settings.shard_seconds)
    print(f"{len(orders)} utterances in {out}")
