"""Tokens of answers in pieces to waveforms in pieces, for many answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent.speech.arrays import Array, checked_tokens
from agent.speech.flow_stream import MelStream, advance_mels

if TYPE_CHECKING:
    from agent.speech.decoder import SpeechDecoder


class DecoderStream:
    """Tokens of one answer in pieces to waveform in pieces.

    The tokens are decoded in blocks of the encoder's size (10), counted from the start of the
    answer; ``last`` ends the answer with a block of whatever is left. Each block is led by at most
    ``settings.prompt_blocks`` blocks of tokens and mel before it, so its cost does not grow with
    the answer. What equals what:

    - However the tokens are divided among the pushes, the audio together is the same.
    - It has exactly as many samples as ``SpeechDecoder.decode`` of all tokens.
    - An answer of at most one block is exactly what ``decode`` gives with the same seed.
    - The vocoder is exact over the borders of blocks: the audio is that of the blocks' mels joined.
    - The mel of later blocks differs from that of ``decode``: a block does not see the tokens after
      it (but for the frames that ``settings.held_frames`` leaves to the next block), nor those
      before its prompt, and the flow's group norms span what it is shown.

    After each push all audio is returned that no later token can change: all but the frames held
    back and about 20 (0.23 s) that the vocoder looks ahead, and those follow with ``last``.
    """

    def __init__(self, decoder: SpeechDecoder, seed: int = 0) -> None:
        self.decoder = decoder
        self.finished = False
        self._mels = MelStream(decoder.flow, decoder.settings, seed)
        self._vocoder = decoder.vocoder.stream(seed + 1)
        self._waiting = torch.zeros(0, dtype=torch.int64)

    def push(self, tokens: Array, last: bool = False) -> Tensor:
        """Feed tokens.

        Args:
            tokens: int64 [k]; k may be 0.
            last: Whether the answer ends here.

        Returns:
            float32 [s] at 22.05 kHz, on the CPU; s may be 0.

        Raises:
            ValueError: if ``tokens`` is of another shape or dtype or out of range, or if the stream
                has ended. The stream is as it was before.
        """
        return _advance([(self, self._accept(tokens), last)])[0]

    def _accept(self, tokens: Array) -> Tensor:
        """The tokens, checked; the stream is as it was before."""
        if self.finished:
            raise ValueError("the decoder stream has ended; start another for the next answer")
        return checked_tokens(tokens, self.decoder.flow.config.vocab_size, "tokens")

    def _ready(self, tokens: Tensor, last: bool) -> Tensor:
        """Take in tokens; returns those that can be decoded now."""
        block = self.decoder.block
        self.finished = last
        waiting = torch.cat([self._waiting, tokens])
        count = len(waiting) if last else len(waiting) - len(waiting) % block
        self._waiting = waiting[count:]
        return waiting[:count]

    def _speak(self, mel: Tensor) -> Tensor:
        """Audio of the next mel [80, f]."""
        # The vocoder has nothing to do without a frame, unless its own look-ahead is to be flushed.
        if mel.shape[1] == 0 and not (self.finished and self._mels.decoded):
            return torch.zeros(0)
        return self._vocoder.push(mel, self.finished).cpu()


def advance(
    decoder: SpeechDecoder, pieces: Sequence[tuple[DecoderStream, Array, bool]]
) -> list[Tensor]:
    """See ``SpeechDecoder.advance``."""
    accepted: list[tuple[DecoderStream, Tensor, bool]] = []
    for index, (stream, tokens, last) in enumerate(pieces):
        try:
            if stream.decoder is not decoder:
                raise ValueError("the stream is another decoder's")
            if any(stream is other for other, _, _ in accepted):
                raise ValueError("the stream is named twice")
            accepted.append((stream, stream._accept(tokens), last))
        except ValueError as error:
            raise ValueError(f"pieces[{index}]: {error}") from error
    return _advance(accepted)


@torch.inference_mode()
def _advance(pieces: Sequence[tuple[DecoderStream, Tensor, bool]]) -> list[Tensor]:
    ready = [(stream._mels, stream._ready(tokens, last), last) for stream, tokens, last in pieces]
    mels = advance_mels(ready)
    return [stream._speak(mel) for (stream, _, _), mel in zip(pieces, mels, strict=True)]
