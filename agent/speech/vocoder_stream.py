"""The vocoder over a mel that arrives in pieces. Signals are [1, time, channels]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.speech.streaming import ConvStream, Join, TransposedConvStream
from agent.speech.vocoder_layers import ResBlock, Snake, snake

if TYPE_CHECKING:
    from agent.speech.vocoder import Vocoder


class VocoderStream:
    """Mel in pieces to waveform in pieces; any division gives what the whole gives.

    Every layer keeps the few samples its kernel spans, so nothing is computed twice. The layers
    look ahead, so the audio lags the mel by about 20 frames until the last piece brings the rest.

    Args:
        vocoder: In eval mode.
        phase: Initial phases [1, 9] in radians.
        noise: Standard normal [1, 9, n * 256] for the next n frames.
    """

    def __init__(self, vocoder: Vocoder, phase: Tensor, noise: Callable[[int], Tensor]) -> None:
        self.vocoder = vocoder
        self.finished = False
        self._noise = noise
        self._phase = phase.to(vocoder.window)
        self._turns = torch.zeros_like(self._phase, dtype=torch.float64)
        self._f0 = _conv_streams(vocoder.f0_predictor.condnet)
        self._spectrum = _SpectrumStream(vocoder)
        self._pre = ConvStream(vocoder.conv_pre)
        self._post = ConvStream(vocoder.conv_post)
        self._ups = [
            TransposedConvStream(up) for up in vocoder.ups if isinstance(up, nn.ConvTranspose1d)
        ]
        self._downs = _conv_streams(vocoder.source_downs)
        self._source_blocks = _block_streams(vocoder.source_resblocks)
        self._blocks = _block_streams(vocoder.resblocks)
        self._source_joins = [Join() for _ in self._ups]
        self._block_joins = [Join() for _ in self._ups]
        self._mirror = _MirrorStream()
        self._inverse = _InverseSpectrumStream(vocoder)

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
        x = mel.T.contiguous()[None]
        excitation = self._spectrum.push(self._source(x, last), last)
        x = self._pre.push(x, last)
        width = len(config.resblock_kernel_sizes)
        for index, up in enumerate(self._ups):
            x = up.push(F.leaky_relu(x, config.lrelu_slope), last)
            if index == len(self._ups) - 1:
                x = self._mirror.push(x)
            driven = self._downs[index].push(excitation, last)
            driven = self._source_blocks[index].push(driven, last)
            x = self._source_joins[index].push(driven, x)
            branches = self._blocks[index * width : (index + 1) * width]
            x = self._block_joins[index].push(*(one.push(x, last) for one in branches)) / width
        x = self._post.push(F.leaky_relu(x), last)
        waveform = self._inverse.push(vocoder.spectrum(x), last)
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def _source(self, x: Tensor, last: bool) -> Tensor:
        """Excitation [n * 256] of the frames whose pitch is settled."""
        for conv in self._f0:
            x = F.elu(conv.push(x, last))
        f0 = self.vocoder.f0_predictor.head(x)
        noise = self._noise(f0.shape[-1]).to(f0)
        source, self._turns = self.vocoder.excite(f0, self._phase, noise, self._turns)
        return source[0, 0]


class _ResBlockStream:
    def __init__(self, block: ResBlock) -> None:
        self.first = list(
            zip(_alphas(block.activations1), _conv_streams(block.convs1), strict=True)
        )
        self.second = list(
            zip(_alphas(block.activations2), _conv_streams(block.convs2), strict=True)
        )
        self.joins = [Join() for _ in self.first]

    def push(self, x: Tensor, last: bool) -> Tensor:
        for (alpha1, conv1), (alpha2, conv2), join in zip(
            self.first, self.second, self.joins, strict=True
        ):
            hidden = snake(conv1.push(snake(x, alpha1), last), alpha2)
            x = join.push(conv2.push(hidden, last), x)
        return x


class _MirrorStream:
    """Puts the second sample before the first, once, as the reflection padding does."""

    def __init__(self) -> None:
        self.waiting: Tensor | None = None
        self.done = False

    def push(self, x: Tensor) -> Tensor:
        if self.done:
            return x
        if self.waiting is not None:
            x = torch.cat([self.waiting, x], dim=1)
        if x.shape[1] < 2:
            self.waiting = x
            return x[:, :0]
        self.done = True
        return torch.cat([x[:, 1:2], x], dim=1)


class _SpectrumStream:
    """STFT of the source, centred and mirrored at the ends as torch.stft does it."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.n_fft, self.hop = vocoder.config.n_fft, vocoder.config.hop_len
        self.window = vocoder.window
        self.buffer: Tensor | None = None

    def push(self, source: Tensor, last: bool) -> Tensor:
        """[n] -> [1, frames, n_fft + 2], real parts and then imaginary ones."""
        half = self.n_fft // 2
        if self.buffer is None:
            if len(source) == 0:
                return source.new_zeros(1, 0, self.n_fft + 2)
            source = torch.cat([source[1 : half + 1].flip(0), source])
        else:
            source = torch.cat([self.buffer, source])
        if last:
            source = torch.cat([source, source[-half - 1 : -1].flip(0)])
        count = max(0, (len(source) - self.n_fft) // self.hop + 1)
        self.buffer = source[count * self.hop :].clone()
        if count == 0:
            return source.new_zeros(1, 0, self.n_fft + 2)
        spectrum = torch.fft.rfft(source.unfold(0, self.n_fft, self.hop) * self.window)
        return torch.cat([spectrum.real, spectrum.imag], dim=-1)[None]


class _InverseSpectrumStream:
    """Inverse STFT by overlap-add, trimmed and normalised as torch.istft does it."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.n_fft, self.hop = vocoder.config.n_fft, vocoder.config.hop_len
        self.window = vocoder.window
        overlap = self.n_fft - self.hop
        self.tail = torch.zeros(2, overlap, device=self.window.device)
        self.trim = self.n_fft // 2

    def push(self, spectrum: Tensor, last: bool) -> Tensor:
        """[1, frames, n_fft / 2 + 1] -> [s]."""
        frames = spectrum.shape[1]
        if frames == 0 and not last:
            return self.tail[0, :0]
        pieces = torch.fft.irfft(spectrum[0], n=self.n_fft) * self.window
        squares = self.window.square().expand(frames, -1)
        length = self.n_fft - self.hop + frames * self.hop
        total = self.tail.new_zeros(2, length)
        total[:, : self.tail.shape[1]] = self.tail
        for part in range(0, self.n_fft, self.hop):
            span = slice(part, part + frames * self.hop)
            total[0, span] += pieces[:, part : part + self.hop].reshape(-1)
            total[1, span] += squares[:, part : part + self.hop].reshape(-1)
        settled = length - (self.n_fft // 2 if last else self.n_fft - self.hop)
        self.tail = total[:, settled:].clone()
        cut = min(self.trim, settled)
        self.trim -= cut
        return total[0, cut:settled] / total[1, cut:settled]


def _conv_streams(layers: Iterable[nn.Module]) -> list[ConvStream]:
    return [ConvStream(layer) for layer in layers if isinstance(layer, nn.Conv1d)]


def _block_streams(blocks: nn.ModuleList) -> list[_ResBlockStream]:
    return [_ResBlockStream(block) for block in blocks if isinstance(block, ResBlock)]


def _alphas(activations: nn.ModuleList) -> list[Tensor]:
    return [one.alpha for one in activations if isinstance(one, Snake)]
