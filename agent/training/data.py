"""The rendered corpus: utterances in shards, with who says what and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.evaluation.text import Language
from agent.training.shards import SAMPLE_RATE, Sample, Shards

__all__ = ["SAMPLE_RATE", "Corpus", "Utterance"]
_REQUIRED = ("split", "role", "voice", "seen_voice", "text")


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Attributes:
        id: Its name in the index.
        split: "train" or "held_out".
        role: "caller", "agent" or "cover" (sentences that only cover the sounds of a voice).
        voice: Who speaks.
        seen_voice: Whether training may hear this voice.
        text: What is said.
        language: In which language.
        saying: What it says on the line (:class:`agent.training.line.Saying`), or None.
        style: How the agent's voice says it; None for other voices.
        canonical: Whether this is how the agent says a text in that style.
        phones: (phone, end in seconds) in order, or None where the synthesiser does not tell.
        audio: float32 [n] in [-1, 1] at 16 kHz.
        codes: int64 [m], its speech codes; m is 0 where they are not known.
    """

    id: str
    split: str
    role: str
    voice: str
    seen_voice: bool
    text: str
    language: Language
    saying: str | None
    style: str | None
    canonical: bool
    phones: tuple[tuple[str, float], ...] | None
    audio: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]


class Corpus:
    """Reads a corpus directory; audio is read from disk when an utterance is asked for.

    Args:
        path: The directory, of shards (:mod:`agent.training.shards`).

    Raises:
        ValueError: There is no shard, or no usable utterance in any.
    """

    def __init__(self, path: str | Path):
        self._shards = Shards(path, _REQUIRED)

    @property
    def skipped(self) -> int:
        """How many corrupt utterances have been left out so far."""
        return self._shards.skipped

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Utterance:
        """Read one utterance.

        Raises:
            CorruptSampleError: Its bytes have changed since they were written.
        """
        return _utterance(self._shards[index])

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Utterance]]:
        """Read utterances one by one with their indices, leaving out those that are corrupt."""
        return ((index, _utterance(sample)) for index, sample in self._shards.read(indices))

    def seconds(self, index: int) -> float:
        """Return an utterance's length without reading its audio."""
        return self._shards.seconds(index)

    def text(self, index: int) -> str:
        """Return what is said in an utterance without reading its audio."""
        return str(self._shards.entry(index)["text"])

    def field(self, index: int, name: str) -> str | None:
        """Return a field of an utterance's index line, such as ``saying``, without its audio."""
        value = self._shards.entry(index).get(name)
        return None if value is None else str(value)

    def voice(self, index: int) -> str:
        """Return who speaks an utterance without reading its audio."""
        return str(self._shards.entry(index)["voice"])

    def phone_names(self) -> list[str]:
        """Return all phones that occur, sorted."""
        entries = (self._shards.entry(index) for index in range(len(self)))
        return sorted({str(name) for entry in entries for name, _ in entry.get("phones") or ()})

    def styles(self) -> list[str]:
        """Return all styles that occur, sorted."""
        styles = (self.field(index, "style") for index in range(len(self)))
        return sorted({style for style in styles if style is not None})

    def indices(self, **fields: object) -> list[int]:
        """Return where every given field has the given value, e.g. ``role="caller"``."""
        return self._shards.indices(**fields)

    def of_voices(self, voices: Iterable[str], split: str) -> list[int]:
        """Return where some voices speak in a split, one voice after the other."""
        return [index for voice in voices for index in self.indices(voice=voice, split=split)]


def _utterance(sample: Sample) -> Utterance:
    entry = sample.entry
    phones = entry.get("phones")
    return Utterance(
        id=entry["id"],
        split=entry["split"],
        role=entry["role"],
        voice=entry["voice"],
        seen_voice=entry["seen_voice"],
        text=entry["text"],
        language=entry.get("language", "en"),
        saying=entry.get("saying"),
        style=entry.get("style"),
        canonical=entry.get("canonical", False),
        phones=None if phones is None else tuple((str(n), float(e)) for n, e in phones),
        audio=sample.audio.astype(np.float32) / 32768.0,
        codes=sample.codes,
    )
