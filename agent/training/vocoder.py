"""Recipe of the vocoder: copy-synthesis of the agent's voices from their mel.

The generator learns by regression (mel and multi-resolution STFT distances) with the measured pitch
as its source; the pitch predictor learns the measured pitch beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from agent.speech.checkpoint import unfold_weight_norm
from agent.speech.vocoder import Vocoder
from agent.training.data import Corpus
from agent.training.discriminators import (
    Discriminators,
    feature_distance,
    passing,
    telling_apart,
)
from agent.training.loop import Average, Draws, Loop, parameter_count
from agent.training.mel import HOP, SAMPLE_RATE, log_mel, pitch, to_decoder_rate
from agent.training.on_disk import on_disk
from agent.training.recipe import Device, Section
from agent.training.voices import AGENT_VOICES


class Adversarial(Section):
    """The second stage, with discriminators.

    Attributes:
        start: Step it begins at; 0 where a finished vocoder is trained on.
        width: Channels of the discriminators' first layers; 32 as published.
        regression: Weight of the first stage's losses; its mel distance counts twice in them, so
            22.5 gives it HiFi-GAN's 45.
        features: Weight of the distance of the discriminators' features.
    """

    start: int
    width: int = 32
    regression: float = 22.5
    features: float = 2.0


class Training(Section):
    """How a vocoder is trained.

    Attributes:
        batch: Segments in a step.
        frames: Mel frames of a segment.
        average: Decay of the averaged weights.
        adversarial: The second stage; None for none.
    """

    steps: int
    batch: int
    frames: int
    lr: float
    average: float
    bfloat16: bool
    device: Device = "cpu"
    report_every: int
    seed: int
    adversarial: Adversarial | None = None


class Settings(Training):
    """The recipe; ``agent/nano/recipe_vocoder.yaml``.

    Attributes:
        model: The section ``hift`` of the decoder's config.yaml.
    """

    section = "vocoder"

    model: dict[str, Any]


@dataclass(frozen=True)
class Take:
    """One utterance: audio [n], mel [80, f], pitch [f] in Hz."""

    audio: Tensor
    mel: Tensor
    f0: Tensor


def load_takes(corpus: Corpus, voices: Sequence[str], cache: Path, shortest: int) -> list[Take]:
    """Every training utterance of some voices that has at least ``shortest`` frames, memory-mapped.

    The measured features are kept in ``cache``, since the pitch takes a while.

    Raises:
        ValueError: There is none.
    """
    if not cache.is_file():

        def features() -> Iterator[Tensor]:
            for _, utterance in corpus.read(corpus.of_voices(voices, "train")):
                audio = to_decoder_rate(utterance.audio)
                frames = len(audio) // HOP
                if frames >= shortest:
                    wave = torch.from_numpy(audio[: frames * HOP])
                    yield from (wave, log_mel(wave), torch.from_numpy(pitch(audio, frames)))

        parts = on_disk(features())
        if not parts:
            raise ValueError(f"no utterance of {' or '.join(voices)} has {shortest} frames")
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".tmp")
        torch.save([part.clone() for part in parts], partial)
        partial.rename(cache)
    parts = torch.load(cache, weights_only=True, mmap=True)
    return [Take(*parts[first : first + 3]) for first in range(0, len(parts), 3)]


def draw_batch(
    takes: list[Take], batch: int, frames: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random segments: mel [b, 80, frames], f0 [b, frames], audio [b, frames * 256]."""
    lengths = np.array([take.mel.shape[1] for take in takes], dtype=np.float64)
    mels, pitches, waves = [], [], []
    for index in rng.choice(len(takes), size=batch, p=lengths / lengths.sum()):
        take = takes[int(index)]
        begin = int(rng.integers(0, take.mel.shape[1] - frames + 1))
        mels.append(take.mel[:, begin : begin + frames])
        pitches.append(take.f0[begin : begin + frames])
        waves.append(take.audio[begin * HOP : (begin + frames) * HOP])
    return torch.stack(mels), torch.stack(pitches), torch.stack(waves)


def stft_distance(made: Tensor, true: Tensor) -> Tensor:
    """Spectral convergence and log-magnitude distance at four resolutions (arXiv 1910.11480).

    Bins above 8 kHz, where the voice has nothing, do not count; those above the phone's 4 kHz
    count a third, because a caller never hears them.
    """
    total = made.new_zeros(())
    for n_fft in (256, 512, 1024, 2048):
        window = torch.hann_window(n_fft, device=made.device)
        magnitudes = []
        for wave in (made, true):
            spectrum = torch.stft(wave, n_fft, n_fft // 4, window=window, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            magnitudes.append((power + 1e-7).sqrt())
        frequency = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1, device=made.device)
        weight = ((frequency < 4000) * 1.0 + ((frequency >= 4000) & (frequency < 8000)) * 0.33)[
            None, :, None
        ]
        ours, theirs = magnitudes
        convergence = ((ours - theirs) * weight).norm() / (theirs * weight).norm()
        logs = ((ours.log() - theirs.log()).abs() * weight).sum() / (
            weight.sum() * ours.shape[0] * ours.shape[2]
        )
        total = total + convergence + logs
    return total / 4


def pitch_distance(predicted: Tensor, true: Tensor) -> Tensor:
    """L1 in units of 100 Hz, plus the cross-entropy of being on the right side of the threshold."""
    voiced = (true > 0).to(predicted.dtype)
    crossing = F.binary_cross_entropy_with_logits((predicted - 10.0) / 10.0, voiced)
    return (predicted - true).abs().mean() / 100 + 0.3 * crossing


def _convolutions(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and "source_downs" not in name
    ]


