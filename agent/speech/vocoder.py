"""HiFT vocoder: mel to waveform by a neural source filter and an inverse STFT.

A pitch predictor reads the fundamental from the mel; sines at it and its harmonics are the source;
two upsampling stages shape the source into 18 spectral channels, which an inverse STFT of 16
samples turns into audio at 22.05 kHz, 256 samples a mel frame (arXiv 2309.09493).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.arrays import expect_shape
from agent.speech.vocoder_config import VocoderConfig
from agent.speech.vocoder_layers import F0Predictor, HarmonicSource, ResBlock, same
from agent.speech.vocoder_stream import VocoderStream


class Vocoder(nn.Module):
    """HiFT generator. Parameters have the published names, with weight norm already folded."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.n_fft + 2
        self.m_source = HarmonicSource(config.nb_harmonics)
        self.conv_pre = same(config.in_channels, config.base_channels, 7)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = config.base_channels
        for index, (rate, kernel) in enumerate(
            zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        ):
            out = channels // 2
            self.ups.append(
                nn.ConvTranspose1d(channels, out, kernel, rate, padding=(kernel - rate) // 2)
            )
            # The source's spectrum has the rate of the last stage; earlier stages see it decimated.
            down = math.prod(config.upsample_rates[index + 1 :])
            self.source_downs.append(
                nn.Conv1d(bins, out, 1)
                if down == 1
                else nn.Conv1d(bins, out, down * 2, down, padding=down // 2)
            )
            self.source_resblocks.append(
                ResBlock(
                    out,
                    config.source_resblock_kernel_sizes[index],
                    config.source_resblock_dilation_sizes[index],
                )
            )
            for size, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            ):
                self.resblocks.append(ResBlock(out, size, dilations))
            channels = out
        self.conv_post = same(channels, bins, 7)
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_channels)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], path: str | Path) -> Vocoder:
        """Build from the ``hift`` section of a config.yaml.

        Raises:
            CheckpointError: if a field is missing or wrong; names ``path`` and field.
        """
        return cls(VocoderConfig.from_mapping(config, path))

    def f0(self, mel: Tensor) -> Tensor:
        """Mel [b, 80, f] -> fundamental [b, f] in Hz."""
        f0: Tensor = self.f0_predictor(mel)
        return f0

    def source(self, f0: Tensor, phase: Tensor, noise: Tensor) -> Tensor:
        """Excitation of a whole signal.

        Args:
            f0: Fundamental [b, f] in Hz; at most ``nsf_voiced_threshold`` means unvoiced.
            phase: Initial phases [b, 9] in radians; the fundamental's is taken as 0.
            noise: Standard normal [b, 9, f * 256].

        Returns:
            [b, 1, f * 256].
        """
        turns = torch.zeros(f0.shape[0], self.config.nb_harmonics + 1, dtype=torch.float64)
        return self.excite(f0, phase, noise, turns.to(f0.device))[0]

    def excite(
        self, f0: Tensor, phase: Tensor, noise: Tensor, turns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``source``, going on from float64 ``turns`` [b, 9] of phase; returns the next too."""
        config = self.config
        order = torch.arange(1, config.nb_harmonics + 2, device=f0.device, dtype=torch.float64)
        # Frames are added up in double and wrapped: in single precision a long answer loses pitch.
        # Inside a frame the pitch is steady, and what single precision loses in 256 samples is
        # below 1e-5 of a turn.
        step = f0[:, None, :].double() * order[:, None] / config.sampling_rate
        ends = turns[..., None] + torch.cumsum(step * config.hop, dim=-1)
        begins = (ends - step * config.hop) % 1.0
        offset = phase / (2 * math.pi)
        offset[:, 0] = 0.0
        sample = torch.arange(1, config.hop + 1, device=f0.device, dtype=f0.dtype)
        angle = (begins + offset[..., None]).to(f0.dtype)[..., None] + (
            step.to(f0.dtype)[..., None] * sample
        )
        voiced = (f0 > config.nsf_voiced_threshold).to(f0.dtype)[:, None, :, None]
        level = voiced * config.nsf_sigma + (1 - voiced) * config.nsf_alpha / 3
        sines = config.nsf_alpha * voiced * torch.sin(2 * math.pi * angle)
        sines = sines.flatten(2) + (level * noise.view(*step.shape, config.hop)).flatten(2)
        excitation: Tensor = self.m_source(sines)
        return excitation, ends[..., -1] % 1.0 if f0.shape[-1] else turns

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        """Filter the source by the mel.

        Args:
            mel: Log mel [b, 80, f].
            source: Excitation [b, 1, f * 256].

        Returns:
            Waveform [b, f * 256] at 22.05 kHz, within ``audio_limit``.
        """
        config = self.config
        spectrum = torch.stft(
            source.squeeze(1),
            config.n_fft,
            config.hop_len,
            window=self.window,
            return_complex=True,
        )
        excitation = torch.cat([spectrum.real, spectrum.imag], dim=1)
        x = self.conv_pre(mel)
        width = len(config.resblock_kernel_sizes)
        for index, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.lrelu_slope))
            if index == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.source_resblocks[index](self.source_downs[index](excitation))
            blocks = list(self.resblocks)[index * width : (index + 1) * width]
            x = torch.stack([block(x) for block in blocks]).sum(dim=0) / width
        x = self.conv_post(F.leaky_relu(x))
        spectrum = self.spectrum(x.transpose(1, 2)).transpose(1, 2)
        waveform = torch.istft(spectrum, config.n_fft, config.hop_len, window=self.window)
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def spectrum(self, x: Tensor) -> Tensor:
        """Final channels [b, t, 18] -> complex spectrum [b, t, 9]."""
        bins = self.config.n_fft // 2 + 1
        x = x.float()  # a training may run in bfloat16; a spectrum cannot
        magnitude = x[..., :bins].exp().clamp(max=1e2)
        return torch.polar(magnitude, x[..., bins:].sin())

    def draw(self, frames: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise [1, 9, frames * 256].

        It is drawn frame by frame, so any division of the frames draws the same numbers.
        """
        config = self.config
        drawn = torch.randn(frames, config.nb_harmonics + 1, config.hop, generator=generator)
        return drawn.transpose(0, 1).reshape(1, config.nb_harmonics + 1, -1)

    def draw_phase(self, generator: torch.Generator) -> Tensor:
        """Initial phases [1, 9], uniform in (-pi, pi)."""
        uniform = torch.rand(1, self.config.nb_harmonics + 1, generator=generator)
        return (2 * uniform - 1) * math.pi

    @torch.inference_mode()
    def vocode(
        self, mel: Tensor, phase: Tensor | None = None, noise: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """Waveform of a whole mel.

        Args:
            mel: Log mel float32 [80, f], f at least 1.
            phase: Initial phases float32 [9] in radians; drawn if None.
            noise: Standard normal float32 [9, f * 256]; drawn if None.
            seed: Of the generator that draws what is not given.

        Returns:
            float32 [f * 256] at 22.05 kHz.

        Raises:
            ValueError: if a shape is wrong; says which was expected.
        """
        config = self.config
        self.check_mel(mel)
        frames, sines = mel.shape[1], config.nb_harmonics + 1
        if frames == 0:
            raise ValueError("mel has no frames, expected at least 1")
        if phase is not None:
            expect_shape("phase", phase, (sines,))
        if noise is not None:
            expect_shape("noise", noise, (sines, frames * config.hop))
        generator = torch.Generator().manual_seed(seed)
        start = self.draw_phase(generator) if phase is None else phase[None]
        draws = self.draw(frames, generator) if noise is None else noise[None]
        return VocoderStream(self, start, lambda _: draws).push(mel, last=True)

    def stream(self, seed: int = 0) -> VocoderStream:
        """A stream whose pieces together are what ``vocode`` gives with the same seed."""
        generator = torch.Generator().manual_seed(seed)
        phase = self.draw_phase(generator)
        # No closure: a stream can be copied, its random numbers with it.
        return VocoderStream(self, phase, partial(self.draw, generator=generator))

    def check_mel(self, mel: Tensor, name: str = "mel") -> None:
        """Raise a ValueError that names it unless ``mel`` is [80, any] of finite floats."""
        expect_shape(name, mel, (self.config.in_channels, "frames"))
        if not mel.is_floating_point() or not bool(torch.isfinite(mel).all()):
            raise ValueError(f"{name} must hold finite floating-point values")
