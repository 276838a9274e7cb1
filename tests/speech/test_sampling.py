"""Nucleus sampling keeps exactly the ids it should."""

import pytest
import torch

from agent.speech.sampling import sample

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def drawn(temperature, top_p, logits=LOGITS):
    generator = torch.Generator().manual_seed(3)
    return [sample(logits, temperature, top_p, generator) for _ in range(2000)]


def test_zero_temperature_draws():
    assert sample(LOGITS, 0.0, 1.0, None) == 0


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.4, {0}), (0.5, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})],
)
def test_nucleus_has_another_size(top_p, kept):
    assert set(drawn(1.0, top_p)) == kept


def test_temperature_does_not_sharpen():
    shares = [drawn(t, 1.0).count(0) / 2000 for t in (2.0, 1.0, 0.5)]
    assert shares[0] < shares[1] < shares[2]
    assert abs(shares[1] - 0.5) < 0.05


def test_barred_id_is_drawn():
    logits = LOGITS.clone()
    logits[0] = float("-inf")
    assert 0 not in drawn(1.0, 0.99, logits)
