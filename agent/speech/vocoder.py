"""HiFT vocoder: mel to waveform by a neural source filter and an inverse STFT.

A pitch predictor reads the fundamental from the mel; sines at it and its harmonics are the source;
two upsampling stages shape the source into 18 spectral channels, which an inverse STFT of 16
samples turns into audio at 22.05 kHz, 256 samples a mel frame (arXiv 2309.09493).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.checkpoint import CheckpointError, field
from agent.speech.streaming import ConvStream, Join, TransposedConvStream


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


def _same(channels: int, out: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(channels, out, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)


class Snake(nn.Module):
    """x + sin^2(alpha x) / alpha, one alpha a channel (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, t] -> [b, c, t]."""
        alpha = self.alpha[:, None]
        return x + torch.sin(alpha * x).square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(_same(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, t] -> [b, c, t]."""
        for act1, conv1, act2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(act2(conv1(act1(x))))
        return x


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer: mel to the fundamental in Hz."""

    def __init__(self, mel_channels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(5):
            layers += [_same(channels if index else mel_channels, channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel [b, 80, f] -> fundamental [b, f] in Hz."""
        return self.head(self.condnet(mel))

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden [b, c, f] -> fundamental [b, f] in Hz."""
        f0: Tensor = self.classifier(hidden.transpose(1, 2)).squeeze(-1)
        return f0.abs()


class HarmonicSource(nn.Module):
    """Sines at the fundamental and its harmonics, with noise, merged into one excitation."""

    def __init__(self, harmonics: int) -> None:
        super().__init__()
        self.l_linear = nn.Linear(harmonics + 1, 1)

    def forward(self, sines: Tensor) -> Tensor:
        """[b, harmonics + 1, t] -> [b, 1, t]."""
        merged: Tensor = torch.tanh(self.l_linear(sines.transpose(1, 2)))
        return merged.transpose(1, 2)


class Vocoder(nn.Module):
    """HiFT generator. Parameters have the published names, with weight norm already folded."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.n_fft + 2
        self.m_source = HarmonicSource(config.nb_harmonics)
        self.conv_pre = _same(config.in_channels, config.base_channels, 7)
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
        self.conv_post = _same(channels, bins, 7)
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
        turns = torch.zeros(f0.shape[0], self.config.nb_harmonics + 1, 1, dtype=torch.float64)
        return self._excite(f0, phase, noise, turns.to(f0.device))[0]

    def _excite(
        self, f0: Tensor, phase: Tensor, noise: Tensor, turns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``source``, going on from ``turns`` [b, 9, 1] of phase; returns the next ones too."""
        config = self.config
        f0 = f0.repeat_interleave(config.hop, dim=-1)[:, None, :]
        order = torch.arange(1, config.nb_harmonics + 2, device=f0.device, dtype=torch.float64)
        # Turns are added up in double and wrapped: in single precision a long answer loses pitch.
        step = f0.double() * order[:, None] / config.sampling_rate
        accumulated = torch.cumsum(step, dim=-1) + turns
        offset = phase.clone()
        offset[:, 0] = 0.0
        angle = 2 * math.pi * (accumulated % 1.0).to(f0.dtype) + offset[:, :, None]
        voiced = (f0 > config.nsf_voiced_threshold).to(f0.dtype)
        level = voiced * config.nsf_sigma + (1 - voiced) * config.nsf_alpha / 3
        sines = config.nsf_alpha * torch.sin(angle) * voiced + level * noise
        following = accumulated[..., -1:] % 1.0 if f0.shape[-1] else turns
        excitation: Tensor = self.m_source(sines)
        return excitation, following

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
        waveform = torch.istft(self._spectrum(x), config.n_fft, config.hop_len, window=self.window)
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def _spectrum(self, x: Tensor) -> Tensor:
        """Final channels [b, 18, t] -> complex spectrum [b, 9, t]."""
        bins = self.config.n_fft // 2 + 1
        x = x.float()  # a training may run in bfloat16; a spectrum cannot
        magnitude = x[:, :bins].exp().clamp(max=1e2)
        return torch.polar(magnitude, x[:, bins:].sin())

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
        if phase is not None and phase.shape != (sines,):
            raise ValueError(f"phase has shape {tuple(phase.shape)}, expected ({sines},)")
        if noise is not None and noise.shape != (sines, frames * config.hop):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, expected ({sines}, {frames * config.hop})"
            )
        generator = torch.Generator().manual_seed(seed)
        start = self.draw_phase(generator) if phase is None else phase[None]
        draws = self.draw(frames, generator) if noise is None else noise[None]
        mel = mel[None]
        source = self.source(self.f0(mel), start.to(mel), draws.to(mel))
        waveform: Tensor = self(mel, source)
        return waveform[0]

    def stream(self, seed: int = 0) -> VocoderStream:
        """A stream whose pieces together are what ``vocode`` gives with the same seed."""
        return VocoderStream(self, seed)

    def check_mel(self, mel: Tensor) -> None:
        """Raise a ValueError unless ``mel`` is [80, any] of finite floats."""
        if mel.ndim != 2 or mel.shape[0] != self.config.in_channels:
            raise ValueError(
                f"mel has shape {tuple(mel.shape)}, expected ({self.config.in_channels}, frames)"
            )
        if not mel.is_floating_point() or not bool(torch.isfinite(mel).all()):
            raise ValueError("mel must hold finite floating-point values")


class _ResBlockStream:
    def __init__(self, block: ResBlock) -> None:
        self.first = list(zip(block.activations1, _conv_streams(block.convs1), strict=True))
        self.second = list(zip(block.activations2, _conv_streams(block.convs2), strict=True))
        self.joins = [Join() for _ in self.first]

    def push(self, x: Tensor, last: bool) -> Tensor:
        for (act1, conv1), (act2, conv2), join in zip(
            self.first, self.second, self.joins, strict=True
        ):
            x = join.push(x, conv2.push(act2(conv1.push(act1(x), last)), last))
        return x


class _SpectrumStream:
    """STFT of the source, centred and mirrored at the ends as torch.stft does it."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.n_fft, self.hop = vocoder.config.n_fft, vocoder.config.hop_len
        self.window = vocoder.window
        self.buffer: Tensor | None = None

    def push(self, source: Tensor, last: bool) -> Tensor:
        half = self.n_fft // 2
        if self.buffer is None:
            if source.shape[-1] == 0:
                return source.new_zeros(1, self.n_fft + 2, 0)
            source = F.pad(source, (half, 0), mode="reflect")
        else:
            source = torch.cat([self.buffer, source], dim=-1)
        if last:
            source = F.pad(source, (0, half), mode="reflect")
        count = max(0, (source.shape[-1] - self.n_fft) // self.hop + 1)
        self.buffer = source[..., count * self.hop :]
        if count == 0:
            return source.new_zeros(1, self.n_fft + 2, 0)
        frames = source[0, 0].unfold(0, self.n_fft, self.hop) * self.window
        spectrum = torch.fft.rfft(frames).T[None]
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class _InverseSpectrumStream:
    """Inverse STFT by overlap-add, trimmed and normalised as torch.istft does it."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.n_fft, self.hop = vocoder.config.n_fft, vocoder.config.hop_len
        self.window = vocoder.window
        overlap = self.n_fft - self.hop
        self.tail = torch.zeros(2, overlap, device=self.window.device)
        self.trim = self.n_fft // 2

    def push(self, spectrum: Tensor, last: bool) -> Tensor:
        frames = spectrum.shape[-1]
        if frames == 0 and not last:
            return self.tail[0, :0]
        pieces = torch.fft.irfft(spectrum[0].T, n=self.n_fft) * self.window
        squares = self.window.square().expand(frames, -1)
        length = self.n_fft - self.hop + frames * self.hop
        total = self.tail.new_zeros(2, length)
        total[:, : self.tail.shape[1]] = self.tail
        for part in range(0, self.n_fft, self.hop):
            span = slice(part, part + frames * self.hop)
            total[0, span] += pieces[:, part : part + self.hop].reshape(-1)
            total[1, span] += squares[:, part : part + self.hop].reshape(-1)
        settled = length - (self.n_fft // 2 if last else self.n_fft - self.hop)
        self.tail = total[:, settled:]
        cut = min(self.trim, settled)
        self.trim -= cut
        return total[0, cut:settled] / total[1, cut:settled]


class VocoderStream:
    """Mel in pieces to waveform in pieces; any division gives what the whole gives.

    Every layer keeps the few samples its kernel spans, so nothing is computed twice. The layers
    look ahead, so the audio lags the mel by about 20 frames until the last piece brings the rest.
    """

    def __init__(self, vocoder: Vocoder, seed: int = 0) -> None:
        config = vocoder.config
        self.vocoder = vocoder
        self.finished = False
        self.generator = torch.Generator().manual_seed(seed)
        self.phase = vocoder.draw_phase(self.generator).to(vocoder.window)
        self.turns = torch.zeros(
            1, config.nb_harmonics + 1, 1, dtype=torch.float64, device=vocoder.window.device
        )
        self.f0 = _conv_streams(vocoder.f0_predictor.condnet)
        self.spectrum = _SpectrumStream(vocoder)
        self.pre = ConvStream(vocoder.conv_pre)
        self.post = ConvStream(vocoder.conv_post)
        self.ups = [
            TransposedConvStream(up) for up in vocoder.ups if isinstance(up, nn.ConvTranspose1d)
        ]
        self.downs = _conv_streams(vocoder.source_downs)
        self.source_blocks = _block_streams(vocoder.source_resblocks)
        self.blocks = _block_streams(vocoder.resblocks)
        self.source_joins = [Join() for _ in self.ups]
        self.block_joins = [Join() for _ in self.ups]
        self.mirror: Tensor | None = None
        self.mirrored = False
        self.inverse = _InverseSpectrumStream(vocoder)

    @torch.inference_mode()
    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """Feed mel frames.

        Args:
            mel: Log mel float32 [80, k]; k may be 0.
            last: Whether the answer ends here.

        Returns:
            float32 [s] at 22.05 kHz: all samples that no later frame can change.

        Raises:
            ValueError: if the shape is wrong or the stream has ended.
        """
        vocoder, config = self.vocoder, self.vocoder.config
        if self.finished:
            raise ValueError("the vocoder stream has ended; start another for the next answer")
        vocoder.check_mel(mel)
        self.finished = last
        x = mel[None]
        hidden = x
        for conv in self.f0:
            hidden = F.elu(conv.push(hidden, last))
        f0 = vocoder.f0_predictor.head(hidden)
        noise = vocoder.draw(f0.shape[-1], self.generator).to(x)
        source, self.turns = vocoder._excite(f0, self.phase, noise, self.turns)
        excitation = self.spectrum.push(source, last)
        x = self.pre.push(x, last)
        width = len(config.resblock_kernel_sizes)
        for index, up in enumerate(self.ups):
            x = up.push(F.leaky_relu(x, config.lrelu_slope), last)
            if index == len(self.ups) - 1:
                x = self._mirror(x)
            driven = self.source_blocks[index].push(self.downs[index].push(excitation, last), last)
            x = self.source_joins[index].push(x, driven)
            branches = self.blocks[index * width : (index + 1) * width]
            x = self.block_joins[index].push(*(branch.push(x, last) for branch in branches)) / width
        x = self.post.push(F.leaky_relu(x), last)
        waveform = self.inverse.push(vocoder._spectrum(x), last)
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def _mirror(self, x: Tensor) -> Tensor:
        """Put the second sample before the first, once, as the reflection padding does."""
        if self.mirrored:
            return x
        if self.mirror is not None:
            x = torch.cat([self.mirror, x], dim=-1)
        if x.shape[-1] < 2:
            self.mirror = x
            return x[..., :0]
        self.mirrored = True
        return F.pad(x, (1, 0), mode="reflect")


def _conv_streams(layers: Iterable[nn.Module]) -> list[ConvStream]:
    return [ConvStream(layer) for layer in layers if isinstance(layer, nn.Conv1d)]


def _block_streams(blocks: nn.ModuleList) -> list[_ResBlockStream]:
    return [_ResBlockStream(block) for block in blocks if isinstance(block, ResBlock)]
