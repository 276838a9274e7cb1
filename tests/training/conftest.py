"""Small data sets that the recipes' tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.training.data import Corpus
from agent.training.shards import ShardWriter
from agent.training.tokenizer_parts import Settings

TOKENIZER_RECIPE = Path(__file__).parents[2] / "agent" / "nano" / "recipe_tokenizer.yaml"


@pytest.fixture(scope="session")
def write_corpus() -> Callable[..., Corpus]:
    """Writes utterances, given as index fields and int16 audio, and reads them back."""

    def write(path: Path, utterances: list[tuple[dict[str, Any], np.ndarray]]) -> Corpus:
        writer = ShardWriter(path)
        for number, (fields, audio) in enumerate(utterances):
            common = {"id": str(number), "split": "train", "role": "caller", "voice": "beep"}
            common |= {"seen_voice": True, "text": "", "language": "en", "saying": None}
            common |= {"style": None, "phones": None}
            writer.add(common | fields, audio)
        return Corpus(path)

    return write


@pytest.fixture(scope="session")
def small_tokenizer() -> Settings:
    """The nano's recipe of the speech tokenizer, for a training of six steps."""
    changes = {
        "width": 32, "heads": 4, "ffn": 32, "layers": 1, "head_layers": 1, "codes": 8, "steps": 6,
        "batch_seconds": 2.0,
    }  # fmt: skip
    return Settings.read(TOKENIZER_RECIPE).model_copy(update=changes)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any], int], None]:
    """Runs a training that is killed when it begins a step; everything before has been saved."""
    from agent.training import loop

    def run(training: Callable[[], Any], step: int) -> None:
        begin = loop.Loop.begin

        def begin_or_die(self: loop.Loop) -> loop.Draws:
            draws = begin(self)
            if self.step == step:
                raise KeyboardInterrupt
            return draws

        with monkeypatch.context() as patch:
            patch.setattr(loop, "SAVE_EVERY", -1.0)
            patch.setattr(loop.Loop, "begin", begin_or_die)
            with pytest.raises(KeyboardInterrupt):
                training()

    return run
