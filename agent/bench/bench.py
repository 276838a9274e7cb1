"""What every row group works with: weights, models, the reference, and taking turns with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from agent.bench.reference import Part, Reference
from agent.bench.table import NOT_HERE, Measured, Result
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer

clock = time.process_time
"""What both sides are timed by: seconds of the CPU that the process had, in its one thread.

On an idle machine these are the seconds that pass; on a busy one, what else runs counts little.
"""


class Weights:
    """A checkpoint, its models loaded when they are first asked for.

    Args:
        name: For the table.
        path: Directory with speech_tokenizer, language_model and speech_decoder.
    """

    def __init__(self, name: str, path: Path):
        self.name = name
        self.path = path

    @cached_property
    def tokenizer(self) -> SpeechTokenizer:
        """Waveforms to tokens."""
        return SpeechTokenizer.from_pretrained(self.path / "speech_tokenizer")

    @cached_property
    def language_model(self) -> LanguageModel:
        """Tokens to tokens."""
        return LanguageModel.from_pretrained(self.path / "language_model")

    @cached_property
    def decoder(self) -> SpeechDecoder:
        """Tokens to waveforms."""
        return SpeechDecoder.from_pretrained(self.path / "speech_decoder")


@dataclass
class Bench:
    """One run.

    Attributes:
        mid_size: Random weights.
        nano: The shipped ones.
        reference: The other side, if it is on the machine.
        quick: Fewer repetitions and shorter answers.
        recordings: More WAV files to compare token ids over, 16 kHz mono.
        progress: Told what is being measured.
    """

    mid_size: Weights
    nano: Weights
    reference: Reference | None = None
    quick: bool = False
    recordings: Sequence[Path] = ()
    progress: Callable[[str], None] = field(default=lambda _line: None)

    def repetitions(self, count: int) -> int:
        """How often to measure something: ``count``, or once in a quick run."""
        return 1 if self.quick else count

    def reason(self, *parts: Part) -> str | None:
        """Why the reference's column stays empty for these parts; None if it can be measured."""
        if self.reference is None:
            return NOT_HERE
        reasons = [reason for part in parts if (reason := self.reference.missing[part])]
        return f"{NOT_HERE} ({reasons[0]})" if reasons else None

    def load(self, weights: Weights, *parts: Part) -> Reference | None:
        """The reference with these parts of the weights loaded; None if it cannot run them."""
        if self.reference is None or self.reason(*parts):
            return None
        for part in parts:
            self.reference.load(part, weights.path)
        return self.reference

    def alternate(
        self,
        repetitions: int,
        ours: Callable[[], float],
        reference: Callable[[], float] | None,
        missing: str | None = None,
    ) -> tuple[Measured, Measured | str]:
        """Measure ours before and after every time the other side is, so that load meets both.

        Args:
            repetitions: Of the other side.
            ours: Measures once.
            reference: Measures once; None where there is no other side.
            missing: Why there is none.

        Returns:
            Our side; the other, or ``missing``.
        """
        mine = [ours()]
        theirs: list[float] = []
        for _ in range(repetitions):
            if reference is not None:
                theirs.append(reference())
            mine.append(ours())
        against: Measured | str = Measured(tuple(theirs)) if theirs else missing or NOT_HERE
        return Measured(tuple(mine)), against


class Group(Protocol):
    """A module of the benchmark: some rows that belong together."""

    def run(self, bench: Bench) -> Sequence[Result]:
        """Measure them."""
