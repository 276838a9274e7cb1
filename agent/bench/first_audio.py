"""Row group: from the end of a caller's turn to the first sound of the answer."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import torch

from agent.bench.bench import Bench, Weights, clock
from agent.bench.listening import heard
from agent.bench.sounds import speech, speech_tokens
from agent.bench.table import Bar, Figure, Result, Table
from agent.bench.turn import spoken_turn
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest

_SECONDS = 5.0
# 13 text tokens come first. We decode from the encoder's first block on; the reference's demo from
# 25 speech tokens on, once the token after them has come.
STEPS, BLOCK = 13 + 10, 10
REFERENCE_STEPS, REFERENCE_BLOCK = 13 + 25 + 1, 25


def run(bench: Bench) -> Sequence[Result]:
    """Measure the whole path on both weights."""
    results: list[Result] = []
    rows: list[tuple[str, ...]] = []
    for weights, bar in ((bench.mid_size, Bar("at most", 0.4)), (bench.nano, None)):
        bench.progress(f"first audio, {weights.name}")
        figure, parts = _measure(bench, weights, bar)
        results.append(figure)
        rows += parts
    parts_table = Table(
        "Where the time to the first audio goes (s, medians)",
        ("weights", "side", "tokens", "prefill and first id", "other ids", "decoder"),
        tuple(rows),
    )
    return [*results, parts_table]


def _measure(
    bench: Bench, weights: Weights, bar: Bar | None
) -> tuple[Figure, list[tuple[str, ...]]]:
    audio = speech(_SECONDS)
    decoder = weights.decoder
    codes = torch.from_numpy(speech_tokens(REFERENCE_BLOCK, decoder.flow.config.vocab_size))
    reference = bench.load(weights, "tokenizer", "language_model", "decoder")
    our_parts: list[tuple[float, ...]] = []
    their_parts: list[tuple[float, ...]] = []

    def ours() -> float:
        engine = GenerationEngine(weights.language_model)
        request = TurnRequest(temperature=0.0, max_new_tokens=STEPS)
        stream, early = heard(weights, audio)
        engine.listen("call", early, request)
        while not engine.idle:
            engine.step()
        decoding = decoder.stream()
        times = [clock()]
        tokens = [*early, *stream.finish().tolist()]
        times.append(clock())
        engine.submit("call", tokens, request)
        engine.step()
        times.append(clock())
        while not engine.idle:
            engine.step()
        times.append(clock())
        sound = decoding.push(codes[:BLOCK])
        times.append(clock())
        assert len(sound)
        our_parts.append(tuple(b - a for a, b in itertools.pairwise(times)))
        return times[-1] - times[0]

    turn = spoken_turn(weights, [0])

    def theirs() -> float:
        assert reference is not None
        result = reference.call(
            "first_audio",
            audio=reference.share(audio),
            before=turn.before,
            offset=weights.language_model.audio_offset,
            after=turn.after,
            steps=REFERENCE_STEPS,
            codes=codes.tolist(),
        )
        their_parts.append(tuple(result["parts"].values()))
        return float(result["seconds"])

    missing = bench.reason("tokenizer", "language_model", "decoder")
    mine, against = bench.alternate(
        bench.repetitions(3), ours, theirs if reference else None, missing
    )
    rows = [
        (
            weights.name,
            side,
            *(f"{statistics.median(column):.3f}" for column in zip(*parts, strict=True)),
        )
        for side, parts in (("reference", their_parts), ("ours", our_parts))
        if parts
    ]
    own = decoder.settings
    note = (
        f"First audio: {STEPS} ids and a block of {BLOCK} here, {REFERENCE_STEPS} ids and "
        f"{REFERENCE_BLOCK} tokens there; the speech decoded is the same arbitrary tokens."
    )
    if (own.steps, own.guidance) != (10, 0.7):
        note = (
            f"First audio, {weights.name}: the checkpoint asks for {own.steps} flow steps, which "
            "the reference, always at 10, does not read."
        )
    name = f"first audio from the end of a {_SECONDS:.0f} s turn"
    return Figure(name, weights.name, "s", mine, against, bar, note=note), rows
