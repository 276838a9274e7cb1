"""Flow matching: speech tokens to log mel.

Noise is carried to a mel along a learnt velocity field by Euler's method, led by the encoded tokens
and by the mel of what was said before (arXiv 2407.05407; guidance: arXiv 2207.12598).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.checkpoint import CheckpointError, field
from agent.speech.flow_encoder import BlockEncoder, EncoderConfig
from agent.speech.flow_estimator import Estimator, EstimatorConfig

HOP = 256
"""Samples of audio a mel frame."""


@dataclass(frozen=True)
class FlowConfig:
    """What the ``flow`` section of the decoder's config.yaml says.

    Attributes:
        input_size: Channels of the token embedding.
        mel_bins: Bins of the mel.
        speaker_size: Channels of the speaker vector, which is always zeros.
        vocab_size: Number of speech tokens.
        token_rate: Tokens a second.
        sample_rate: Of the audio that the mel describes, in Hz.
        regulator_layers: Convolutions after the stretch from tokens to frames.
        guidance: Weight of what the conditions change over and above the estimate under them.
        mel_mean: The flow runs on (mel - mel_mean) / mel_std; 0 in the published checkpoint.
        mel_std: 1 in the published checkpoint.
        encoder: Of the token encoder.
        estimator: Of the velocity estimator.
    """

    input_size: int
    mel_bins: int
    speaker_size: int
    vocab_size: int
    token_rate: float
    sample_rate: int
    regulator_layers: int
    guidance: float
    mel_mean: float
    mel_std: float
    encoder: EncoderConfig
    estimator: EstimatorConfig

    @classmethod
    def from_mapping(
        cls, config: Mapping[str, Any], sample_rate: int, path: str | Path
    ) -> FlowConfig:
        """Read the section.

        Raises:
            CheckpointError: if a field is missing, of another type, or does not fit the others.
        """
        ratios = field(config, "length_regulator.sampling_ratios", list, path)
        made = cls(
            input_size=field(config, "input_size", int, path),
            mel_bins=field(config, "output_size", int, path),
            speaker_size=field(config, "spk_embed_dim", int, path),
            vocab_size=field(config, "vocab_size", int, path),
            token_rate=float(field(config, "input_frame_rate", (int, float), path)),
            sample_rate=sample_rate,
            regulator_layers=len(ratios),
            guidance=float(
                field(
                    config,
                    "decoder.cfm_params.content.inference_cfg_rate",
                    (int, float),
                    path,
                )
            ),
            mel_mean=float(field({"mel_mean": 0.0, **config}, "mel_mean", (int, float), path)),
            mel_std=float(field({"mel_std": 1.0, **config}, "mel_std", (int, float), path)),
            encoder=EncoderConfig.from_mapping(field(config, "encoder", dict, path), path),
            estimator=EstimatorConfig.from_mapping(
                field(config, "decoder.estimator", dict, path), path
            ),
        )
        schedule = field(config, "decoder.cfm_params.content.t_scheduler", str, path)
        if schedule != "cosine":
            raise CheckpointError(
                f"{path}: field 'decoder.cfm_params.content.t_scheduler' is {schedule!r}, "
                "expected 'cosine'"
            )
        for name, value, expected in (
            ("encoder.input_size", made.encoder.input_size, made.input_size),
            ("decoder.estimator.in_channels", made.estimator.in_channels, 4 * made.mel_bins),
            ("decoder.estimator.out_channels", made.estimator.out_channels, made.mel_bins),
            (
                "length_regulator.channels",
                field(config, "length_regulator.channels", int, path),
                made.mel_bins,
            ),
        ):
            if value != expected:
                raise CheckpointError(f"{path}: field {name!r} is {value}, expected {expected}")
        for name, number in (
            ("vocab_size", made.vocab_size),
            ("input_frame_rate", made.token_rate),
            ("mel_std", made.mel_std),
        ):
            if number <= 0:
                raise CheckpointError(f"{path}: field {name!r} is {number}, expected more than 0")
        return made


class LengthRegulator(nn.Module):
    """Repeats each token over its frames and smooths the result by convolutions."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for _ in range(layers):
            modules += [
                nn.Conv1d(channels, channels, 3, padding=1),
                nn.GroupNorm(1, channels),
                nn.Mish(),
            ]
        self.model = nn.Sequential(*modules, nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """[b, n, c] -> [b, c, frames]."""
        stretched = F.interpolate(x.transpose(1, 2), size=frames, mode="nearest")
        out: Tensor = self.model(stretched)
        return out


class _Decoder(nn.Module):
    """Holds the estimator under its published name."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.estimator = Estimator(config)


class Flow(nn.Module):
    """Tokens to mel. Parameters have the published names.

    ``sample`` is for use; ``condition`` and ``velocity`` are its parts, for training too.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_size, config.mel_bins)
        self.encoder = BlockEncoder(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.output_size, config.mel_bins)
        self.length_regulator = LengthRegulator(config.mel_bins, config.regulator_layers)
        self.decoder = _Decoder(config.estimator)
        self._frames_a_token = Fraction(config.sample_rate) / (Fraction(config.token_rate) * HOP)

    def frames(self, tokens: int) -> int:
        """Mel frames that so many tokens last, rounded down.

        Counts of single blocks do not add up (10 tokens have 68, 20 have 137): where a block of an
        answer begins follows from the number of tokens before it.
        """
        return math.floor(tokens * self._frames_a_token)

    def condition(self, tokens: Tensor, frames: int) -> Tensor:
        """Encode tokens and stretch them over frames.

        Args:
            tokens: int64 [b, n].
            frames: Length of the result.

        Returns:
            [b, mel_bins, frames], in the flow's own (normalised) mel space.
        """
        encoded = self.encoder_proj(self.encoder(self.input_embedding(tokens)))
        out: Tensor = self.length_regulator(encoded, frames)
        return out

    def velocity(self, x: Tensor, time: Tensor, mu: Tensor, prompt: Tensor, led: Tensor) -> Tensor:
        """Velocity of the flow.

        Args:
            x: State [b, mel_bins, f].
            time: [b], from 0 (noise) to 1 (mel).
            mu: From ``condition`` [b, mel_bins, f].
            prompt: Normalised mel that is already known [b, mel_bins, f], zeros where it is not.
            led: [b], 1 where the conditions count and 0 where they are hidden (for guidance).

        Returns:
            [b, mel_bins, f].
        """
        # The speaker vector is zeros in every published checkpoint: its projection is the bias.
        speaker = self.spk_embed_affine_layer.bias[None, :, None].expand_as(x)
        led = led[:, None, None]
        out: Tensor = self.decoder.estimator(
            torch.cat([x, mu * led, speaker * led, prompt * led], dim=1), time
        )
        return out

    def sample(
        self, tokens: Tensor, noise: Tensor, prompt: Tensor, steps: int, guidance: float
    ) -> Tensor:
        """Carry noise to a mel.

        Args:
            tokens: int64 [1, n], those of the prompt first.
            noise: float32 [1, mel_bins, f]: where the flow starts, over prompt and new frames.
            prompt: Log mel of the first p frames, float32 [1, mel_bins, p], p from 0 to f.
            steps: Euler steps, on the schedule 1 - cos(pi/2 * step / steps).
            guidance: Weight of the guidance; 0 halves the work.

        Returns:
            Log mel float32 [1, mel_bins, f]. Its first p frames are the flow's own version of the
            prompt, not the prompt itself.
        """
        config = self.config
        frames = noise.shape[-1]
        mu = self.condition(tokens, frames)
        known = F.pad((prompt - config.mel_mean) / config.mel_std, (0, frames - prompt.shape[-1]))
        times = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=mu.device) * (0.5 * math.pi))
        # Both halves of the guidance go through the estimator together.
        led = mu.new_tensor([1.0, 0.0] if guidance > 0 else [1.0])
        batch = len(led)
        mu, known = mu.expand(batch, -1, -1), known.expand(batch, -1, -1)
        x = noise
        for begin, end in itertools.pairwise(times):
            estimate = self.velocity(x.expand(batch, -1, -1), begin.expand(batch), mu, known, led)
            velocity = estimate[:1]
            if guidance > 0:
                velocity = velocity + guidance * (velocity - estimate[1:])
            x = x + (end - begin) * velocity
        return x * config.mel_std + config.mel_mean
