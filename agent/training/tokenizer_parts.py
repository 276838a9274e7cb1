"""Parts of the speech tokenizer that only its training has: settings, reader, start, quantiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from agent.speech.tokenizer_encoder import EncoderConfig, EncoderLayer, WhisperVQEncoder
from agent.training.recipe import Device, Section
from agent.training.tokenizer_data import CHARACTERS

POSITIONS = 1500
POOL = 4
# Where the heads of a layer look at first, in frames.
_SHIFTS = (-5.0, -1.5, 1.5, 5.0)


class Settings(Section):
    """The recipe's settings; recipe_tokenizer.yaml says what they mean."""

    section = "tokenizer"

    n_mels: int
    width: int
    heads: int
    ffn: int
    layers: int
    codes: int
    block: int
    head_layers: int
    steps: int
    batch_seconds: float
    learning_rate: float
    warmup: int
    weight_decay: float
    clip: float
    continuous: float
    ramp: float
    commitment: float
    ema_decay: float
    restart_after: int
    variation: float
    clean: float
    early: float
    style: float
    shifted: float
    workers: int = 0
    bfloat16: bool
    device: Device = "cpu"
    seed: int

    def encoder(self) -> EncoderConfig:
        """The exported part's sizes."""
        return EncoderConfig(
            n_mels=self.n_mels, width=self.width, layers=self.layers, heads=self.heads,
            ffn=self.ffn, positions=POSITIONS, pool=POOL, codes=self.codes, block=self.block,
        )  # fmt: skip


