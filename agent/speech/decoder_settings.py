"""How the speech decoder is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent.speech.checkpoint import CheckpointError, field


@dataclass(frozen=True)
class DecoderSettings:
    """How the flow is run.

    A checkpoint may bring its own in a section ``decoding`` of its config.yaml.

    Attributes:
        steps: Euler steps, at least 1. Time is proportional to them.
        guidance: Weight of the classifier-free guidance; 0 switches it off and halves the time.
        temperature: Scale of the noise from which the flow starts.
        prompt_blocks: Encoder blocks of earlier tokens and mel, at least 1, that lead each block of
            a stream. The time for a block is proportional to 1 + this, from the block on that has
            so many before it.
        held_frames: Frames at the end of a stream's block that are kept back, and made anew with
            the next block. A block's end is uncertain of what comes: where the next one begins the
            mel jumps. Fewer than a block has.

    Raises:
        ValueError: if a value is out of its range.
    """

    steps: int = 10
    guidance: float = 0.7
    temperature: float = 1.0
    prompt_blocks: int = 2
    held_frames: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, lowest in (
            ("steps", 1),
            ("guidance", 0),
            ("temperature", 0),
            ("prompt_blocks", 1),
            ("held_frames", 0),
        ):
            value = getattr(self, name)
            if not value >= lowest:
                raise ValueError(f"decoding.{name} is {value}, expected at least {lowest}")

    def updated(self, section: Mapping[str, Any], path: str | Path) -> DecoderSettings:
        """These settings with those of a config section in their place.

        Raises:
            CheckpointError: if the section has an unknown field or a wrong value.
        """
        kinds: dict[str, tuple[type, ...]] = {
            one.name: (int,) if one.type == "int" else (int, float) for one in fields(self)
        }
        for name in section:
            if name not in kinds:
                raise CheckpointError(
                    f"{path}: field 'decoding.{name}' is unknown, expected {', '.join(kinds)}"
                )
        values = {name: field(section, name, kinds[name], path) for name in section}
        try:
            return replace(self, **values)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