def initialise(model: Vocoder, seed: int) -> None:
    """Small normal weights in the filter's convolutions, as HiFi-GAN starts (arXiv 2010.05646)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and not name.startswith(("conv_pre", "f0_predictor")):
            nn.init.normal_(parameter, 0.0, 0.01, generator=generator)


def export(model: Vocoder, config: dict[str, Any], directory: Path) -> None:
    """Write ``hift.pt`` (fp16) and the ``hift`` section of ``config.yaml``, as published."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [n for n, m in model.named_modules() if m in set(_convolutions(model))]
    tensors = unfold_weight_norm(model.state_dict(), names)
    torch.save({name: value.half().cpu() for name, value in tensors.items()}, directory / "hift.pt")
    path = directory / "config.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    whole = {"sample_rate": SAMPLE_RATE, "spk_embed_dim": 192} | whole | {"hift": config}
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")


def run(settings: Settings, corpus: Corpus, out: Path, to: Path | None) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        corpus: Recordings of the agent's voices.
        out: Directory of the training.
        to: Directory of the decoder checkpoint to write; None to write none.

    Raises:
        CheckpointError: The recipe's ``model`` is none.
        ValueError: The corpus has no utterance to learn from.
    """
    torch.manual_seed(settings.seed)  # the parts that start as torch starts them
    model = Vocoder.from_config(settings.model, "settings")
    initialise(model, settings.seed)
    takes = load_takes(corpus, tuple(AGENT_VOICES.values()), out / "takes.pt", settings.frames + 1)
    average = train(settings, model, takes, out)
    if to:
        average.copy_to(model)
        plain(model)
        export(model, settings.model, to)


class Critic:
    """The discriminators of a training and their optimiser."""

    def __init__(self, settings: Adversarial, lr: float, seed: int, device: str):
        self._settings = settings
        torch.manual_seed(seed)
        self.discriminators = Discriminators(settings.width).to(device)
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=0.01
        )

    def parts(self) -> dict[str, Any]:
        """What is saved of them."""
        return {"discriminators": self.discriminators, "critic": self.optimizer}

    def judge(
        self, loop: Loop, made: Tensor, wave: Tensor, regression: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Let the discriminators learn, and give the generator its loss.

        Returns:
            The generator's loss, and the discriminators' own.
        """
        apart = telling_apart(self.discriminators(wave), self.discriminators(made.detach()))
        loop.update(self.optimizer, apart, clip=5.0)
        self.discriminators.requires_grad_(False)
        true, ours = self.discriminators(wave), self.discriminators(made)
        self.discriminators.requires_grad_(True)
        settings = self._settings
        loss = passing(ours) + settings.features * feature_distance(true, ours)
        return loss + settings.regression * regression, apart.detach()


def train(settings: Training, model: Vocoder, takes: list[Take], out: Path) -> Average:
    """Train a vocoder on takes, or go on where a stopped run was.

    Its convolutions are weight-normed here, and stay so until :func:`plain`.

    Returns:
        The averaged weights.
    """
    for module in _convolutions(model):
        weight_norm(module)
    model.to(settings.device)
    average = Average(model, settings.average)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.8, 0.99), weight_decay=0.01
    )
    stage = settings.adversarial
    critic = Critic(stage, settings.lr, settings.seed, settings.device) if stage else None
    parts = {"model": model, "optimizer": optimizer, "average": average}
    parts |= critic.parts() if critic else {}
    loop = Loop(out, settings.steps, settings.lr, parts, settings.seed)
    seconds = sum(len(take.audio) for take in takes) / SAMPLE_RATE
    print(
        f"{parameter_count([model]):,} parameters, {len(takes)} utterances, {seconds / 60:.1f} min"
    )
    sums = torch.zeros(4)
    model.train()
    while loop.step < loop.steps:
        draws = loop.begin()
        drawn = draw_batch(takes, settings.batch, settings.frames, draws.numpy)
        mel, f0, wave = (part.to(settings.device) for part in drawn)
        predicted = model.f0(mel)
        # Late in the training the filter also meets the pitch it will be given when it serves.
        late = loop.step > loop.steps // 2 and draws.numpy.random() < 0.3
        made = synthesise(model, mel, predicted.detach() if late else f0, draws, settings.bfloat16)
        mel_loss = (log_mel(made) - mel).abs().mean()
        stft_loss = stft_distance(made, wave)
        f0_loss = pitch_distance(predicted, f0)
        loss = 2 * mel_loss + stft_loss + f0_loss
        apart = loss.new_zeros(())
        if critic and stage and loop.step >= stage.start:
            loss, apart = critic.judge(loop, made, wave, loss)
        loop.advance(optimizer, loss, clip=5.0)
        average.update(model, loop.step)
        sums += torch.stack([mel_loss, stft_loss, f0_loss, apart]).detach().cpu()
        if loop.step % settings.report_every == 0:
            mean = (sums / settings.report_every).tolist()
            figures = dict(zip(("mel", "stft", "f0", "apart"), mean, strict=True))
            loop.report(**figures)
            sums.zero_()
    loop.save()
    return average


def plain(model: Vocoder) -> None:
    """Turn weight-normed convolutions back into plain ones."""
    for module in _convolutions(model):
        remove_parametrizations(module, "weight")


def synthesise(model: Vocoder, mel: Tensor, f0: Tensor, draws: Draws, bfloat16: bool) -> Tensor:
    """Audio [b, frames * 256] of mel [b, 80, frames] with a source at f0 [b, frames], in Hz."""
    phase = model.draw_phase(draws.torch).to(mel.device).expand(len(mel), -1)
    noise = torch.randn(
        len(mel), model.config.nb_harmonics + 1, mel.shape[-1] * HOP, generator=draws.torch
    ).to(mel.device)
    source = model.source(f0, phase, noise)
    with torch.autocast(mel.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        made: Tensor = model(mel, source)
    return made
