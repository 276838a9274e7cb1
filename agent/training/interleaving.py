"""Interleaved data: spans of written text are turned into speech codes without any sound.

As arXiv 2411.17607 has it: span lengths are drawn from a Poisson distribution until they make up a
given share of the text, spans of these lengths are laid at random over the text, and a
text-to-token model says them. The defaults, a mean length of 10 and a share of 0.3 (its ablation
runs from 0.2 to 0.4), are from memory of the paper. Lengths count words here, or characters where a
script has no spaces: a span that begins inside a word cannot be said.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.training.recipe import Section
from agent.training.shards import Shards, ShardWriter
from agent.training.text_to_token import TextToToken

# Han, kana and hangul are written without spaces between words, or may be.
_SPACELESS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_UNIT = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")


class Settings(Section):
    """How a text becomes an interleaved one.

    Attributes:
        spoken: Share of a text's words that are spoken.
        span: Mean length of a span, in words.
        temperature: Of the text-to-token model; 0 always says a text in the same way.
        batch: Spans said at once.
        longest: Most words of a text; what is longer is cut into several.
        seed: Of everything that is drawn.
    """

    section = "interleave"

    spoken: float = 0.3
    span: float = 10.0
    temperature: float = 0.8
    batch: int = 16
    longest: int = 1000
    seed: int = 0


def draw_spans(
    words: int, spoken: float, mean: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Spans of a text, in order, none of which touches the next.

    Args:
        words: Of the text.
        spoken: Share of them that the spans make up, to within a word.
        mean: Of the spans' lengths.
        rng: Draws lengths and places.

    Returns:
        (first word, word behind the last) of each.
    """
    wanted = round(spoken * words)
    lengths: list[int] = []
    while (left := wanted - sum(lengths)) > 0:
        # The last one is cut, so that the share holds.
        length = min(int(rng.poisson(mean)), left)
        if length:
            lengths.append(length)
    rng.shuffle(lengths)  # or else the one that was cut would always come last
    silent = words - wanted
    # A span goes before one of the words left over, or behind them all; never two to a place.
    del lengths[silent + 1 :]
    places = np.sort(rng.choice(silent + 1, len(lengths), replace=False)).tolist()
    spans = []
    before = 0
    for place, length in zip(places, lengths, strict=True):
        spans.append((place + before, place + before + length))
        before += length
    return spans


def units(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends, or each character in scripts without spaces."""
    return [match.span() for match in _UNIT.finditer(text)]


def cut(text: str, longest: int) -> list[str]:
    """Divide a text into pieces of at most so many words."""
    places = units(text)
    starts = [0, *(places[i][0] for i in range(longest, len(places), longest)), len(text)]
    return [text[a:b].strip() for a, b in itertools.pairwise(starts) if text[a:b].strip()]


def parts(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is to be spoken; together they are the text."""
    places = units(text)
    pieces: list[tuple[str, bool]] = []
    end = 0
    for first, behind in spans:
        begin, stop = places[first][0], places[behind - 1][1]
        if begin > end:
            pieces.append((text[end:begin], False))
        pieces.append((text[begin:stop], True))
        end = stop
    if end < len(text):
        pieces.append((text[end:], False))
    return pieces


def run(settings: Settings, data: Path, model: TextToToken, out: Path) -> None:
    """Write interleaved samples of all texts of a data set, or what is missing of them.

    A sample's index line has ``parts``: each a text, or the [begin, end) of a span's codes.

    Args:
        settings: How.
        data: Shards whose samples have a ``text``.
        model: Says the spans.
        out: Directory of the shards to write.
    """
    texts = Shards(data, ["text"])
    writer = ShardWriter(out)
    done, began, first = 0, time.monotonic(), writer.count
    for index in range(len(texts)):
        entry = texts.entry(index)
        pieces = cut(str(entry["text"]), settings.longest)
        done += len(pieces)
        if done <= writer.count:
            continue
        for number, text in list(enumerate(pieces))[len(pieces) - (done - writer.count) :]:
            rng = np.random.default_rng((settings.seed, index, number))
            _write(settings, f"{entry['id']}-{number}", text, model, writer, rng)
        if (index + 1) % 100 == 0 or index + 1 == len(texts):
            pace = (time.monotonic() - began) / max(1, writer.count - first)
            left = pace * (len(texts) - index - 1) * done / (index + 1)
            print(f"{index + 1}/{len(texts)} texts  left {left / 60:.1f} min", flush=True)


def _write(
    settings: Settings,
    name: str,
    text: str,
    model: TextToToken,
    writer: ShardWriter,
    rng: np.random.Generator,
) -> None:
    spans = draw_spans(len(units(text)), settings.spoken, settings.span, rng)
    pieces = parts(text, spans)
    spoken = [piece for piece, said in pieces if said]
    said: list[list[int]] = []
    for start in range(0, len(spoken), settings.batch):
        seed = int(rng.integers(2**31))
        said += model.say(spoken[start : start + settings.batch], settings.temperature, seed)
    codes = iter(said)
    written: list[str | list[int]] = []
    together: list[int] = []
    for piece, is_said in pieces:
        if is_said:
            span = next(codes)
            written.append([len(together), len(together) + len(span)])
            together += span
        else:
            written.append(piece)
    writer.add({"id": name, "text": text, "parts": written}, codes=np.array(together, np.int32))
