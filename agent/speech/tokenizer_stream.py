"""Up to 30 s of a tokenizer's stream: the state between one piece of audio and the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agent.speech.features import DYNAMIC_RANGE, normalise
from agent.speech.tokenizer_encoder import CONV_CONTEXT, CONV_STRIDE, EncoderConfig, KeyValues

if TYPE_CHECKING:
    from agent.speech.tokenizer import Audio, Ids, SpeechTokenizer


# 50 Hz frames, at most, that enter the encoder together while a block is still being spoken.
_LONGEST_CELL = 50


@dataclass(frozen=True)
class _Cell:
    """Frames that have entered the encoder.

    Attributes:
        start: The first of them in the segment, at 50 Hz.
        raw: Their log mel before the clamp, the convolutions' context in front [1, n_mels, f].
        maximum: The loudest value that was known when they entered.
        entered: What the first layer is shown of them [1, n, width].
    """

    start: int
    raw: Tensor
    maximum: Tensor
    entered: Tensor

    def clamped_by(self, maximum: Tensor) -> bool:
        """Whether another maximum changes what the encoder is shown."""
        floor = float(maximum) - DYNAMIC_RANGE
        return bool(maximum > self.maximum) and float(self.raw.min()) < floor


@dataclass(frozen=True)
class _Block:
    """A block that was computed.

    Attributes:
        cells: Its frames.
        valid: bool [n], false for frames of padding; None if there are none.
        ids: int64 [k], its tokens.
    """

    cells: tuple[_Cell, ...]
    valid: Tensor | None
    ids: Ids


class SegmentStream:
    """A segment of a stream; segments know nothing of each other.

    Attention waits for the end of a block. What comes before it, the mel and the convolutions, only
    looks back and is done cell by cell as the audio comes, so that less is left when a turn ends.

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
        self._cells: list[_Cell] = []  # of the open block
        self._cell = _cell_frames(tokenizer.encoder.config)
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
        other._cells, other._blocks = list(self._cells), list(self._blocks)
        return other

    def push(self, samples: Audio) -> list[Ids]:
        """Tokens of the blocks that these samples complete."""
        self.received += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        found: list[Ids] = []
        longest = self._tokenizer.segment_samples // self._tokenizer.frame_samples
        while self._start < longest:
            end = min(self._start + self._encoder.config.block, longest)
            while (entered := self._entered) < end:
                cell_end = min(entered + self._cell, end)
                # The last 50 Hz frame of a cell does not see its second mel frame.
                mel_frames = CONV_STRIDE * cell_end - 1
                if self.received < self._window_end(mel_frames):
                    return found
                self._enter(mel_frames)
            found.append(self._close(None))
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
        if self._entered < end:
            self._enter(CONV_STRIDE * end)
        return [self._close(None if valid.all() else torch.from_numpy(valid))]

    def revise(self) -> Ids:
        """Tokens of the blocks so far, under the loudest value so far."""
        changed = [self._heard_anew(block.cells) is not None for block in self._blocks]
        # Later blocks attend to the first that changed.
        first = changed.index(True) if any(changed) else len(changed)
        if first < len(changed):
            for layer in self._cache:
                layer.truncate(self._blocks[first].cells[0].start)
        for index in range(first, len(changed)):
            block = self._blocks[index]
            self._blocks[index] = self._attended(block.cells, block.valid)
        return np.concatenate([np.zeros(0, dtype=np.int64), *(b.ids for b in self._blocks)])

    @property
    def _entered(self) -> int:
        """50 Hz frames of the segment that have entered the encoder."""
        return self._start + sum(cell.entered.shape[1] for cell in self._cells)

    def _window_end(self, mel_frames: int) -> int:
        """The sample at which the last of so many windows ends."""
        return self._log_mel.hop * (mel_frames - 1) + self._log_mel.n_fft // 2

    def _enter(self, mel_frames: int) -> None:
        """Let frames into the encoder, up to the last that the first so many mel frames give."""
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
        # Of the next cell's context the last frame is still to come.
        self._context = raw[..., -(CONV_CONTEXT - 1) :]
        start = self._entered
        entered = self._encoder.enter(normalise(raw, self._maximum), start)
        self._cells.append(_Cell(start, raw, self._maximum, entered))

    def _close(self, valid: Tensor | None) -> Ids:
        """Tokens of the open block, whose frames have entered."""
        block = self._attended(tuple(self._cells), valid)
        self._start = self._entered
        self._cells = []
        self._blocks.append(block)
        return block.ids

    def _attended(self, cells: tuple[_Cell, ...], valid: Tensor | None) -> _Block:
        """The block of these cells, whose predecessors the cache holds."""
        cells = self._heard_anew(cells) or cells
        entered = torch.cat([cell.entered for cell in cells], dim=1)
        if valid is not None:
            valid = valid.to(self._device)
        hidden = self._encoder.finish_block(entered, self._cache, valid)
        ids: Ids = self._encoder.quantise(hidden)[0].cpu().numpy()
        return _Block(cells, valid, ids)

    def _heard_anew(self, cells: tuple[_Cell, ...]) -> tuple[_Cell, ...] | None:
        """Cells under the loudest value so far; None if it changes none of them."""
        maximum = self._maximum
        if maximum is None or not any(cell.clamped_by(maximum) for cell in cells):
            return None
        return tuple(
            replace(
                cell,
                maximum=maximum,
                entered=self._encoder.enter(normalise(cell.raw, maximum), cell.start),
            )
            if cell.clamped_by(maximum)
            else cell
            for cell in cells
        )


def _cell_frames(config: EncoderConfig) -> int:
    """The longest part of a block that divides it into equal parts of whole tokens."""
    return max(
        frames
        for frames in range(config.pool, _LONGEST_CELL + config.pool, config.pool)
        if config.block % frames == 0
    )
