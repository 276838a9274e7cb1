"""Samples on disk in shards of a bounded size, each with an index.

A data set is a directory. Shard N is three files: ``N.jsonl``, one JSON object a sample; ``N.i16``,
their audio one after another as little-endian int16 at 16 kHz; ``N.ids``, their speech codes as
little-endian int32. An index line says where its sample's audio (``offset``, ``samples``) and codes
(``codes_offset``, ``codes``) lie, and their checksum (``crc32``, over audio and then codes).
Everything else in it belongs to whoever reads it.

Only a few numbers a sample are held in memory: lines, audio and codes are read, memory-mapped, when
a sample is asked for. A sample that cannot be used is reported by name and counted, once, and left
out; the rest of the set goes on.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from loguru import logger

SAMPLE_RATE = 16_000
SHARD_SECONDS = 1800.0
"""Audio, and as many codes, after which a writer begins the next shard: about 58 MB."""
SHARD_SAMPLES = 20_000
"""Samples after which it does in any case."""
_TOKENS_PER_SECOND = 12.5
PLACES = ("offset", "samples", "codes_offset", "codes", "crc32")
"""Fields of an index line that the writer adds."""

Audio = npt.NDArray[np.int16]
Codes = npt.NDArray[np.int64]


class CorruptSampleError(ValueError):
    """A sample's bytes are not those that were written; the message names it."""


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        entry: Its index line.
        audio: int16 [n] at 16 kHz; n is 0 where it has none.
        codes: int64 [m], speech codes; m is 0 where they are not known.
    """

    entry: dict[str, Any]
    audio: Audio
    codes: Codes


class Shards:
    """Reads a data set.

    Args:
        path: Its directory.
        required: Fields that each index line must have.

    Attributes:
        skipped: How many samples have been left out so far.

    Raises:
        ValueError: There is no shard, or no usable sample in any.
    """

    def __init__(self, path: str | Path, required: Iterable[str] = ()):
        self.path = Path(path)
        self._required = ("id", *PLACES, *required)
        self.skipped = 0
        self._bad: set[str] = set()
        indexes = sorted(self.path.glob("*.jsonl"))
        if not indexes:
            raise ValueError(f"{self.path}: no shards (*.jsonl) here: write the data first")
        self._shards = [_Shard(index) for index in indexes]
        where: list[tuple[int, int, int]] = []
        lengths: list[int] = []
        for number, shard in enumerate(self._shards):
            for line, begin, end in shard.lines():
                samples = self._check(shard, line, begin, end)
                if samples is not None:
                    where.append((number, begin, end))
                    lengths.append(samples)
        if not where:
            raise ValueError(f"{self.path}: no usable sample in {len(indexes)} shards")
        self._where = np.array(where, dtype=np.int64)
        self._lengths = np.array(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            CorruptSampleError: Its audio or codes have changed since they were written.
        """
        entry = self.entry(index)
        shard = self._shards[self._where[index][0]]
        audio, codes = shard.read(entry)
        if zlib.crc32(codes.tobytes(), zlib.crc32(audio.tobytes())) != entry["crc32"]:
            raise CorruptSampleError(f"{shard.name}: sample {entry['id']!r} fails its checksum")
        return Sample(entry, audio, codes.astype(np.int64))

    def entry(self, index: int) -> dict[str, Any]:
        """A sample's index line, without its audio and codes."""
        number, begin, end = self._where[index].tolist()
        entry: dict[str, Any] = json.loads(self._shards[number].text[begin:end])
        return entry

    def seconds(self, index: int) -> float:
        """Length of a sample's audio."""
        return float(self._lengths[index]) / SAMPLE_RATE

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Sample]]:
        """Read samples one by one, leaving out those that are corrupt.

        Yields:
            (index, sample).
        """
        for index in indices:
            try:
                yield index, self[index]
            except CorruptSampleError as error:
                self._skip(str(error))

    def indices(self, **fields: object) -> list[int]:
        """Where every given field has the given value, e.g. ``role="caller"``."""
        found = []
        for index in range(len(self)):
            entry = self.entry(index)
            if all(entry.get(name) == value for name, value in fields.items()):
                found.append(index)
        return found

    def texts(self) -> Iterator[str]:
        """The field ``text`` of every sample that has one."""
        entries = (self.entry(index) for index in range(len(self)))
        return (str(entry["text"]) for entry in entries if entry.get("text"))

    def ids(self) -> Iterator[str]:
        """The name of every sample."""
        return (str(self.entry(index)["id"]) for index in range(len(self)))

    def split(self) -> tuple[list[int], list[int]]:
        """Indices to learn from, and those whose field ``split`` is "held_out"."""
        held_out = set(self.indices(split="held_out"))
        return [i for i in range(len(self)) if i not in held_out], sorted(held_out)

    def _check(self, shard: _Shard, line: int, begin: int, end: int) -> int | None:
        """Audio samples of the entry on a line, or None if it cannot be used."""
        where = f"{shard.name}, line {line}"
        try:
            entry = json.loads(shard.text[begin:end])
            where = f"{where}: sample {entry['id']!r}"
            missing = [name for name in self._required if name not in entry]
            if missing:
                raise ValueError(f"field {missing[0]!r} is missing")
            shard.check(entry)
        except (ValueError, KeyError, TypeError) as error:
            self._skip(f"{where}: {error}")
            return None
        samples: int = entry["samples"]
        return samples

    def _skip(self, problem: str) -> None:
        if problem not in self._bad:
            self._bad.add(problem)
            self.skipped += 1
            logger.warning("corrupt sample left out", problem=problem, left_out=self.skipped)


