"""Speech decoder: speech tokens to a waveform, whole and streaming.

Arguments may be NumPy arrays or tensors; results are tensors on the CPU, which NumPy takes as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from agent.speech.arrays import Array, checked_tokens, expect_shape
from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    field,
    fold_weight_norm,
    load_into,
    read_pickle,
    read_yaml,
)
from agent.speech.decoder_settings import DecoderSettings
from agent.speech.decoder_stream import DecoderStream, advance
from agent.speech.flow import HOP, Flow, FlowConfig
from agent.speech.flow_stream import draw_noise
from agent.speech.time_major import arrange
from agent.speech.vocoder import Vocoder

__all__ = ["DecoderSettings", "DecoderStream", "SpeechDecoder"]


class SpeechDecoder:
    """Flow and vocoder of one checkpoint, in eval mode: there is no dropout at inference.

    The weights of both are put in memory as the computation reads them.

    Attributes:
        flow: Tokens to mel.
        vocoder: Mel to waveform.
        settings: How the flow is run.

    Raises:
        ValueError: The settings hold back whole blocks.
    """

    def __init__(self, flow: Flow, vocoder: Vocoder, settings: DecoderSettings) -> None:
        frames = flow.frames(flow.config.encoder.block_size)
        if settings.held_frames >= frames:
            raise ValueError(
                f"decoding.held_frames is {settings.held_frames}, expected fewer than the {frames} "
                "of a block"
            )
        self.flow = flow.eval()
        self.vocoder = vocoder.eval()
        self.settings = settings
        arrange(flow.decoder)
        arrange(vocoder)
        _keep_freed_memory()

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
        try:
            return cls(flow.to(device), vocoder.to(device), settings)
        except ValueError as error:
            raise CheckpointError(f"{config_path}: {error}") from error

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
            self.vocoder.check_mel(known, "prompt_mel")
            ids = torch.cat([self._checked(prompt_tokens, "prompt_tokens", empty=True), ids])
        frames = self.flow.frames(len(ids))
        if known.shape[1] >= frames:
            raise ValueError(
                f"prompt_mel has {known.shape[1]} frames, expected fewer than the {frames} "
                "of all tokens"
            )
        if noise is None:
            start = draw_noise(self.flow, frames, torch.Generator().manual_seed(seed))
        else:
            start = torch.as_tensor(noise)
            expect_shape("noise", start, (self.flow.config.mel_bins, frames))
        settings, device = self.settings, self._device
        mel = self.flow.sample(
            ids[None].to(device),
            start[None].to(device) * settings.temperature,
            known[None].to(device),
            settings.steps,
            settings.guidance,
        )
        return mel[0, :, known.shape[1] :].cpu()

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

    def advance(self, pieces: Sequence[tuple[DecoderStream, Array, bool]]) -> list[Tensor]:
        """Feed several streams at once; each gets what its own ``push`` would give.

        Blocks whose windows have as many frames share each call of the flow's estimator, both
        halves of the guidance of each. The vocoder runs for one stream after the other.

        Args:
            pieces: For each stream its tokens int64 [k], k may be 0, and whether its answer ends.

        Returns:
            For each stream float32 [s] at 22.05 kHz, on the CPU; s may be 0.

        Raises:
            ValueError: if a stream would refuse its piece, is another decoder's, or is named twice;
                says which piece. All streams are as they were before.
        """
        return advance(self, pieces)

    @property
    def _device(self) -> torch.device:
        return self.flow.encoder_proj.weight.device

    def _checked(self, ids: Array, name: str, empty: bool = False) -> Tensor:
        """Ids int64 [n] on the CPU; ``empty`` allows none. Raises a ValueError that names them."""
        tokens = checked_tokens(ids, self.flow.config.vocab_size, name)
        if len(tokens) == 0 and not empty:
            raise ValueError(f"{name} is empty, expected at least one token")
        return tokens


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of handing it back to the system.

    glibc gives back what is freed at the end of its heap beyond a limit that follows the largest
    block freed so far; each block of an answer then faults in 12 MB of pages again. The block
    allocated here is never touched, so it takes no memory itself.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
