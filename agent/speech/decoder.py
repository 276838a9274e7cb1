"""Speech decoder: speech tokens to a waveform, whole and streaming.

Arguments may be NumPy arrays or tensors; results are tensors on the CPU, which NumPy takes as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    field,
    fold_weight_norm,
    load_into,
    read_pickle,
    read_yaml,
)
from agent.speech.flow import HOP, Flow, FlowConfig
from agent.speech.vocoder import Vocoder

Array = npt.ArrayLike | Tensor


@dataclass(frozen=True)
class DecoderSettings:
    """How the flow is run.

    A checkpoint may bring its own in a section ``decoding`` of its config.yaml.

    Attributes:
        steps: Euler steps, at least 1. Time is proportional to them.
        guidance: Weight of the classifier-free guidance; 0 switches it off and halves the time.
        temperature: Scale of the noise from which the flow starts.
        prompt_blocks: Encoder blocks of earlier tokens and mel, at least 1, that lead each block of
            a stream. The time for a block is proportional to 1 + this.

    Raises:
        ValueError: if a value is out of its range.
    """

    steps: int = 10
    guidance: float = 0.7
    temperature: float = 1.0
    prompt_blocks: int = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, lowest in (
            ("steps", 1),
            ("guidance", 0),
            ("temperature", 0),
            ("prompt_blocks", 1),
        ):
            value = getattr(self, name)
            if not value >= lowest:
                raise ValueError(f"decoding.{name} is {value}, expected at least {lowest}")

    def updated(self, section: Mapping[str, Any], path: str | Path) -> DecoderSettings:
        """These settings with those of a config section in their place.

        Raises:
            CheckpointError: if the section has an unknown field or a wrong value.
        """
        kinds: dict[str, tuple[type, ...]] = {
            one.name: (int,) if one.type == "int" else (int, float) for one in fields(self)
        }
        for name in section:
            if name not in kinds:
                raise CheckpointError(
                    f"{path}: field 'decoding.{name}' is unknown, expected {', '.join(kinds)}"
                )
        values = {name: field(section, name, kinds[name], path) for name in section}
        try:
            return replace(self, **values)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


class SpeechDecoder:
    """Flow and vocoder of one checkpoint, in eval mode: there is no dropout at inference.

    Attributes:
        flow: Tokens to mel.
        vocoder: Mel to waveform.
        settings: How the flow is run.
    """

    def __init__(self, flow: Flow, vocoder: Vocoder, settings: DecoderSettings) -> None:
        self.flow = flow.eval()
        self.vocoder = vocoder.eval()
        self.settings = settings

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        settings: DecoderSettings | None = None,
    ) -> SpeechDecoder:
        """Load ``config.yaml``, ``flow.pt`` and ``hift.pt``.

        Args:
            path: The checkpoint's directory.
            device: Where the models run.
            settings: In place of the checkpoint's own.

        Raises:
            CheckpointError: if a file or field is missing, damaged or wrong; names it.
        """
        config_path = checkpoint_file(path, "config.yaml")
        config = read_yaml(config_path)
        rate = field(config, "sample_rate", int, config_path)
        flow = Flow(
            FlowConfig.from_mapping(field(config, "flow", dict, config_path), rate, config_path)
        )
        vocoder = Vocoder.from_config(field(config, "hift", dict, config_path), config_path)
        if vocoder.config.sampling_rate != rate or vocoder.config.hop != HOP:
            raise CheckpointError(
                f"{config_path}: section 'hift' makes {vocoder.config.hop} samples a frame at "
                f"{vocoder.config.sampling_rate} Hz, expected {HOP} at {rate} Hz"
            )
        flow_path = checkpoint_file(path, "flow.pt")
        load_into(flow, read_pickle(flow_path), flow_path)
        vocoder_path = checkpoint_file(path, "hift.pt")
        load_into(vocoder, fold_weight_norm(read_pickle(vocoder_path)), vocoder_path)
        if settings is None:
            section = field({"decoding": {}, **config}, "decoding", dict, config_path)
            settings = DecoderSettings(guidance=flow.config.guidance).updated(section, config_path)
        return cls(flow.to(device), vocoder.to(device), settings)

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.flow.config.sample_rate

    @property
    def block(self) -> int:
        """Tokens a block of the flow's encoder: what a stream decodes at a time."""
        return self.flow.config.encoder.block_size

    @torch.inference_mode()
    def mel(
        self,
        tokens: Array,
        noise: Array | None = None,
        prompt_tokens: Array | None = None,
        prompt_mel: Array | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Log mel of tokens, in one piece.

        Args:
            tokens: int64 [n], n at least 1.
            noise: Standard normal float32 [80, frames] over prompt and new frames, where frames is
                ``flow.frames`` of all tokens; drawn if None.
            prompt_tokens: int64 [p], what was said before.
            prompt_mel: float32 [80, q], the mel of it; q may be less than the prompt tokens last.
            seed: Of the generator that draws the noise.

        Returns:
            float32 [80, frames - q]: natural log mel, a frame 256 samples at 22.05 kHz.

        Raises:
            ValueError: if an argument has a wrong shape, dtype or range; names it.
        """
        ids = self._checked(tokens, "tokens")
        if (prompt_tokens is None) != (prompt_mel is None):
            raise ValueError("prompt_tokens and prompt_mel belong together; only one was given")
        known = torch.zeros(self.flow.config.mel_bins, 0)
        if prompt_mel is not None and prompt_tokens is not None:
            known = torch.as_tensor(prompt_mel)
            self.vocoder.check_mel(known)
            ids = torch.cat([self._checked(prompt_tokens, "prompt_tokens", empty=True), ids])
        frames = self.flow.frames(len(ids))
        if known.shape[1] >= frames:
            raise ValueError(
                f"prompt_mel has {known.shape[1]} frames, expected fewer than the {frames} "
                "of all tokens"
            )
        if noise is None:
            start = self._draw(frames, torch.Generator().manual_seed(seed))
        else:
            start = torch.as_tensor(noise)
            if start.shape != (self.flow.config.mel_bins, frames):
                raise ValueError(
                    f"noise has shape {tuple(start.shape)}, "
                    f"expected ({self.flow.config.mel_bins}, {frames})"
                )
        return self._sample(ids, start, known).cpu()

    def vocode(
        self,
        mel: Array,
        phase: Array | None = None,
        noise: Array | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Waveform of a mel, in one piece.

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
        return self.vocoder.vocode(
            torch.as_tensor(mel).to(self._device),
            None if phase is None else torch.as_tensor(phase),
            None if noise is None else torch.as_tensor(noise),
            seed,
        ).cpu()

    def decode(self, tokens: Array, seed: int = 0) -> Tensor:
        """Waveform of tokens, in one piece.

        Args:
            tokens: int64 [n], n at least 1.
            seed: Of the generators.

        Returns:
            float32 [frames(n) * 256] at 22.05 kHz.

        Raises:
            ValueError: if ``tokens`` is empty, of another shape or dtype, or out of range.
        """
        return self.vocode(self.mel(tokens, seed=seed), seed=seed + 1)

    def stream(self, seed: int = 0) -> DecoderStream:
        """A stream for one answer, with generators of its own."""
        return DecoderStream(self, seed)

    @property
    def _device(self) -> torch.device:
        return self.flow.encoder_proj.weight.device

    def _checked(self, ids: Array, name: str, empty: bool = False) -> Tensor:
        """Ids int64 [n] on the CPU; ``empty`` allows none. Raises a ValueError that names them."""
        tokens = torch.as_tensor(ids).cpu()
        if tokens.ndim != 1 or tokens.dtype != torch.int64:
            raise ValueError(
                f"{name} has shape {tuple(tokens.shape)} and dtype {tokens.dtype}, "
                "expected (n,) and torch.int64"
            )
        if len(tokens) == 0:
            if empty:
                return tokens
            raise ValueError(f"{name} is empty, expected at least one token")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.flow.config.vocab_size:
            raise ValueError(
                f"{name} holds {low if low < 0 else high}, "
                f"expected ids from 0 to {self.flow.config.vocab_size - 1}"
            )
        return tokens

    def _draw(self, frames: int, generator: torch.Generator) -> Tensor:
        """Standard normal [80, frames], frame by frame: any division draws the same numbers."""
        return torch.randn(frames, self.flow.config.mel_bins, generator=generator).T

    def _sample(self, tokens: Tensor, noise: Tensor, prompt_mel: Tensor) -> Tensor:
        settings, device = self.settings, self._device
        mel = self.flow.sample(
            tokens[None].to(device),
            noise[None].to(device) * settings.temperature,
            prompt_mel[None].to(device),
            settings.steps,
            settings.guidance,
        )
        return mel[0, :, prompt_mel.shape[1] :]


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
      it, nor those before its prompt, and the flow's group norms span what it is shown.

    After each push all audio is returned that no later token can change: all but about 20 frames
    (0.23 s) that the vocoder looks ahead, and those follow with ``last``.
    """

    def __init__(self, decoder: SpeechDecoder, seed: int = 0) -> None:
        self.decoder = decoder
        self.finished = False
        self.decoded = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._vocoder = decoder.vocoder.stream(seed + 1)
        self._waiting = torch.zeros(0, dtype=torch.int64)
        # What leads the next block: tokens [t], mel and noise [80, f] of the same frames.
        self._tokens = self._waiting
        self._mel = torch.zeros(decoder.flow.config.mel_bins, 0, device=decoder._device)
        self._noise = self._mel.cpu()

    @torch.inference_mode()
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
        decoder = self.decoder
        if self.finished:
            raise ValueError("the decoder stream has ended; start another for the next answer")
        checked = decoder._checked(tokens, "tokens", empty=True)
        self.finished = last
        waiting = torch.cat([self._waiting, checked])
        ready = len(waiting) if last else len(waiting) - len(waiting) % decoder.block
        mels = [self._decode_block(block) for block in torch.split(waiting[:ready], decoder.block)]
        self._waiting = waiting[ready:]
        mel = torch.cat(mels, dim=1)
        # The vocoder has nothing to do without a frame, unless its own look-ahead is to be flushed.
        if mel.shape[1] == 0 and not (last and self.decoded):
            return torch.zeros(0)
        return self._vocoder.push(mel, last).cpu()

    def _decode_block(self, tokens: Tensor) -> Tensor:
        """Mel of the next block; moves the window on."""
        if len(tokens) == 0:
            return self._mel[:, :0]
        decoder, frames = self.decoder, self.decoder.flow.frames
        end = self.decoded + len(tokens)
        noise = decoder._draw(frames(end) - frames(self.decoded), self._generator)
        self._noise = torch.cat([self._noise, noise], dim=1)
        self._tokens = torch.cat([self._tokens, tokens])
        mel = decoder._sample(self._tokens, self._noise, self._mel)
        self._mel = torch.cat([self._mel, mel], dim=1)
        self.decoded = end
        kept = min(end, decoder.settings.prompt_blocks * decoder.block)
        keep = frames(end) - frames(end - kept)
        self._tokens = self._tokens[len(self._tokens) - kept :]
        self._mel = self._mel[:, self._mel.shape[1] - keep :]
        self._noise = self._noise[:, self._noise.shape[1] - keep :]
        return mel
