"""Row group: tokens of a caller's turn, and how streaming changes their ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.bench.bench import Bench, Weights, clock
from agent.bench.sounds import Audio, speech, spoken_lines
from agent.bench.table import Bar, Figure, Result, Table
from agent.speech.tokenizer import TokenizerStream

PUSH = 320  # samples: what a phone brings every 20 ms
_SECONDS = 10.0


def heard(weights: Weights, audio: Audio) -> tuple[TokenizerStream, list[int]]:
    """A stream that was fed a turn while it was spoken, and the tokens that it has given out.

    As in the service, what a louder sound has changed is computed anew with every block.
    """
    stream = weights.tokenizer.stream()
    given: list[int] = []
    for start in range(0, len(audio), PUSH):
        tokens = stream.push(audio[start : start + PUSH])
        if len(tokens):
            given += tokens.tolist()
            stream.revise()
    return stream, given


def run(bench: Bench) -> Sequence[Result]:
    """Measure and count."""
    bench.progress("tokens of a turn")
    results: list[Result] = [
        _ready(bench, bench.mid_size, _SECONDS, "10 s turn", Bar("at most", 0.25)),
        _ready(bench, bench.mid_size, _almost(bench.mid_size), "block almost full", None),
        _ready(bench, bench.nano, _SECONDS, "10 s turn", None),
    ]
    return [*results, _differences(bench)]


def _almost(weights: Weights) -> float:
    """Seconds of a turn that ends just before its last block is full: the most that can be open."""
    tokenizer = weights.tokenizer
    block = tokenizer.encoder.config.block * tokenizer.frame_samples / 16_000
    return float(np.ceil(_SECONDS / block) * block - 0.1)


def _ready(bench: Bench, weights: Weights, seconds: float, what: str, bar: Bar | None) -> Figure:
    audio = speech(seconds)
    reference = bench.load(weights, "tokenizer")

    def ours() -> float:
        stream, _ = heard(weights, audio)
        begin = clock()
        stream.finish()
        stream.revise()
        return clock() - begin

    def theirs() -> float:
        assert reference is not None
        return float(reference.call("tokens", audio=reference.share(audio))["seconds"])

    mine, against = bench.alternate(
        bench.repetitions(7), ours, theirs if reference else None, bench.reason("tokenizer")
    )
    name = f"tokens ready after the caller stops, {what}"
    if what != "10 s turn":
        name += f" ({seconds:.1f} s)"
    return Figure(name, weights.name, "s", mine, against, bar)


def _differences(bench: Bench) -> Table:
    """Ids of streams against those of whole recordings."""
    rows = []
    for weights in (bench.mid_size, bench.nano):
        different = final = revised = total = 0
        lines = spoken_lines(bench.recordings)
        for audio in [*lines.values(), speech(_SECONDS)]:
            stream, early = heard(weights, audio)
            ids = np.array([*early, *stream.finish().tolist()])
            whole = weights.tokenizer.encode([audio])[0]
            wrong = ids != whole
            different += int(wrong.sum())
            final += int(wrong[: len(early)].sum())
            revised += int((stream.revise() != whole).sum())
            total += len(ids)
        rows.append(
            (
                weights.name,
                str(len(lines) + 1),
                str(total),
                f"{different} ({100 * different / total:.2f} %)",
                str(final),
                str(revised),
            )
        )
    return Table(
        "Token ids of a stream against those of the whole recording",
        ("weights", "recordings", "ids", "different", "given out before the end", "after revision"),
        tuple(rows),
        ("The demo's lines, 10 s of them in one, and any WAV given.",),
    )
