"""Row group: what a bounded prompt changes in the mel, and where more of it stops to matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from agent.bench.answers import answers
from agent.bench.bench import Bench, Weights
from agent.bench.sounds import speech_tokens
from agent.bench.table import Result, Table
from agent.speech import SpeechDecoder
from agent.speech.decoder_settings import DecoderSettings
from agent.speech.flow_stream import MelStream, advance_mels

_BLOCK = 10
_BLOCKS = (1, 2, 3, 4, 6)
_RANDOM_STEPS = 3  # what random weights say changes little with more, and takes minutes
_DECIBEL = 20 / math.log(10)  # of the natural log mel


@torch.inference_mode()
def streamed_mel(decoder: SpeechDecoder, settings: DecoderSettings, codes: Tensor) -> Tensor:
    """Log mel [80, frames] of an answer decoded block by block."""
    return advance_mels([(MelStream(decoder.flow, settings), codes, True)])[0]


def run(bench: Bench) -> Sequence[Result]:
    """Measure on both weights."""
    rows = []
    for weights in (bench.mid_size, bench.nano):
        bench.progress(f"mel behind a bounded prompt, {weights.name}")
        settings = weights.decoder.settings
        if weights is bench.mid_size:
            settings = replace(settings, steps=min(settings.steps, _RANDOM_STEPS))
        found = _differences(weights.decoder, settings, _spoken(bench, weights))
        rows.append((weights.name, *(f"{value:.2f}" for value in found), _settled(found)))
    return [
        Table(
            "Mel behind a bounded prompt against the mel behind everything said before (dB rms)",
            ("weights", *(f"{blocks} blocks" for blocks in _BLOCKS), "stops falling at"),
            tuple(rows),
            (
                "Nano: its own answers, one behind the other; mid-size: arbitrary tokens in "
                f"{_RANDOM_STEPS} steps. A block is {_BLOCK} tokens, 0.8 s.",
                f"Over the blocks that have more than {_BLOCKS[-1]} before them. It stops falling "
                "where no longer prompt is nearer by more than a tenth.",
            ),
        )
    ]


def _spoken(bench: Bench, weights: Weights) -> Tensor:
    """An answer to decode, longer than the longest prompt."""
    count = (_BLOCKS[-1] + (2 if bench.quick or weights is bench.mid_size else 4)) * _BLOCK
    if weights is bench.mid_size:
        return torch.from_numpy(speech_tokens(count, weights.decoder.flow.config.vocab_size))
    own = [code for answer in answers(weights) for code in answer.codes]
    return torch.tensor(own[:count])


def _differences(decoder: SpeechDecoder, settings: DecoderSettings, codes: Tensor) -> list[float]:
    first = decoder.flow.frames(min(len(codes) - 1, (_BLOCKS[-1] + 1) * _BLOCK))
    full = streamed_mel(decoder, replace(settings, prompt_blocks=len(codes)), codes)
    found = []
    for blocks in _BLOCKS:
        bounded = streamed_mel(decoder, replace(settings, prompt_blocks=blocks), codes)
        found.append(_DECIBEL * float((bounded - full)[:, first:].square().mean().sqrt()))
    return found


def _settled(values: Sequence[float]) -> str:
    for index, blocks in enumerate(_BLOCKS[:-1]):
        if all(later > 0.9 * values[index] for later in values[index + 1 :]):
            return f"{blocks} blocks"
    return f"not before {_BLOCKS[-1]} blocks"
