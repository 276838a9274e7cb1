"""What the config of a checkpoint says of the vocoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.speech.checkpoint import CheckpointError, field


@dataclass(frozen=True)
class VocoderConfig:
    """What the ``hift`` section of the decoder's config.yaml says."""

    in_channels: int
    base_channels: int
    nb_harmonics: int
    sampling_rate: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    n_fft: int
    hop_len: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    f0_channels: int

    @property
    def hop(self) -> int:
        """Samples of audio a mel frame."""
        return math.prod(self.upsample_rates) * self.hop_len

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any], path: str | Path) -> VocoderConfig:
        """Read the section.

        Raises:
            CheckpointError: if a field is missing or of another type; names ``path`` and field.
        """

        def integers(name: str) -> tuple[int, ...]:
            values = field(config, name, list, path)
            if not values or not all(isinstance(v, int) and v > 0 for v in values):
                raise CheckpointError(
                    f"{path}: field {name!r} is {values!r}, expected whole numbers"
                )
            return tuple(values)

        def dilations(name: str) -> tuple[tuple[int, ...], ...]:
            return tuple(tuple(row) for row in field(config, name, list, path))

        made = cls(
            in_channels=field(config, "in_channels", int, path),
            base_channels=field(config, "base_channels", int, path),
            nb_harmonics=field(config, "nb_harmonics", int, path),
            sampling_rate=field(config, "sampling_rate", int, path),
            nsf_alpha=float(field(config, "nsf_alpha", (int, float), path)),
            nsf_sigma=float(field(config, "nsf_sigma", (int, float), path)),
            nsf_voiced_threshold=float(field(config, "nsf_voiced_threshold", (int, float), path)),
            upsample_rates=integers("upsample_rates"),
            upsample_kernel_sizes=integers("upsample_kernel_sizes"),
            n_fft=field(config, "istft_params.n_fft", int, path),
            hop_len=field(config, "istft_params.hop_len", int, path),
            resblock_kernel_sizes=integers("resblock_kernel_sizes"),
            resblock_dilation_sizes=dilations("resblock_dilation_sizes"),
            source_resblock_kernel_sizes=integers("source_resblock_kernel_sizes"),
            source_resblock_dilation_sizes=dilations("source_resblock_dilation_sizes"),
            lrelu_slope=float(field(config, "lrelu_slope", (int, float), path)),
            audio_limit=float(field(config, "audio_limit", (int, float), path)),
            f0_channels=field(config, "f0_predictor.cond_channels", int, path),
        )
        pairs = (
            ("upsample_kernel_sizes", made.upsample_kernel_sizes, made.upsample_rates),
            ("resblock_dilation_sizes", made.resblock_dilation_sizes, made.resblock_kernel_sizes),
            (
                "source_resblock_kernel_sizes",
                made.source_resblock_kernel_sizes,
                made.upsample_rates,
            ),
            (
                "source_resblock_dilation_sizes",
                made.source_resblock_dilation_sizes,
                made.source_resblock_kernel_sizes,
            ),
        )
        for name, values, partner in pairs:
            if len(values) != len(partner):
                raise CheckpointError(
                    f"{path}: field {name!r} has {len(values)} entries, expected {len(partner)}"
                )
        return made
