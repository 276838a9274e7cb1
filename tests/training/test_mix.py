import pytest

from agent.training.examples import TEXT, Example
from agent.training.mix import Mix, Source


def source(share, length, count=5, usable=lambda index: True):
    def make(index, rng):
        if not usable(index):
            return None
        return Example([index, int(rng.integers(1000))] + [0] * (length - 2), [TEXT] * length)

    return Source(share, list(range(count)), make)


def sources():
    return {"text": source(0.3, 50), "speech": source(0.6, 200), "pairs": source(0.1, 20)}


def test_shares_of_the_ids_drift(tmp_path):
    mix = Mix(sources(), seed=0)
    for _ in range(400):
        mix.next()
        total = sum(mix.ids.values())
        for name, one in sources().items():
            assert abs(mix.ids[name] - one.share * total) <= 400
    total = sum(mix.ids.values())
    assert mix.ids["text"] / total == pytest.approx(0.3, abs=0.01)
    assert mix.ids["pairs"] / total == pytest.approx(0.1, abs=0.01)


def test_a_resumed_mix_draws_other_examples():
    whole, stopped = Mix(sources(), seed=3), Mix(sources(), seed=3)
    expected = [whole.next() for _ in range(60)]
    found = [stopped.next() for _ in range(25)]
    resumed = Mix(sources(), seed=3)
    resumed.load_state_dict(stopped.state_dict())
    found += [resumed.next() for _ in range(35)]
    assert found == expected
    assert Mix(sources(), seed=4).next() != expected[0]


def test_an_unusable_sample_ends_the_draw():
    mix = Mix({"some": source(1.0, 5, usable=lambda index: index == 2)}, seed=0)
    assert {mix.next().ids[0] for _ in range(9)} == {2}
    with pytest.raises(ValueError, match="source 'none': none of its 5 samples can be used"):
        Mix({"none": source(1.0, 5, usable=lambda index: False)}, seed=0).next()


def test_an_empty_source_is_accepted():
    with pytest.raises(ValueError, match="source 'text' has no sample"):
        Mix({"text": source(1.0, 5, count=0)}, seed=0)
    with pytest.raises(ValueError, match="no source has a share"):
        Mix({"text": source(0.0, 5)}, seed=0)