class _Shard:
    """The three files of one shard, memory-mapped."""

    def __init__(self, index: Path):
        self.name = str(index)
        self.text: Any = _mapped(index)
        self._audio = _array(index.with_suffix(".i16"), "<i2")
        self._codes = _array(index.with_suffix(".ids"), "<i4")

    def lines(self) -> Iterator[tuple[int, int, int]]:
        """Number, begin and end of each whole line; one that is still being written is none."""
        begin = number = 0
        while (end := self.text.find(b"\n", begin)) >= 0:
            number += 1
            if end > begin:
                yield number, begin, end
            begin = end + 1

    def check(self, entry: dict[str, Any]) -> None:
        for begin, length, array, kind in (
            ("offset", "samples", self._audio, "audio samples"),
            ("codes_offset", "codes", self._codes, "codes"),
        ):
            first, count = entry[begin], entry[length]
            if not all(isinstance(value, int) and value >= 0 for value in (first, count)):
                raise ValueError(f"fields {begin!r} and {length!r} must be whole numbers")
            if first + count > len(array):
                raise ValueError(f"it ends past the shard's {len(array)} {kind}")

    def read(self, entry: dict[str, Any]) -> tuple[Audio, npt.NDArray[np.int32]]:
        audio = self._audio[entry["offset"] : entry["offset"] + entry["samples"]]
        codes = self._codes[entry["codes_offset"] : entry["codes_offset"] + entry["codes"]]
        return audio, codes


def _mapped(path: Path) -> Any:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _array(path: Path, kind: str) -> Any:
    size = path.stat().st_size // np.dtype(kind).itemsize if path.is_file() else 0
    return np.memmap(path, kind, "r", shape=(size,)) if size else np.zeros(0, kind)


class ShardWriter:
    """Appends samples to a data set; one that was stopped goes on behind its last whole sample.

    Args:
        path: The directory; made if missing.
        seconds: Most audio or codes in a shard, in seconds; a single sample may be longer.
        samples: Most samples in a shard.

    Attributes:
        count: Samples in the set so far.
    """

    def __init__(
        self, path: str | Path, seconds: float = SHARD_SECONDS, samples: int = SHARD_SAMPLES
    ):
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        self._limit = (seconds * SAMPLE_RATE, seconds * _TOKENS_PER_SECOND, samples)
        self.count = 0
        indexes = sorted(self._path.glob("*.jsonl"))
        self._number = max(0, len(indexes) - 1)
        self._filled = [0, 0, 0]
        for index in indexes:
            text = index.read_bytes()
            whole = text[: text.rfind(b"\n") + 1].splitlines()
            self.count += len(whole)
            if index == indexes[-1]:
                self._filled[2] = len(whole)
                if whole:
                    last = json.loads(whole[-1])
                    self._filled[0] = last["offset"] + last["samples"]
                    self._filled[1] = last["codes_offset"] + last["codes"]
                _cut(index, text.rfind(b"\n") + 1)
                _cut(index.with_suffix(".i16"), 2 * self._filled[0])
                _cut(index.with_suffix(".ids"), 4 * self._filled[1])

    def add(
        self,
        entry: dict[str, Any],
        audio: Audio | None = None,
        codes: npt.NDArray[Any] | None = None,
    ) -> None:
        """Write one sample.

        Args:
            entry: Its index line; ``id`` is its name, the fields of the places are added.
            audio: int16 [n] at 16 kHz.
            codes: Whole numbers [m].
        """
        sound = np.zeros(0, "<i2") if audio is None else np.asarray(audio, "<i2")
        ids = np.zeros(0, "<i4") if codes is None else np.asarray(codes).astype("<i4")
        added = (len(sound), len(ids), 1)
        room = all(f + a <= m for f, a, m in zip(self._filled, added, self._limit, strict=True))
        if self._filled[2] and not room:
            self._number += 1
            self._filled = [0, 0, 0]
        stem = self._path / f"{self._number:06d}"
        places = {
            "offset": self._filled[0],
            "samples": len(sound),
            "codes_offset": self._filled[1],
            "codes": len(ids),
            "crc32": zlib.crc32(ids.tobytes(), zlib.crc32(sound.tobytes())),
        }
        # The line comes last: a sample without one does not exist.
        for suffix, data in ((".i16", sound.tobytes()), (".ids", ids.tobytes())):
            with stem.with_suffix(suffix).open("ab") as file:
                file.write(data)
        with stem.with_suffix(".jsonl").open("ab") as file:
            file.write(json.dumps(entry | places, ensure_ascii=False).encode() + b"\n")
        self._filled = [f + a for f, a in zip(self._filled, added, strict=True)]
        self.count += 1


def _cut(path: Path, size: int) -> None:
    if path.is_file() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)


def shuffled(indices: Sequence[int], seed: int, epoch: int) -> list[int]:
    """The order of an epoch: the same for the same seed, another one in each epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(np.asarray(indices, dtype=np.int64))
    return [int(index) for index in order]


class Order:
    """An endless, shuffled walk over indices of which any step can be asked for.

    A resumed training goes on where it was by the number of its step alone.
    """

    def __init__(self, indices: Sequence[int], seed: int):
        if not len(indices):
            raise ValueError("no sample to draw from")
        self._indices, self._seed = indices, seed
        self._epoch, self._order = -1, list[int]()

    def __getitem__(self, position: int) -> int:
        """Index at a position of the walk."""
        epoch, place = divmod(position, len(self._indices))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, shuffled(self._indices, self._seed, epoch)
        return self._order[place]
