"""Waveforms to speech tokens: whole files as the reference does it, and while somebody speaks.

12.5 tokens a second from 16 kHz audio. Audio is cut into segments of 30 s that know nothing of
each other. Inside a segment, attention is block-causal (see `agent.speech.tokenizer_encoder`): 4 s
blocks in the published checkpoint, 1.28 s in the nano one.

What equals what, between `SpeechTokenizer.encode` of one waveform and a `TokenizerStream` that is
pushed the same samples:

- Any division into pushes gives the same ids, bit for bit: the stream computes block by block,
  never more, never less, whatever it is pushed.
- The tokens of a block are returned, and final, once the block's last window is full, 120 samples
  before the block ends. `TokenizerStream.finish` returns those of the open block: same ids as
  `encode` of what was pushed, with the one exception that follows.
- Whisper clamps the log-mel to 80 dB below the loudest value of the segment, and a stream does not
  know what comes later. It clamps at the loudest value up to the end of the block being computed
  (at `finish`: of the whole segment), so ids of earlier blocks, and of later ones that attend to
  them, may differ from `encode`'s.
- So ids are equal, up to rounding in near-ties, in a segment of a single block, in a segment whose
  loudest moment lies in its first block, and in one that never falls 80 dB below its maximum in
  any mel band.
- `TokenizerStream.revise` gives the turn's ids with those differences mended: it computes anew
  what a louder sound has changed since, and costs nothing where none has.
- Past 30 s both start a new segment, with a new maximum, and the stream keeps nothing of the old
  one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    field,
    load_into,
    read_json,
    read_safetensors,
)
from agent.speech.features import SAMPLE_RATE, LogMel, normalise
from agent.speech.tokenizer_encoder import (
    CONV_STRIDE,
    EncoderConfig,
    WhisperVQEncoder,
)
from agent.speech.tokenizer_stream import SegmentStream

Audio = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_REFERENCE_BATCH = 128  # segments that the reference pads to the same length
_COMPUTE_BATCH = 16
_UNUSED = ("ema_count", "ema_weight", "layer_norm.")
_OUTER_PREFIX = "model.encoder."


class SpeechTokenizer:
    """The encoder and the features it is fed.

    Args:
        encoder: With its weights.
        log_mel: Features with the encoder's number of bands.
        segment_samples: Samples in a segment: 480,000 published.
    """

    def __init__(self, encoder: WhisperVQEncoder, log_mel: LogMel, segment_samples: int):
        self.encoder = encoder.eval()
        self.log_mel = log_mel
        self.segment_samples = segment_samples
        self.frame_samples = log_mel.hop * CONV_STRIDE
        self.token_samples = self.frame_samples * encoder.config.pool

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device = "cpu"
    ) -> SpeechTokenizer:
        """Load a directory with config.json, preprocessor_config.json and model.safetensors.

        Weights are computed with in float32, however they are stored. Names may carry the prefix
        ``model.encoder.``; layers past the quantiser, if any, are left out.

        Raises:
            CheckpointError: a file is missing or damaged, or a field or tensor is not as expected.
        """
        config_path = checkpoint_file(path, "config.json")
        config = EncoderConfig.from_published(read_json(config_path), config_path)
        features_path = checkpoint_file(path, "preprocessor_config.json")
        features = read_json(features_path)
        segment_samples = _check_features(features, features_path, config)
        encoder = WhisperVQEncoder(config)
        load_into(encoder, _encoder_tensors(path, config.layers), path, unused=_UNUSED)
        log_mel = LogMel(config.n_mels, features["n_fft"], features["hop_length"], device)
        return cls(encoder.to(device), log_mel, segment_samples)

    @property
    def codebook_size(self) -> int:
        """Ids are below this."""
        return self.encoder.config.codes

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[Audio]) -> list[Ids]:
        """Tokenise whole waveforms as the reference does files that are passed in one call.

        A waveform of n samples gives ceil(n / 1280) tokens. As in the reference, the last tokens of
        a waveform may depend on its company: the end of the longest segment of a call is mirrored,
        the others end in silence.

        Args:
            waveforms: float32 [n] each, 16 kHz, in [-1, 1].

        Returns:
            int64 [m] for each, 0-based codes.

        Raises:
            ValueError: a waveform is empty, not one-dimensional, not float32 or not finite.
        """
        segments: list[Audio] = []
        owners: list[int] = []
        for index, waveform in enumerate(waveforms):
            samples = _checked(waveform, f"waveforms[{index}]")
            if not len(samples):
                raise ValueError(f"waveforms[{index}] is empty, expected at least one sample")
            for start in range(0, len(samples), self.segment_samples):
                segments.append(samples[start : start + self.segment_samples])
                owners.append(index)
        ids: list[list[Ids]] = [[] for _ in waveforms]
        for start in range(0, len(segments), _REFERENCE_BATCH):
            group = segments[start : start + _REFERENCE_BATCH]
            longest = max(self.padded(len(segment)) for segment in group)
            for first in range(0, len(group), _COMPUTE_BATCH):
                part = group[first : first + _COMPUTE_BATCH]
                owner = owners[start + first : start + first + _COMPUTE_BATCH]
                for index, found in zip(owner, self._encode_segments(part, longest), strict=True):
                    ids[index].append(found)
        return [np.concatenate(parts) for parts in ids]

    def stream(self) -> TokenizerStream:
        """Start to tokenise what somebody is about to say."""
        return TokenizerStream(self)

    def padded(self, samples: int) -> int:
        """Samples that the tokens of so many samples span."""
        return -(-samples // self.token_samples) * self.token_samples

    def _encode_segments(self, segments: Sequence[Audio], longest: int) -> list[Ids]:
        # Beyond its own tokens a segment only sees the first of the silence that follows it.
        own = max(self.padded(len(segment)) for segment in segments)
        width = min(longest, own + self.token_samples)
        samples = np.zeros((len(segments), width), dtype=np.float32)
        for row, segment in zip(samples, segments, strict=True):
            row[: len(segment)] = segment
        device = self.encoder.conv1.weight.device
        raw = self.log_mel.whole(torch.from_numpy(samples).to(device))
        mel = normalise(raw, raw.amax(dim=(1, 2), keepdim=True))
        lengths = torch.tensor([len(segment) for segment in segments], device=device)
        starts = torch.arange(0, width, self.frame_samples, device=device)
        hidden = self.encoder(mel, starts < lengths[:, None])
        ids = self.encoder.quantise(hidden).cpu().numpy()
        return [
            row[: self.padded(len(segment)) // self.token_samples]
            for row, segment in zip(ids, segments, strict=True)
        ]


class TokenizerStream:
    """Tokens of one turn while it is being spoken; the module's text says what they equal.

    A block is computed once, when it is complete; earlier blocks are remembered as keys and values.
    So at the end of a turn only the open block is left to compute, however long the turn.
    """

    def __init__(self, tokenizer: SpeechTokenizer):
        self._tokenizer = tokenizer
        self._segments = [SegmentStream(tokenizer, first=True)]
        self._finished = False

    @torch.inference_mode()
    def push(self, samples: Audio) -> Ids:
        """Take more of the turn.

        Args:
            samples: float32 [n], 16 kHz, in [-1, 1]; n may be 0.

        Returns:
            int64 [k], the tokens that have become final, often none.

        Raises:
            ValueError: samples are not one-dimensional, not float32 or not finite (the stream
                goes on as if they had not come), or the stream is finished.
        """
        if self._finished:
            raise ValueError("the stream is finished: a new turn needs a new stream")
        rest = _checked(samples, "samples")
        found: list[Ids] = []
        while len(rest):
            segment = self._segments[-1]
            room = self._tokenizer.segment_samples - segment.received
            found += segment.push(rest[:room])
            rest = rest[room:]
            if segment.received == self._tokenizer.segment_samples:
                self._segments.append(SegmentStream(self._tokenizer, first=False))
        return _joined(found)

    @torch.inference_mode()
    def finish(self) -> Ids:
        """End the turn.

        Returns:
            int64 [k], the tokens of the open block; none if nothing was pushed.

        Raises:
            ValueError: the stream is finished already.
        """
        if self._finished:
            raise ValueError("the stream is finished already")
        self._finished = True
        return _joined(self._segments[-1].finish())

    @torch.inference_mode()
    def revise(self) -> Ids:
        """The turn's ids so far, computed anew where a louder sound has changed them since.

        Returns:
            int64 [m]: of all complete blocks, and after `finish` of the whole turn. They are those
            of `SpeechTokenizer.encode`, up to rounding in near-ties.
        """
        return _joined([segment.revise() for segment in self._segments])

    def preview(self) -> Ids:
        """The turn's ids if it ended now; the stream goes on.

        Returns:
            int64 [m]: what `finish` and then `revise` would give.

        Raises:
            ValueError: the stream is finished already.
        """
        ended = copy.copy(self)
        ended._segments = [segment.copy() for segment in self._segments]
        ended.finish()
        return ended.revise()


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _checked(samples: Audio, name: str) -> Audio:
    if isinstance(samples, Tensor):
        samples = samples.numpy(force=True)
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        found = (
            f"{samples.dtype} {list(samples.shape)}"
            if isinstance(samples, np.ndarray)
            else type(samples).__name__
        )
        raise ValueError(f"{name} is {found}, expected a float32 [n] array at 16 kHz")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} has samples that are not finite")
    return samples


def _check_features(features: Mapping[str, Any], path: Path, config: EncoderConfig) -> int:
    """Check preprocessor_config.json against the encoder; returns the samples of a segment."""
    for name in ("feature_size", "hop_length", "n_fft", "n_samples", "sampling_rate"):
        value = field(features, name, int, path)
        if value < 1:
            raise CheckpointError(f"{path}: field {name!r} is {value}, expected at least 1")
    if features["feature_size"] != config.n_mels:
        raise CheckpointError(
            f"{path}: field 'feature_size' is {features['feature_size']}, expected the "
            f"'num_mel_bins' of config.json ({config.n_mels})"
        )
    if features["sampling_rate"] != SAMPLE_RATE:
        raise CheckpointError(
            f"{path}: field 'sampling_rate' is {features['sampling_rate']}, expected {SAMPLE_RATE}"
        )
    if features["n_fft"] % 2 or features["n_fft"] < 2 * features["hop_length"]:
        raise CheckpointError(
            f"{path}: field 'n_fft' is {features['n_fft']}, expected an even number of at least "
            f"twice 'hop_length' ({features['hop_length']})"
        )
    token_samples = features["hop_length"] * CONV_STRIDE * config.pool
    longest = features["hop_length"] * CONV_STRIDE * config.positions
    samples = int(features["n_samples"])
    if samples % token_samples or samples > longest:
        raise CheckpointError(
            f"{path}: field 'n_samples' is {samples}, expected a multiple of {token_samples} that "
            f"is at most {longest}, the 'max_source_positions' of config.json"
        )
    return samples


def _encoder_tensors(path: str | Path, layers: int) -> dict[str, Tensor]:
    """The encoder's tensors under their plain names, layers past the quantiser left out."""
    tensors = {}
    for name, tensor in read_safetensors(path).items():
        plain = name.removeprefix(_OUTER_PREFIX)
        parts = plain.split(".")
        if parts[0] == "layers" and parts[1].isdigit() and int(parts[1]) >= layers:
            continue
        tensors[plain] = tensor
    return tensors
