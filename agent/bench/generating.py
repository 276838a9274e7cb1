"""Row group: tokens a second of the language model, alone and together."""

from __future__ import annotations

from collections.abc import Sequence

from agent.bench.bench import Bench, Weights, clock
from agent.bench.sounds import speech
from agent.bench.table import Bar, Figure, Measured, Result
from agent.bench.turn import spoken_turn
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest

_TOGETHER = 8
_COUNT = 100


def run(bench: Bench) -> Sequence[Result]:
    """Measure one session against the reference, and eight against one."""
    bench.progress("language model, one session")
    nano = _against_reference(bench, bench.nano, Bar("at least", 4.0))
    mid_size = _against_reference(bench, bench.mid_size, None)
    bench.progress("language model, sessions together")
    return [nano, mid_size, _together(bench, bench.mid_size)]


def _codes(weights: Weights) -> list[int]:
    ids: list[int] = weights.tokenizer.encode([speech(5.0)])[0].tolist()
    return ids


class _Sessions:
    """Sessions of one engine whose prompts are read and whose first id is chosen."""

    def __init__(self, weights: Weights, turns: Sequence[Sequence[int]], count: int):
        self.engine = GenerationEngine(
            weights.language_model, lead_limit=10 * count, prefill_budget=8192
        )
        request = TurnRequest(temperature=0.0, max_new_tokens=count)
        for index, codes in enumerate(turns):
            self.engine.submit(str(index), list(codes), request)
        self.before = {str(i): len(self.engine.history(str(i))) for i in range(len(turns))}
        self.engine.step()

    def produced(self) -> int:
        """Ids chosen so far, all sessions together."""
        return sum(len(self.engine.history(name)) - n for name, n in self.before.items())

    def rate(self) -> tuple[float, int]:
        """Ids a second until all have ended, and how many ids there are."""
        first = self.produced()
        begin = clock()
        while not self.engine.idle:
            self.engine.step()
        seconds = clock() - begin
        return (self.produced() - first) / seconds, self.produced()


def _against_reference(bench: Bench, weights: Weights, bar: Bar | None) -> Figure:
    codes = _codes(weights)
    # A trained model may end its answer before: both sides are given as many ids.
    count = _Sessions(weights, [codes], _COUNT).rate()[1]
    reference = bench.load(weights, "language_model")
    ids = spoken_turn(weights, codes).ids

    def ours() -> float:
        return _Sessions(weights, [codes], count).rate()[0]

    def theirs() -> float:
        assert reference is not None
        reply = reference.call("generate", ids=ids, count=count)
        return float((count - 1) / reply["seconds"])

    mine, against = bench.alternate(
        bench.repetitions(3), ours, theirs if reference else None, bench.reason("language_model")
    )
    name = f"language model, one session, {count} greedy ids after {len(ids)}"
    return Figure(name, weights.name, "ids/s", mine, against, bar)


def _together(bench: Bench, weights: Weights) -> Figure:
    codes = _codes(weights)
    # Calls are never equally far: every session has heard a turn of another length.
    turns = [codes[: max(1, len(codes) * (index + 1) // _TOGETHER)] for index in range(_TOGETHER)]
    alone: list[float] = []
    together: list[float] = []
    for _ in range(bench.repetitions(3)):
        alone.append(_Sessions(weights, [codes], _COUNT).rate()[0])
        together.append(_Sessions(weights, turns, _COUNT).rate()[0])
    return Figure(
        f"language model, {_TOGETHER} sessions together, {_COUNT} ids each",
        weights.name,
        "ids/s",
        Measured(tuple(together)),
        Measured(tuple(alone)),
        Bar("at least", 3.0),
        other="our one session",
    )
