"""Choosing the next tokens of all rows of a step at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A nucleus is looked for among so many of the most likely ids before all of them are sorted.
_LIKELY = 64


@dataclass(frozen=True)
class Choice:
    """How the next id of one row is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely id.
        top_p: Share of the probability to keep, in (0, 1].
        generator: Random numbers to draw from, one an id; may be None where nothing is drawn.
        spans: Ranges [start, stop) of the ids to choose among; none for all ids.
        barred: Ids that may not be chosen; some must be left.
    """

    temperature: float
    top_p: float
    generator: torch.Generator | None
    spans: tuple[tuple[int, int], ...] = ()
    barred: Collection[int] = ()


def choose(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One id from each row of logits; what a row gets does not depend on the other rows.

    Nucleus sampling (Holtzman et al. 2020): the smallest set of ids that holds at least ``top_p``
    of the probability, the most likely id always among them.

    Args:
        logits: float32 [r, vocab]; -inf excludes an id. Barred ids are set to it.
        choices: One a row.
    """
    barred = [(row, i) for row, choice in enumerate(choices) for i in choice.barred]
    if barred:
        rows, columns = torch.tensor(barred, device=logits.device).unbind(1)
        logits[rows, columns] = -math.inf
    groups: dict[tuple[bool, tuple[tuple[int, int], ...]], list[int]] = {}
    for row, choice in enumerate(choices):
        groups.setdefault((choice.temperature == 0.0, choice.spans), []).append(row)
    chosen = [0] * len(choices)
    for (greedy, spans), members in groups.items():
        some = logits if len(members) == len(choices) else logits[members]
        if spans:
            parts = [some[:, start:stop] for start, stop in spans]
            some = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if greedy:
            places = some.argmax(-1).tolist()
        else:
            places = _drawn(some, [choices[row] for row in members])
        for row, place in zip(members, places, strict=True):
            chosen[row] = _id(place, spans)
    return chosen


def sample(
    logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None
) -> int:
    """One id from a row of logits [vocab]; see :class:`Choice` and :func:`choose`."""
    return choose(logits[None], [Choice(temperature, top_p, generator)])[0]


def _id(place: int, spans: Sequence[tuple[int, int]]) -> int:
    """The id at a place of the spans, laid one behind the other."""
    for start, stop in spans:
        if place < stop - start:
            return start + place
        place -= stop - start
    return place


def _drawn(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One place in each row of logits [r, n], drawn."""
    temperatures = [choice.temperature for choice in choices]
    scaled = logits / torch.tensor(temperatures, device=logits.device)[:, None]
    total = scaled.logsumexp(-1, keepdim=True)
    likely, places = scaled.topk(min(_LIKELY, scaled.shape[1]))
    shares = (likely - total).exp().tolist()
    drawn = []
    for row, choice in enumerate(choices):
        generator = choice.generator
        device = logits.device if generator is None else generator.device
        number = torch.rand((), generator=generator, device=device, dtype=torch.float64).item()
        rank = _rank(shares[row], choice.top_p, number)
        if rank is not None:
            drawn.append(int(places[row, rank]))
            continue
        ordered, order = scaled[row].sort(descending=True)
        everything = (ordered - total[row]).exp().tolist()
        rank = _rank(everything, choice.top_p, number, whole=True)
        assert rank is not None
        drawn.append(int(order[rank]))
    return drawn


def _rank(shares: Sequence[float], top_p: float, number: float, whole: bool = False) -> int | None:
    """Which of the falling shares a number in [0, 1) falls on, of those in the nucleus.

    Args:
        shares: Probabilities, the largest first.
        top_p: Share of the probability to keep.
        number: Uniform in [0, 1).
        whole: These are all the shares there are; their sum may miss 1 by rounding.

    Returns:
        None where that takes more shares than these.
    """
    mass, kept = 0.0, 0
    for share in shares:
        if mass >= top_p:
            break
        mass += share
        kept += 1
    if mass < top_p and not whole:
        # All ids are kept: what the number falls on may be known without the rest.
        if top_p < 1.0 or number >= mass:
            return None
        mass = 1.0
    threshold = number * mass
    for rank in range(kept):
        threshold -= shares[rank]
        if threshold < 0.0:
            return rank
    return max(rank for rank in range(kept) if shares[rank] > 0.0)