class Reader(nn.Module):
    """Training's other half: characters, phones and styles from quantised vectors, at 50 Hz."""

    def __init__(self, settings: Settings, phones: int, styles: int):
        super().__init__()
        width = settings.width
        self.spread = nn.Linear(width, POOL * width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, settings.heads, settings.ffn) for _ in range(settings.head_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.characters = nn.Linear(width, 1 + len(CHARACTERS))
        self.phones = nn.Linear(width, phones)
        self.styles = nn.Linear(width, styles)
        # Heads on the encoder's frames, which teach it before its averages and codes say much.
        self.early_norm = nn.LayerNorm(width)
        self.early_characters = nn.Linear(width, 1 + len(CHARACTERS))
        self.early_phones = nn.Linear(width, phones)

    def heads(self) -> Iterator[nn.Parameter]:
        """Parameters of the output layers."""
        for name, parameter in self.named_parameters():
            if name.split(".")[0].removeprefix("early_") in ("characters", "phones", "styles"):
                yield parameter

    def early(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Characters and phones as of `forward`, from the last layer [batch, n, width]."""
        x = self.early_norm(frames)
        return self.early_characters(x), self.early_phones(x)

    def forward(
        self, codes: Tensor, positions: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read quantised vectors.

        Args:
            codes: [batch, n / 4, width].
            positions: [batch or 1, n, width], added at 50 Hz.
            valid: bool [batch, n].

        Returns:
            Logits of blank and characters, of phones, and of the agent's styles: [batch, n, kinds].
        """
        batch, tokens, width = codes.shape
        x = self.spread(codes).view(batch, tokens * POOL, width) + positions
        mask = valid[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        return self.characters(x), self.phones(x), self.styles(x)


def frame_positions(length: int, width: int, rates: int) -> Tensor:
    """Positions that single out a frame and tell where in its token it lies.

    Whisper's sinusoids spread over all channels, most of them slow. Here few channels carry fast
    ones and the phase within the `POOL` frames that are averaged, without which the average
    forgets their order; the other channels are left to the sound.

    Returns:
        float32 [length, width]: sines, cosines, three channels of phase, zeros.
    """
    time = torch.arange(length)[:, None].float()
    angles = time * _rates(rates)
    quarter = time * (math.pi / 2)
    phase = torch.cat([quarter.cos(), quarter.sin(), (2 * quarter).cos()], 1).round()
    table = torch.zeros(length, width)
    carried = torch.cat([angles.sin(), angles.cos(), phase], 1)
    table[:, : carried.shape[1]] = 1.5 * carried
    return table


def _rates(count: int) -> Tensor:
    """Radians a frame, from turns of four frames to turns of a segment's fifth."""
    return torch.logspace(math.log10(1.5), math.log10(0.02), count)


@torch.no_grad()
def look_around(layer: EncoderLayer, shifts: Sequence[float]) -> None:
    """Start a layer's heads so that each attends to frames at a fixed distance.

    The rotation that turns the position of frame t into that of t + shift is linear in the sines
    and cosines of `frame_positions`. So attention need not find its neighbourhood by itself.

    Args:
        layer: One head per shift.
        shifts: Frames, negative for the past.
    """
    attention = layer.self_attn
    head = attention.q_proj.in_features // len(shifts)
    half = head // 2
    rates, sine = _rates(half), torch.arange(half)
    cosine = sine + half
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(0.3)
    query, key = attention.q_proj.weight, attention.k_proj.weight
    for index, shift in enumerate(shifts):
        rows = sine + index * head
        turn = rates * shift
        query[rows, sine] += turn.cos()
        query[rows, cosine] += turn.sin()
        query[rows + half, sine] -= turn.sin()
        query[rows + half, cosine] += turn.cos()
        key[rows, sine] += 1.0
        key[rows + half, cosine] += 1.0


@torch.no_grad()
def start_from(encoder: WhisperVQEncoder, reader: Reader) -> None:
    """Give both halves positions they can use from the first step on."""
    config = encoder.config
    rates = config.width // config.heads // 2
    encoder.embed_positions.weight.copy_(frame_positions(config.positions, config.width, rates))
    for convolution in (encoder.conv1, encoder.conv2):
        convolution.weight.mul_(3.0)  # or else the positions drown the sound
    carried = 2 * rates + 3
    encoder.conv2.weight[:carried] = 0.0
    assert encoder.conv2.bias is not None
    encoder.conv2.bias[:carried] = 0.0
    for layer in (*encoder.layers, *reader.layers):
        assert isinstance(layer, EncoderLayer)
        look_around(layer, _SHIFTS)


class Quantiser:
    """Keeps an encoder's codebook at the running means of what falls to each code."""

    def __init__(self, encoder: WhisperVQEncoder, settings: Settings):
        self.encoder = encoder
        self.decay = settings.ema_decay
        self.restart_after = settings.restart_after
        device = settings.device
        self.ema_count = torch.ones(settings.codes, device=device)
        self.ema_weight = encoder.codebook.weight.data.clone()
        self.unused = torch.zeros(settings.codes, device=device)
        self.collected = torch.zeros(0, settings.width, device=device)

    def state_dict(self) -> dict[str, Tensor]:
        """What resumes it, the codebook aside."""
        return {
            "count": self.ema_count, "weight": self.ema_weight, "unused": self.unused,
            "collected": self.collected,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        self.ema_count, self.ema_weight, self.unused, self.collected = (
            state[name].to(self.unused.device)
            for name in ("count", "weight", "unused", "collected")
        )

    def collect(self, vectors: Tensor) -> None:
        """Keep vectors [n, width] for the start."""
        self.collected = torch.cat([self.collected, vectors])

    def start(self, rounds: int = 12) -> None:
        """Put the codes where k-means finds clusters of the collected vectors."""
        vectors, self.collected = self.collected, self.collected[:0]
        codes = vectors[torch.randperm(len(vectors))[: len(self.ema_count)]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(vectors, codes).argmin(1)
            counts = torch.bincount(nearest, minlength=len(codes)).float()
            sums = torch.zeros_like(codes).index_add_(0, nearest, vectors)
            found = counts > 0
            codes[found] = sums[found] / counts[found, None]
            codes[~found] = vectors[torch.randint(len(vectors), (int((~found).sum()),))]
        self._set(codes)
        self.ema_count.fill_(1.0)
        self.ema_weight = codes.clone()

    @torch.no_grad()
    def _set(self, codes: Tensor) -> None:
        # Not through `.data`: that would hide the change from whoever keeps what follows from it.
        self.encoder.codebook.weight.copy_(codes)

    def update(self, vectors: Tensor, ids: Tensor) -> None:
        """Move the codes towards vectors [n, width] that have been given ids [n]."""
        counts = torch.bincount(ids, minlength=len(self.ema_count)).float()
        sums = torch.zeros_like(self.ema_weight).index_add_(0, ids, vectors)
        self.ema_count.lerp_(counts, 1.0 - self.decay)
        self.ema_weight.lerp_(sums, 1.0 - self.decay)
        self.unused = torch.where(counts > 0, 0.0, self.unused + 1.0)
        dead = (self.unused >= self.restart_after).nonzero()[:, 0][: len(vectors)]
        if len(dead):
            self.ema_weight[dead] = vectors[torch.randperm(len(vectors))[: len(dead)]]
            self.ema_count[dead] = 1.0
            self.unused[dead] = 0.0
        self._set(self.ema_weight / self.ema_count.clamp(min=1e-5)[:, None])
