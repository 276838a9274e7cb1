"""Flow matching: speech tokens to log mel.

Noise is carried to a mel along a learnt velocity field by Euler's method, led by the encoded tokens
and by the mel of what was said before (arXiv 2407.05407; guidance: arXiv 2207.12598).
"""

from __future__ import annotations

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
from agent.speech.flow_encoder import BlockEncoder, EncoderCache, EncoderConfig
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

    def forward(self, x: Tensor, frames: int, kept: int | None = None) -> Tensor:
        """[b, n, c] over so many frames, of which the last are kept -> [b, c, kept or frames]."""
        stretched = F.interpolate(x.transpose(1, 2), size=frames, mode="nearest")
        if kept is not None:
            stretched = stretched[..., frames - kept :]
        out: Tensor = self.model(stretched)
        return out


class _Decoder(nn.Module):
    """Holds the estimator under its published name."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.estimator = Estimator(config)


class Flow(nn.Module):
    """Tokens to mel. Parameters have the published names.

    ``sample`` is the whole. Streams use its parts, ``encode``, ``length_regulator`` and ``carry``;
    training uses ``condition`` and ``velocity``.
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

    def encode(self, tokens: Tensor, cache: EncoderCache | None = None) -> Tensor:
        """Encode tokens.

        Args:
            tokens: int64 [b, n].
            cache: What is kept of the tokens before them, a multiple of the encoder's block; takes
                these in as well.

        Returns:
            [b, n, mel_bins].
        """
        out: Tensor = self.encoder_proj(self.encoder(self.input_embedding(tokens), cache))
        return out

    def condition(self, tokens: Tensor, frames: int) -> Tensor:
        """Encode tokens and stretch them over frames.

        Args:
            tokens: int64 [b, n].
            frames: Length of the result.

        Returns:
            [b, mel_bins, frames], in the flow's own (normalised) mel space.
        """
        out: Tensor = self.length_regulator(self.encode(tokens), frames)
        return out

    def known(self, prompt: Tensor, frames: int) -> Tensor:
        """Log mel that is known already [b, mel_bins, p], as ``velocity`` and ``carry`` take it.

        Returns:
            [b, mel_bins, frames], normalised, and zeros from p on.
        """
        normal = (prompt - self.config.mel_mean) / self.config.mel_std
        return F.pad(normal, (0, frames - prompt.shape[-1]))

    def velocity(self, x: Tensor, time: Tensor, mu: Tensor, prompt: Tensor, led: Tensor) -> Tensor:
        """Velocity of the flow.

        Args:
            x: State [b, mel_bins, f].
            time: [b], from 0 (noise) to 1 (mel).
            mu: From ``condition`` [b, mel_bins, f].
            prompt: From ``known`` [b, mel_bins, f].
            led: [b], 1 where the conditions count and 0 where they are hidden (for guidance).

        Returns:
            [b, mel_bins, f].
        """
        estimator = self.decoder.estimator
        lead = estimator.lead(self._conditions(mu, prompt) * led[:, None, None])
        out: Tensor = estimator(x.transpose(1, 2), estimator.embed(time), lead)
        return out.transpose(1, 2)

    def _conditions(self, mu: Tensor, prompt: Tensor) -> Tensor:
        """What leads the estimator, side by side [b, f, 3 * mel_bins]."""
        # The speaker vector is zeros in every published checkpoint: its projection is the bias.
        speaker = self.spk_embed_affine_layer.bias[None, :, None].expand_as(mu)
        return torch.cat([mu, speaker, prompt], dim=1).transpose(1, 2)

    def carry(
        self, mu: Tensor, noise: Tensor, prompt: Tensor, steps: int, guidance: float
    ) -> Tensor:
        """Carry noise to mels.

        Args:
            mu: From ``condition`` [b, mel_bins, f].
            noise: float32 [b, mel_bins, f]: where the flow starts.
            prompt: From ``known`` [b, mel_bins, f].
            steps: Euler steps, on the schedule 1 - cos(pi/2 * step / steps).
            guidance: Weight of the guidance; 0 halves the work.

        Returns:
            Log mels float32 [b, mel_bins, f]. Where a prompt is known it is the flow's own version
            of it, not the prompt itself.
        """
        estimator, config = self.decoder.estimator, self.config
        conditions = self._conditions(mu, prompt)
        if guidance > 0:
            # Both halves of the guidance go through the estimator together.
            conditions = torch.cat([conditions, torch.zeros_like(conditions)])
        lead = estimator.lead(conditions)
        times = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=mu.device) * (0.5 * math.pi))
        embedded = estimator.embed(times[:-1])
        x = noise.transpose(1, 2).contiguous()
        for step, length in enumerate(times.diff()):
            time = [one[step : step + 1] for one in embedded]
            if guidance > 0:
                led, free = estimator(torch.cat([x, x]), time, lead).chunk(2)
                velocity = led + guidance * (led - free)
            else:
                velocity = estimator(x, time, lead)
            x = x + length * velocity
        return x.transpose(1, 2) * config.mel_std + config.mel_mean

    def sample(
        self, tokens: Tensor, noise: Tensor, prompt: Tensor, steps: int, guidance: float
    ) -> Tensor:
        """Tokens to mel, in one piece.

        Args:
            tokens: int64 [1, n], those of the prompt first.
            noise: float32 [1, mel_bins, f]: where the flow starts, over prompt and new frames.
            prompt: Log mel of the first p frames, float32 [1, mel_bins, p], p from 0 to f.
            steps: As ``carry`` takes them.
            guidance: Likewise.

        Returns:
            Log mel float32 [1, mel_bins, f], its first p frames as ``carry`` gives them.
        """
        frames = noise.shape[-1]
        mu = self.condition(tokens, frames)
        return self.carry(mu, noise, self.known(prompt, frames), steps, guidance)
