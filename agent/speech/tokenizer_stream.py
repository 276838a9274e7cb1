"""Up to 30 s of a tokenizer's stream: the state between one piece of audio and the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agent.speech.features import DYNAMIC_RANGE, normalise
from agent.speech.tokenizer_encoder import CONV_CONTEXT, CONV_STRIDE, KeyValues

if TYPE_CHECKING:
    from agent.speech.tokenizer import Audio, Ids, SpeechTokenizer


@dataclass(frozen=True)
class _Block:
    """A block that was computed.

    Attributes:
        start: Its first 50 Hz frame in the segment.
        raw: Its log mel before the clamp, the convolutions' context in front [1, n_mels, f].
        valid: bool [n], false for frames of padding; None if there are none.
        maximum: The loudest value that was known when it was computed.
        ids: int64 [k], its tokens.
    """

    start: int
    raw: Tensor
    valid: Tensor | None
    maximum: Tensor
    ids: Ids

    def clamped_by(self, maximum: Tensor) -> bool:
        """Whether another maximum changes what the encoder is shown."""
        floor = float(maximum) - DYNAMIC_RANGE
        return bool(maximum > self.maximum) and float(self.raw.min()) < floor


class SegmentStream:
    """A segment of a stream; segments know nothing of each other.

    Attributes:
        received: Samples so far.
    """

    def __init__(self, tokenizer: SpeechTokenizer, *, first: bool):
        self.received = 0
        self._tokenizer = tokenizer
        self._encoder = tokenizer.encoder
        self._log_mel = tokenizer.log_mel
        self._device = tokenizer.encoder.conv1.weight.device
        self._mirrored_end = first
        self._start = 0  # of the open block, in 50 Hz frames
        self._cache = [KeyValues() for _ in range(tokenizer.encoder.config.layers)]
        self._mel_frames = 0  # computed so far
        self._maximum: Tensor | None = None  # of those
        self._context: Tensor | None = None  # the last of them, before the clamp
        # Samples of the windows to come; the first is the segment's sample self._offset.
        self._samples = np.zeros(0, dtype=np.float32)
        self._offset = 0
        self._blocks: list[_Block] = []

    def copy(self) -> SegmentStream:
        """Another stream that goes on from here."""
        other = copy.copy(self)
        other._cache = [replace(layer) for layer in self._cache]
        other._blocks = list(self._blocks)
        return other

    def push(self, samples: Audio) -> list[Ids]:
        """Tokens of the blocks that these samples complete."""
        self.received += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        found: list[Ids] = []
        longest = self._tokenizer.segment_samples // self._tokenizer.frame_samples
        while self._start < longest:
            end = min(self._start + self._encoder.config.block, longest)
            # The block's last 50 Hz frame does not see its second mel frame.
            mel_frames = CONV_STRIDE * end - 1
            if self.received < self._window_end(mel_frames):
                break
            found.append(self._compute(end, mel_frames, None))
        return found

    def finish(self) -> list[Ids]:
        """Tokens of the open block."""
        padded = self._tokenizer.padded(self.received)
        end = padded // self._tokenizer.frame_samples
        if end <= self._start:
            return []
        half = self._log_mel.n_fft // 2
        self._samples = np.pad(self._samples, (0, padded - self.received))
        # As in `encode`: a later segment ends in the silence that fills up its 30 s.
        mirrored = self._mirrored_end or padded == self._tokenizer.segment_samples
        mirror = self._samples[-half - 1 : -1][::-1] if mirrored else np.zeros(half, np.float32)
        self._samples = np.concatenate([self._samples, mirror])
        valid = np.arange(self._start, end) * self._tokenizer.frame_samples < self.received
        mask = None if valid.all() else torch.from_numpy(valid)
        return [self._compute(end, CONV_STRIDE * end, mask)]

    def _window_end(self, mel_frames: int) -> int:
        """The sample at which the last of so many windows ends."""
        return self._log_mel.hop * (mel_frames - 1) + self._log_mel.n_fft // 2

    def _compute(self, end: int, mel_frames: int, valid: Tensor | None) -> Ids:
        """Tokens of the open block up to a 50 Hz frame, from the first so many mel frames."""
        half = self._log_mel.n_fft // 2
        if self._mel_frames == 0:
            self._samples = np.concatenate([self._samples[half:0:-1], self._samples])
            self._offset = -half
        windows = self._samples[: self._window_end(mel_frames) - self._offset]
        raw = self._log_mel.frames(torch.from_numpy(windows).to(self._device)[None])
        used = self._log_mel.hop * mel_frames - half - self._offset
        self._samples = self._samples[used:]
        self._offset += used
        self._mel_frames = mel_frames

        maximum = raw.amax()
        self._maximum = maximum if self._maximum is None else torch.maximum(self._maximum, maximum)
        if self._context is not None:
            raw = torch.cat([self._context, raw], dim=-1)
        # Of the next block's context the last frame is still to come.
        self._context = raw[..., -(CONV_CONTEXT - 1) :]
        if valid is not None:
            valid = valid.to(self._device)
        ids = self._encode(raw, self._start, valid)
        self._blocks.append(_Block(self._start, raw, valid, self._maximum, ids))
        self._start = end
        return ids

    def _encode(self, raw: Tensor, start: int, valid: Tensor | None) -> Ids:
        """Tokens of a block whose predecessors the cache holds."""
        assert self._maximum is not None
        hidden = self._encoder.step(normalise(raw, self._maximum), start, self._cache, valid)
        ids: Ids = self._encoder.quantise(hidden)[0].cpu().numpy()
        return ids

    def revise(self) -> Ids:
        """Tokens of the blocks so far, under the loudest value so far."""
        maximum = self._maximum
        if maximum is not None:
            changed = [block.clamped_by(maximum) for block in self._blocks]
            # Later blocks attend to the first that changed.
            first = changed.index(True) if any(changed) else len(changed)
            if first < len(changed):
                for layer in self._cache:
                    layer.truncate(self._blocks[first].start)
            for index in range(first, len(changed)):
                block = self._blocks[index]
                ids = self._encode(block.raw, block.start, block.valid)
                self._blocks[index] = replace(block, maximum=maximum, ids=ids)
        return np.concatenate([np.zeros(0, dtype=np.int64), *(b.ids for b in self._blocks)])
