"""What the speech tokenizer learns from: phone-band speech with its letters and phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agent.evaluation.text import Language
from agent.sound import Audio, phone_band
from agent.training.augment import vary
from agent.training.data import Corpus
from agent.training.shards import SAMPLE_RATE, shuffled
from agent.training.voices import pinyin

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz12345"  # CTC's blank is 0, these follow
TOKEN_SAMPLES = 1280
FRAME_SAMPLES = 320
IGNORED = -100  # a frame whose phone is not known
_SORTED = 2000  # utterances, of which those of similar length make batches


@dataclass(frozen=True)
class Batch:
    """Utterances padded to the longest.

    Attributes:
        audio: float32 [batch, n], n a multiple of 1,280.
        samples: int64 [batch], lengths.
        texts: int64, all characters one after another.
        lengths: int64 [batch], characters of each.
        phones: int64 [batch, n / 320], or IGNORED.
        styles: int64 [batch], how the agent's voice speaks, or IGNORED.
    """

    audio: Tensor
    samples: Tensor
    texts: Tensor
    lengths: Tensor
    phones: Tensor
    styles: Tensor

    def to(self, device: str) -> Batch:
        """The same on another device."""
        moved = (getattr(self, item.name).to(device) for item in fields(self))
        return Batch(*moved)


def spell(text: str, language: Language = "en") -> list[int]:
    """CTC's targets of a text, from 1: letters and spaces; of Mandarin pinyin with its tones."""
    if language == "zh":
        text = pinyin(text).replace(" ", "")
    plain = "".join(c if c in CHARACTERS else " " for c in text.lower())
    return [CHARACTERS.index(c) + 1 for c in " ".join(plain.split())]


class Loader:
    """Draws batches of similar length from a corpus, varied or as a clean phone line."""

    def __init__(self, corpus: Corpus, batch_seconds: float):
        self.corpus = corpus
        self.limit = int(batch_seconds * SAMPLE_RATE)
        self.phone_names = corpus.phone_names()
        self.styles = corpus.styles()

    def plan(self, indices: Sequence[int], seed: int, epoch: int) -> list[list[int]]:
        """Divide utterances into batches of at most so many seconds with padding, shuffled."""
        plans: list[list[int]] = []
        order = shuffled(indices, seed, epoch)
        for start in range(0, len(order), _SORTED):
            group: list[int] = []
            for index in sorted(order[start : start + _SORTED], key=self.corpus.seconds):
                longest = self.corpus.seconds(index) + 0.6  # variation adds about that
                if (len(group) + 1) * longest * SAMPLE_RATE > self.limit and group:
                    plans.append(group)
                    group = []
                group.append(index)
            plans.append(group)
        return [plans[i] for i in shuffled(range(len(plans)), seed, epoch)]

    def batch(
        self,
        indices: Sequence[int],
        rng: np.random.Generator | None,
        strength: float = 1.0,
        clean: float = 0.0,
    ) -> Batch | None:
        """Read utterances: varied at random, or through a clean phone line if rng is None.

        Args:
            indices: Where they are in the corpus.
            rng: Draws the variations.
            strength: How far they go, from 0 to 1.
            clean: Share of the utterances that has none.

        Returns:
            The batch, without what is corrupt; None if all of it is.
        """
        audios: list[Audio] = []
        texts: list[list[int]] = []
        phones: list[npt.NDArray[np.int64]] = []
        styles: list[int] = []
        for _, utterance in self.corpus.read(indices):
            start, speed, style = 0.0, 1.0, utterance.style
            if rng is None or rng.random() < clean:
                audio = phone_band(utterance.audio)
            else:
                varied = vary(utterance.audio, rng, strength)
                audio, start, speed = varied.audio, varied.start, varied.speed
                style = None  # another pace and pitch is another style
            audios.append(audio)
            texts.append(spell(utterance.text, utterance.language))
            styles.append(IGNORED if style is None else self.styles.index(style))
            phones.append(self._align(utterance.phones, start, speed, len(audio)))
        if not audios:
            return None
        longest = max(len(audio) for audio in audios)
        padded = -(-longest // TOKEN_SAMPLES) * TOKEN_SAMPLES
        table = np.full((len(audios), padded // FRAME_SAMPLES), IGNORED, dtype=np.int64)
        sound = np.zeros((len(audios), padded), dtype=np.float32)
        for row, (audio, labels) in enumerate(zip(audios, phones, strict=True)):
            sound[row, : len(audio)] = audio
            table[row, : len(labels)] = labels
        return Batch(
            audio=torch.from_numpy(sound),
            samples=torch.tensor([len(audio) for audio in audios]),
            texts=torch.tensor([c for text in texts for c in text]),
            lengths=torch.tensor([len(text) for text in texts]),
            phones=torch.from_numpy(table),
            styles=torch.tensor(styles),
        )

    def _align(
        self,
        phones: tuple[tuple[str, float], ...] | None,
        start: float,
        speed: float,
        samples: int,
    ) -> npt.NDArray[np.int64]:
        moments = np.arange(samples // FRAME_SAMPLES) * (FRAME_SAMPLES / SAMPLE_RATE)
        if not phones:
            return np.full(len(moments), IGNORED, dtype=np.int64)
        ends = np.array([end for _, end in phones])
        names = np.array([self.phone_names.index(name) for name, _ in phones])
        original = (moments - start) * speed
        which = np.searchsorted(ends, original, side="right")
        labels = names[np.minimum(which, len(names) - 1)]
        silent = (original < 0.0) | (which >= len(names))
        if "pau" in self.phone_names:
            labels[silent] = self.phone_names.index("pau")
        return np.asarray(labels, dtype=np.int64)


class Plans:
    """The batches of a training, asked for step by step, from any step on.

    Args:
        loader: Divides an epoch.
        indices: Utterances to learn from.
        seed: Of the order.
    """

    def __init__(self, loader: Loader, indices: Sequence[int], seed: int):
        self._loader, self._indices, self._seed = loader, indices, seed
        self._begin(0, 0)

    def _begin(self, epoch: int, first: int) -> None:
        self._epoch, self._first = epoch, first
        self._plans = self._loader.plan(self._indices, self._seed, epoch)

    def __getitem__(self, step: int) -> list[int]:
        """Utterances of a step."""
        if step < self._first:
            self._begin(0, 0)
        while step - self._first >= len(self._plans):
            self._begin(self._epoch + 1, self._first + len(self._plans))
        return self._plans[step - self._first]
