"""What a language model learns from: ids, and which of them it is to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.speech.language_model import LanguageModel

GIVEN, TEXT, SPEECH = 0, 1, 2


@dataclass(frozen=True)
class Example:
    """A sequence of ids.

    Attributes:
        ids: In order.
        kinds: For each id what it is to predict it: nothing (``GIVEN``), ``TEXT`` (the end counts
            as text) or ``SPEECH``.
    """

    ids: list[int]
    kinds: list[int]


@dataclass(frozen=True)
class Losses:
    """Cross-entropy of some ids: weighted together, mean of text, mean of speech.

    Attributes:
        counts: How many ids of text and of speech; a mean over none is 0.
    """

    together: Tensor
    text: Tensor
    speech: Tensor
    counts: tuple[int, int]


def weighted(
    logits: Tensor, targets: Tensor, kinds: Tensor, text_weight: float, speech_weight: float = 1.0
) -> Losses:
    """Losses of ids to predict.

    Args:
        logits: [r, vocab].
        targets: int64 [r].
        kinds: int64 [r], ``TEXT`` or ``SPEECH``.
        text_weight: Of a text id's loss.
        speech_weight: Of a speech id's loss.
    """
    each = F.cross_entropy(logits, targets, reduction="none")
    is_text = kinds == TEXT
    weights = torch.where(is_text, text_weight, speech_weight)
    together = (each * weights).sum() / weights.sum().clamp(min=1e-9)
    text, speech = each[is_text].detach(), each[~is_text].detach()
    return Losses(
        together,
        text.sum() / max(1, len(text)),
        speech.sum() / max(1, len(speech)),
        (len(text), len(speech)),
    )


def losses(
    model: LanguageModel,
    examples: Sequence[Example],
    text_weight: float = 1.0,
    speech_weight: float = 1.0,
) -> Losses:
    """Losses of examples, packed one behind the other; none sees another."""
    device = model.device
    ids = torch.tensor([i for example in examples for i in example.ids], device=device)
    kinds = torch.tensor([k for example in examples for k in example.kinds], device=device)
    targets = (kinds != GIVEN).nonzero()[:, 0]
    # The id at a position is predicted from the one before; an example's first id is given.
    logits = model(ids, [len(example.ids) for example in examples], rows=targets - 1)
    return weighted(logits, ids[targets], kinds[targets], text_weight, speech_weight)
