import numpy as np
import pytest

from agent.training.interleaving import Settings, cut, draw_spans, parts, run, units
from agent.training.shards import Shards, ShardWriter


@pytest.mark.parametrize("spoken", [0.2, 0.3, 0.4])
def test_spans_make_up_another_share_than_asked_for(spoken):
    rng = np.random.default_rng(0)
    for words in (1, 7, 50, 400):
        spans = draw_spans(words, spoken, 10.0, rng)
        assert sum(end - begin for begin, end in spans) == round(spoken * words)


def test_spans_touch_or_leave_the_text():
    rng = np.random.default_rng(1)
    for _ in range(200):
        spans = draw_spans(60, 0.4, 3.0, rng)
        edges = [edge for span in spans for edge in span]
        assert edges == sorted(set(edges))
        assert edges[0] >= 0
        assert edges[-1] <= 60


def test_span_lengths_are_no_poisson_distribution():
    rng = np.random.default_rng(2)
    spans = [draw_spans(2000, 0.3, 10.0, rng) for _ in range(40)]
    lengths = np.array([end - begin for one in spans for begin, end in one])
    assert lengths.mean() == pytest.approx(10.0, abs=0.5)
    assert lengths.var() == pytest.approx(10.0, abs=2.0)


def test_places_favour_a_part_of_the_text():
    rng = np.random.default_rng(3)
    hit = np.zeros(100)
    for _ in range(3000):
        for begin, end in draw_spans(100, 0.3, 10.0, rng):
            hit[begin:end] += 1
    assert hit[25:75].mean() / 3000 == pytest.approx(0.33, abs=0.05)
    assert hit[:25].sum() == pytest.approx(hit[75:].sum(), rel=0.1)


def test_a_text_is_not_the_sum_of_its_parts():
    text = "  Well, 你好吗 said the   cat."
    assert [text[a:b] for a, b in units(text)][:4] == ["Well,", "你", "好", "吗"]
    pieces = parts(text, [(1, 3), (5, 6)])
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, spoken in pieces if spoken] == ["你好", "the"]
    assert cut("a b c d e", 2) == ["a b", "c d", "e"]


class Speller:
    """A stand-in for the text-to-token model: a code a character."""

    def say(self, texts, temperature, seed):
        return [[ord(c) % 32 for c in text] for text in texts]


def test_a_stopped_run_says_a_text_twice(tmp_path):
    writer = ShardWriter(tmp_path / "texts")
    for number in range(4):
        writer.add({"id": f"t{number}", "text": "one two three four five six seven " * 4})
    settings = Settings(longest=10, span=2.0)
    run(settings, tmp_path / "texts", Speller(), tmp_path / "whole")

    class Dying(Speller):
        calls = 0

        def say(self, texts, temperature, seed):
            self.calls += 1
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().say(texts, temperature, seed)

    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "texts", Dying(), tmp_path / "stopped")
    assert 0 < len(Shards(tmp_path / "stopped")) < len(Shards(tmp_path / "whole"))
    run(settings, tmp_path / "texts", Speller(), tmp_path / "stopped")
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "stopped" / path.name).read_bytes() == path.read_bytes()
    shards = Shards(tmp_path / "whole", ["parts"])
    assert len(shards) == 12
    sample = shards[0]
    words = sample.entry["text"]
    for part in sample.entry["parts"]:
        if isinstance(part, str):
            assert part in words
        else:
            said = sample.codes[slice(*part)].tolist()
            assert any(said == [ord(c) % 32 for c in words[i : i + len(said)]]
                       for i in range(len(words)))  # fmt: skip
