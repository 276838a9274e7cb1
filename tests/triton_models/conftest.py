"""The golden checkpoints as one, for a server: its decoder takes 2 Euler steps instead of 10."""

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="module")
def checkpoint(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    for name in ("speech_tokenizer", "language_model"):
        (directory / name).symlink_to(goldens / name)
    decoder = directory / "speech_decoder"
    decoder.mkdir()
    for name in ("flow.pt", "hift.pt"):
        (decoder / name).symlink_to(goldens / "speech_decoder" / name)
    config = (goldens / "speech_decoder/config.yaml").read_text()
    (decoder / "config.yaml").write_text(f"{config}\ndecoding:\n  steps: 2\n")
    return directory


@pytest.fixture(scope="module")
def speech(goldens) -> np.ndarray:
    samples, _ = soundfile.read(goldens / "wav/speech_5s.flac", dtype="float32")
    return samples
