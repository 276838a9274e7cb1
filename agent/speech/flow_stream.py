"""Tokens of an answer in pieces to mel in pieces, for many answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agent.speech.decoder_settings import DecoderSettings
from agent.speech.flow import Flow
from agent.speech.flow_encoder import EncoderCache

ENCODER_BLOCKS = 4
"""Blocks before its own that a token's encoding sees at least.

Encoding costs a hundredth of the flow, so the encoder may see more than the flow's prompt holds:
each block more brings the mel nearer to that of an unbounded prompt. It stays bounded because the
state of a stream must.
"""


@dataclass
class _Window:
    """One block and what leads it, ready for the flow.

    Attributes:
        mu: What the tokens say, [1, mel_bins, f].
        noise: [1, mel_bins, f].
        known: Log mel of the first frames, [1, mel_bins, p]. The rest is what was held back of the
            block before, and the block.
    """

    mu: Tensor
    noise: Tensor
    known: Tensor


class MelStream:
    """The flow over the tokens of one answer.

    Tokens are taken in blocks of the encoder's, counted from the start of the answer. A block is
    encoded once, by an encoder that remembers the ``ENCODER_BLOCKS`` blocks before it, or the
    prompt's if those are more. The flow runs over a window of the ``settings.prompt_blocks`` blocks
    before and the block itself. A window that is full has always the same number of frames, as many
    as its tokens last at the start of an answer: 10 tokens last 68 or 69 frames, so now and then
    the window begins one frame inside its first token. The last ``settings.held_frames`` frames of
    a block that is not the last are given out with the next, which makes them anew.

    Attributes:
        decoded: Tokens so far.
    """

    def __init__(self, flow: Flow, settings: DecoderSettings, seed: int = 0) -> None:
        self.flow = flow
        self.settings = settings
        self.decoded = 0
        self._generator = torch.Generator().manual_seed(seed)
        block = flow.config.encoder.block_size
        self._prompt = settings.prompt_blocks * block
        self._cache = EncoderCache(max(self._prompt, ENCODER_BLOCKS * block))
        device, bins = flow.encoder_proj.weight.device, flow.config.mel_bins
        # What leads the next block: encoded tokens [1, t, bins], noise and mel [1, bins, f].
        self._encoded = torch.zeros(1, 0, bins, device=device)
        self._noise = torch.zeros(1, bins, 0, device=device)
        self._mel = self._noise
        self._held = self._noise

    def window(self, tokens: Tensor) -> _Window:
        """Encode a block int64 [n] and say what the flow is to carry; ``settle`` must follow."""
        flow = self.flow
        first, end = self.decoded, self.decoded + len(tokens)
        noise = draw_noise(flow, flow.frames(end) - flow.frames(first), self._generator)
        self._noise = torch.cat([self._noise, noise.to(self._noise)[None]], dim=-1)
        encoded = flow.encode(tokens[None].to(self._encoded.device), self._cache)
        self._encoded = torch.cat([self._encoded, encoded], dim=1)
        self.decoded = end
        frames = self._noise.shape[-1]
        kept = min(frames, flow.frames(self._prompt + flow.config.encoder.block_size))
        mu = flow.length_regulator(self._encoded, frames, kept)
        dropped = frames - kept
        return _Window(mu, self._noise[..., dropped:], self._mel[..., dropped:])

    def settle(self, mel: Tensor) -> Tensor:
        """Take in the mel [1, mel_bins, k] behind what a window knew; drop what leads no later one.

        Returns:
            What of it is final, all but the frames that are held back.
        """
        count = mel.shape[-1] - self.settings.held_frames
        final, self._held = mel[..., :count], mel[..., count:]
        frames, prompt = self.flow.frames, min(self.decoded, self._prompt)
        first = self._noise.shape[-1] - frames(self.decoded) + frames(self.decoded - prompt)
        self._encoded = self._encoded[:, self._encoded.shape[1] - prompt :]
        self._noise = self._noise[..., first:]
        self._mel = torch.cat([self._mel, final], dim=-1)[..., first:]
        return final

    def finish(self) -> Tensor:
        """What is still held back [1, mel_bins, k]; no block may follow."""
        return self._held


def draw_noise(flow: Flow, frames: int, generator: torch.Generator) -> Tensor:
    """Standard normal [mel_bins, frames], frame by frame: any division draws the same numbers."""
    return torch.randn(frames, flow.config.mel_bins, generator=generator).T


def advance_mels(pieces: Sequence[tuple[MelStream, Tensor, bool]]) -> list[Tensor]:
    """Decode blocks of several streams of one flow.

    Windows of as many frames share each call of the estimator; full windows always do, if their
    streams have the same settings.

    Args:
        pieces: Streams, none of them twice, tokens int64 [k] of each, and whether its answer ends
            with them. All blocks but the last of an answer must be whole.

    Returns:
        For each stream its log mel float32 [mel_bins, f]; f may be 0.
    """
    streams = [stream for stream, _, _ in pieces]
    blocks = [
        list(torch.split(tokens, stream.flow.config.encoder.block_size)) if len(tokens) else []
        for stream, tokens, _ in pieces
    ]
    mels: list[list[Tensor]] = [[] for _ in pieces]
    for turn in range(max(map(len, blocks), default=0)):
        alike: dict[tuple[DecoderSettings, int], list[tuple[int, _Window]]] = {}
        for index, stream in enumerate(streams):
            if turn < len(blocks[index]):
                window = stream.window(blocks[index][turn])
                key = (stream.settings, window.mu.shape[-1])
                alike.setdefault(key, []).append((index, window))
        for group in alike.values():
            made = _carry(streams[group[0][0]], [window for _, window in group])
            for (index, window), whole in zip(group, torch.split(made, 1), strict=True):
                mels[index].append(streams[index].settle(whole[..., window.known.shape[-1] :])[0])
    for (stream, _, last), found in zip(pieces, mels, strict=True):
        if last:
            found.append(stream.finish()[0])
    empty = [stream._mel[0, :, :0] for stream in streams]
    return [torch.cat([none, *found], dim=-1) for none, found in zip(empty, mels, strict=True)]


def _carry(stream: MelStream, windows: list[_Window]) -> Tensor:
    """Mels [b, mel_bins, f] of windows with f frames."""
    flow, settings = stream.flow, stream.settings
    frames = windows[0].mu.shape[-1]
    return flow.carry(
        torch.cat([window.mu for window in windows]),
        torch.cat([window.noise for window in windows]) * settings.temperature,
        torch.cat([flow.known(window.known, frames) for window in windows]),
        settings.steps,
        settings.guidance,
    )
