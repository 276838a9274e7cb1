"""Row group: speech tokens to sound, in blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from agent.bench.bench import Bench, Weights, clock
from agent.bench.sounds import speech_tokens
from agent.bench.table import NOT_HERE, Bar, Figure, Measured, Result
from agent.speech import SpeechDecoder
from agent.speech.decoder import DecoderStream

_BLOCK = 10
_TOKEN_SECONDS = 1 / 12.5
_TOKENS = 100  # of an answer, for the real-time factor; in a quick run the long one, too
_LONG = 400


def run(bench: Bench) -> Sequence[Result]:
    """Measure."""
    bench.progress("decoder, last block of a long answer")
    results: list[Result] = [*_last_block(bench)]
    bench.progress("decoder, real-time factor")
    results.append(_real_time(bench, bench.mid_size, True, Bar("at most", 0.4)))
    results.append(_real_time(bench, bench.nano, True, None))
    results.append(_real_time(bench, bench.nano, False, Bar("at most", 0.35, "ours")))
    return results


def _tokens(decoder: SpeechDecoder, count: int) -> torch.Tensor:
    return torch.from_numpy(speech_tokens(count, decoder.flow.config.vocab_size))


def _copied(stream: DecoderStream) -> DecoderStream:
    """The stream as it stands, to be pushed on more than once; the weights stay shared."""
    shared: dict[int, Any] = {id(stream.decoder): stream.decoder}
    for module in (stream.decoder.flow, stream.decoder.vocoder):
        for item in (*module.modules(), *module.parameters(), *module.buffers()):
            shared[id(item)] = item
    return copy.deepcopy(stream, shared)


def _at_block(decoder: SpeechDecoder, codes: torch.Tensor, number: int) -> DecoderStream:
    """A stream whose next block is the one of this number, from 1.

    The blocks before it are decoded in one step without guidance: their sound is of no interest,
    and what they leave behind has the same shape.
    """
    stream = decoder.stream()
    mels = stream._mels
    mels.settings = replace(decoder.settings, steps=1, guidance=0.0)
    for start in range(0, (number - 1) * _BLOCK, _BLOCK):
        stream.push(codes[start : start + _BLOCK])
    mels.settings = decoder.settings
    return stream


def _last_block(bench: Bench) -> list[Figure]:
    weights = bench.mid_size
    count = _TOKENS if bench.quick else _LONG
    decoder = weights.decoder
    codes = _tokens(decoder, count)
    last = count // _BLOCK
    streams = {number: _at_block(decoder, codes, number) for number in (3, last)}
    reference = bench.load(weights, "decoder")

    def ours(number: int) -> float:
        stream = _copied(streams[number])
        block = codes[(number - 1) * _BLOCK : number * _BLOCK]
        begin = clock()
        stream.push(block)
        return clock() - begin

    thirds, lasts = [], []
    for _ in range(bench.repetitions(4)):
        thirds.append(ours(3))
        lasts.append(ours(last))
    mine = Measured(tuple(lasts))
    against: Measured | str = bench.reason("decoder") or NOT_HERE
    if reference is not None:
        reply = reference.call("stream", codes=codes.tolist(), only_last=True, one_step=True)
        against = Measured((reply["seconds"][-1],))
    name = f"decoder, last block of {_BLOCK} of a {count}-token answer"
    return [
        Figure(
            name,
            weights.name,
            "s",
            mine,
            Measured(tuple(thirds)),
            Bar("at most", 1.1),
            other="our third block",
        ),
        Figure(
            name,
            weights.name,
            "s",
            mine,
            against,
            Bar("at most", 1 / 8),
            note="Last block of the reference: one of its ten equal Euler steps is timed and "
            "counted ten times; the blocks before it are not computed.",
        ),
    ]


def _real_time(bench: Bench, weights: Weights, shared_settings: bool, bar: Bar | None) -> Figure:
    """Seconds of work a second of sound, over an answer of 100 tokens.

    Args:
        bench: The run.
        weights: Which.
        shared_settings: Ten steps, as the reference has them; else what the checkpoint asks for,
            and no other side.
        bar: What must be reached.
    """
    shipped = weights.decoder
    settings = shipped.settings
    if shared_settings:
        settings = replace(settings, steps=10, guidance=0.7)
    decoder = SpeechDecoder(shipped.flow, shipped.vocoder, settings)
    count = _TOKENS
    codes = _tokens(decoder, count)
    sound = count * _TOKEN_SECONDS
    reference = bench.load(weights, "decoder") if shared_settings else None

    def ours() -> float:
        begin = clock()
        stream = decoder.stream()
        for start in range(0, count, _BLOCK):
            stream.push(codes[start : start + _BLOCK], last=start + _BLOCK == count)
        return (clock() - begin) / sound

    def theirs() -> float:
        assert reference is not None
        reply = reference.call(
            "stream", codes=codes.tolist(), only_last=False, one_step=bench.quick
        )
        return float(sum(reply["seconds"])) / sound

    missing = bench.reason("decoder") if shared_settings else "-"
    repetitions = 1 if weights is bench.mid_size else bench.repetitions(2)
    mine, against = bench.alternate(repetitions, ours, theirs if reference else None, missing)
    name = f"decoder, real-time factor, {count} tokens in blocks of {_BLOCK}"
    name += f", {settings.steps} steps"
    return Figure(name, weights.name, "", mine, against, bar)
