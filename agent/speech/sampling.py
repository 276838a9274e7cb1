"""Choosing the next token."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None
) -> int:
    """One id from a row of logits.

    Nucleus sampling (Holtzman et al. 2020): the smallest set of ids that holds at least ``top_p``
    of the probability, the most likely id always among them.

    Args:
        logits: float32 [vocab]; -inf excludes an id.
        temperature: Divides the logits; 0 takes the most likely id.
        top_p: Share of the probability to keep, in (0, 1].
        generator: Random numbers to draw from, on the device of the logits.
    """
    if temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        probabilities = torch.zeros_like(probabilities).scatter(
            0, order, ordered.masked_fill(before >= top_p, 0.0)
        )
    return int(torch.multinomial(probabilities, 1, generator=generator))
