"""Nucleus sampling keeps exactly the ids it should."""

import pytest
import torch

from agent.speech.sampling import Choice, choose, sample

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


def wide(rows, seed=4):
    """Rows of logits over many ids, flat enough that a nucleus holds hundreds."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3000, generator=generator) * 0.5


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_wide_nucleus_is_cut_short(top_p):
    """Ids beyond the most likely few are drawn as often as they should be."""
    logits = wide(1)
    shares = torch.softmax(logits[0], -1)
    ordered, order = shares.sort(descending=True)
    kept = order[ordered.cumsum(0) - ordered < top_p]
    assert len(kept) > 64
    choice = Choice(1.0, top_p, torch.Generator().manual_seed(5))
    ids = torch.tensor(choose(logits.expand(1000, -1), [choice] * 1000))
    assert set(ids.tolist()) <= set(kept.tolist())
    expected = shares[kept[:64]].sum() / shares[kept].sum()
    drawn = torch.isin(ids, kept[:64]).float().mean()
    assert abs(drawn - expected) < 0.05


def test_company_changes_a_choice():
    """A row gets the same id alone as among rows of other settings."""
    logits = wide(6)
    spans = ((10, 50), (900, 901))
    kinds = [(0.0, 1.0, ()), (1.0, 0.2, ()), (0.5, 0.9, spans), (1.0, 1.0, ()), (0.0, 1.0, spans)]

    def choices():
        made = [
            Choice(temperature, top_p, torch.Generator().manual_seed(row), spans, (row, 12))
            for row, (temperature, top_p, spans) in enumerate(kinds)
        ]
        return [*made, Choice(1.0, 0.2, torch.Generator().manual_seed(9))]

    together = choose(logits.clone(), choices())
    alone = [choose(logits[r : r + 1].clone(), [c])[0] for r, c in enumerate(choices())]
    assert together == alone


def test_choice_leaves_its_spans():
    logits = wide(1)
    spans = ((7, 9), (20, 21), (2999, 3000))
    generator = torch.Generator().manual_seed(1)
    ids = choose(logits.expand(500, -1), [Choice(1.0, 1.0, generator, spans)] * 500)
    assert set(ids) == {7, 8, 20, 2999}
    assert choose(logits.clone(), [Choice(0.0, 1.0, None, spans, {7, 8, 2999})]) == [20]


def test_no_row_asks_for_an_id():
    assert choose(torch.zeros(0, 10), []) == []
