"""What the benchmark listens to and speaks: the demo's recorded lines, and arbitrary tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.offline import read_wav
from agent.speech.features import SAMPLE_RATE

Audio = npt.NDArray[np.float32]

LINES = Path(__file__).parents[2] / "telephony" / "simulator" / "demo" / "lines"


def spoken_lines(more: Iterable[Path] = ()) -> dict[str, Audio]:
    """The demo's lines, and recordings beside them, by name in a fixed order."""
    return {path.stem: read_wav(path) for path in [*sorted(LINES.glob("*.wav")), *more]}


def speech(seconds: float) -> Audio:
    """So much speech, float32 [n] at 16 kHz: the demo's lines one behind the other."""
    joined = np.concatenate(list(spoken_lines().values()))
    count = round(seconds * SAMPLE_RATE)
    return np.resize(joined, count)


def speech_tokens(count: int, codes: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Tokens to decode, int64 [count], each below ``codes``."""
    return np.random.default_rng(seed).integers(0, codes, count)
