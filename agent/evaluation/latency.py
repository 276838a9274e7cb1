"""How long an answer takes to begin, and which part takes how long, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from agent.evaluation.answering import Checkpoint
from agent.evaluation.items import SpokenItem, Turn, load_sound
from agent.evaluation.results import Figure, TaskResult, by_set
from agent.sound import SAMPLE_RATE
from agent.speech.generation import Clock, GenerationEngine

PARTS = ("tokenise", "first_token", "first_audio")
_CHUNK = SAMPLE_RATE // 50


class PerformanceCounter:
    """The finest clock there is."""

    def time(self) -> float:
        """Seconds from some moment."""
        return time.perf_counter()


def measure(checkpoint: Checkpoint, item: SpokenItem, clock: Clock) -> dict[str, float]:
    """Answer one recording and time it.

    The recording streams through the tokenizer 20 ms at a time, as it does while a caller speaks;
    the clock starts when its last sample is there.

    Returns:
        Seconds: ``tokenise`` until the last token of the recording, ``first_token`` from there to
        the answer's first token, ``first_audio`` from there to the sound of its first speech
        tokens; ``total``, the three together; ``audio``, how much sound the whole answer has, and
        ``answer``, from first to last. Without speech in the answer, the last parts are missing.
    """
    sound = load_sound(item.audio, item.phone_band)
    stream = checkpoint.tokenizer.stream()
    found = [stream.push(sound[i : i + _CHUNK]) for i in range(0, len(sound), _CHUNK)]
    start = clock.time()
    codes = np.concatenate([*found, stream.finish()])
    tokenised = clock.time()
    engine = GenerationEngine(checkpoint.model, clock=clock)
    decoder = checkpoint.decoder.stream()
    engine.submit(item.id, codes, checkpoint.sampling.request(Turn(audio=item.audio)))
    times = {"tokenise": tokenised - start}
    spoken = samples = 0
    last = False
    while not last:
        for piece in engine.step():
            last = piece.last
            times |= piece.timing
            tokens = torch.from_numpy(piece.speech_tokens)
            spoken += len(tokens)
            if len(tokens) or (last and spoken):
                samples += len(decoder.push(tokens, last=last))
            if samples and "first_audio" not in times:
                times["first_audio"] = clock.time() - tokenised - times["first_token"]
                times["total"] = clock.time() - start
        engine.credit(item.id, spoken)
    times["answer"] = clock.time() - start
    times["audio"] = samples / checkpoint.decoder.sample_rate
    return times


def run(
    checkpoint: Checkpoint,
    items: Sequence[SpokenItem],
    clock: Clock | None = None,
) -> TaskResult:
    """Answer the recordings one after another; the first is answered once before it counts."""
    clock = clock or PerformanceCounter()
    result = TaskResult("latency")
    measure(checkpoint, items[0], clock)
    for part, group in by_set(items).items():
        timed = [measure(checkpoint, item, clock) for item in group]
        for item, times in zip(group, timed, strict=True):
            result.items.append({"id": item.id, "set": part, **times})
        for name in (*PARTS, "total"):
            if values := [1_000 * times[name] for times in timed if name in times]:
                result.figures.append(_quantiles(name, part, values))
        audio = sum(times["audio"] for times in timed)
        if audio:
            factor = sum(times["answer"] for times in timed) / audio
            result.figures.append(
                Figure("real_time_factor", part, factor, "", len(timed), better="lower")
            )
        if silent := sum("total" not in times for times in timed):
            result.notes.append(f"{part}: {silent} of {len(group)} answers had no speech.")
    result.notes.append(
        "Medians; the intervals are the 10th and the 90th percentile of the items. One call at a "
        "time, the prompt read only when the turn is over, sound decoded 10 tokens at a time."
    )
    return result


def _quantiles(name: str, part: str, values: Sequence[float]) -> Figure:
    low, middle, high = (float(q) for q in np.percentile(values, (10, 50, 90)))
    return Figure(name, part, middle, "ms", len(values), low, high, "lower")
