"""The rendered corpus on disk, memory-mapped.

A corpus directory has two files: ``audio.i16``, every utterance one after another as little-endian
int16 at 16 kHz, and ``index.jsonl``, one JSON object an utterance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
AUDIO_FILE = "audio.i16"
INDEX_FILE = "index.jsonl"
_REQUIRED = ("id", "split", "role", "voice", "seen_voice", "text", "offset", "samples")


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
        intent: The intent it belongs to, or None.
        canonical: Whether this is the agent's one rendering of an answer that is to be learnt.
        phones: (phone, end in seconds) in order, or None where the synthesiser does not tell.
        audio: float32 [n] in [-1, 1] at 16 kHz.
    """

    id: str
    split: str
    role: str
    voice: str
    seen_voice: bool
    text: str
    intent: str | None
    canonical: bool
    phones: tuple[tuple[str, float], ...] | None
    audio: npt.NDArray[np.float32]


class Corpus(Sequence[Utterance]):
    """Reads a corpus directory; audio is read from disk when an utterance is asked for.

    Args:
        path: The directory.

    Raises:
        ValueError: A file is missing, an entry lacks a field, or its audio lies outside the file.
    """

    def __init__(self, path: str | Path):
        directory = Path(path)
        for name in (AUDIO_FILE, INDEX_FILE):
            if not (directory / name).is_file():
                raise ValueError(f"{directory / name} is missing: render the corpus first")
        size = (directory / AUDIO_FILE).stat().st_size // 2
        self._audio: npt.NDArray[np.int16] = (
            np.memmap(directory / AUDIO_FILE, dtype="<i2", mode="r", shape=(size,))
            if size
            else np.zeros(0, dtype="<i2")
        )
        self._entries: list[dict[str, Any]] = []
        for number, line in enumerate((directory / INDEX_FILE).read_text("utf-8").splitlines(), 1):
            entry = json.loads(line)
            where = f"{directory / INDEX_FILE}, line {number}"
            for field in _REQUIRED:
                if field not in entry:
                    raise ValueError(f"{where}: field {field!r} is missing")
            if entry["offset"] < 0 or entry["offset"] + entry["samples"] > size:
                raise ValueError(f"{where}: its audio ends past the {size} samples of {AUDIO_FILE}")
            self._entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        """Return one utterance, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        entry = self._entries[index]
        samples = self._audio[entry["offset"] : entry["offset"] + entry["samples"]]
        phones = entry.get("phones")
        return Utterance(
            id=entry["id"],
            split=entry["split"],
            role=entry["role"],
            voice=entry["voice"],
            seen_voice=entry["seen_voice"],
            text=entry["text"],
            intent=entry.get("intent"),
            canonical=entry.get("canonical", False),
            phones=None if phones is None else tuple((str(n), float(e)) for n, e in phones),
            audio=samples.astype(np.float32) / 32768.0,
        )

    def __iter__(self) -> Iterator[Utterance]:
        return (self[index] for index in range(len(self)))

    def seconds(self, index: int) -> float:
        """Return an utterance's length without reading its audio."""
        return float(self._entries[index]["samples"]) / SAMPLE_RATE

    def text(self, index: int) -> str:
        """Return what is said in an utterance without reading its audio."""
        return str(self._entries[index]["text"])

    def indices(self, **fields: object) -> list[int]:
        """Return where every given field has the given value, e.g. ``role="caller"``."""
        return [
            index
            for index, entry in enumerate(self._entries)
            if all(entry.get(name) == value for name, value in fields.items())
        ]
