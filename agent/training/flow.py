"""Recipe of the flow: speech tokens to the mel of the agent's voices, one a language.

Tokens come from the speech tokenizer, over the phone's band as everywhere; mels are of the wide-
band recording. While the tokenizer is still being trained, a first stage runs on stand-in codes
(k-means of the mel): what the flow learns of the voice does not depend on which codes lead it. The
run is stopped, and resumed with ``--tokenizer`` for the rest.

Windows are cut as a stream cuts them: they begin at the border of an encoder block, mostly end at
one, and in part have the mel of their first blocks given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from agent.sound import Audio, phone_band
from agent.speech.flow import Flow, FlowConfig
from agent.speech.tokenizer import SpeechTokenizer
from agent.training.data import Corpus
from agent.training.loop import Average, Loop, parameter_count
from agent.training.mel import HOP, SAMPLE_RATE, log_mel, to_decoder_rate
from agent.training.muon import named, optimizers
from agent.training.on_disk import on_disk
from agent.training.recipe import Device, Section
from agent.training.voices import AGENT_VOICES

TOKEN_SAMPLES = 1280  # of 16 kHz audio


class Training(Section):
    """How a flow is trained.

    Attributes:
        batch: Windows in a step.
        lengths: Tokens of a window; those that no utterance has are left out.
        answers: From a step on, how often an answer of the agent is drawn for each time another
            utterance is.
        prior: Weight of the L1 distance of the encoder's mel.
        hidden: Share of the windows whose conditions are hidden, for guidance.
        average: Decay of the averaged weights.
    """

    steps: int
    batch: int
    lengths: list[int]
    answers: list[tuple[int, float]] = [(0, 1.0)]  # noqa: RUF012
    prior: float
    hidden: float = 0.2
    lr: float
    average: float
    bfloat16: bool
    device: Device = "cpu"
    report_every: int
    judge_every: int
    seed: int

    def answers_at(self, step: int) -> float:
        """How much more often than others the agent's answers are drawn at a step."""
        return [weight for first, weight in self.answers if first <= step][-1]


class Settings(Training):
    """The recipe; see the comments of ``agent/nano/recipe_flow.yaml``.

    Attributes:
        model: The section ``flow`` of the decoder's config.yaml.
        decoding: How the result is run: the section of that name.
    """

    section = "flow"

    model: dict[str, Any]
    decoding: dict[str, int | float]


@dataclass(frozen=True)
class Take:
    """One utterance: ids int64 [n], log mel float32 [80, frames], whether the agent answers so."""

    tokens: Tensor
    mel: Tensor
    answer: bool


@dataclass(frozen=True)
class Batch:
    """Windows of one length: tokens [b, n], normalised mel and prompt [b, 80, f].

    Attributes:
        known: int64 [b], frames at the beginning whose mel the prompt gives.
    """

    tokens: Tensor
    mel: Tensor
    prompt: Tensor
    known: Tensor


class StandIn:
    """Codes for a first stage: clusters of the mel over a token's first and second half."""

    def __init__(self, corpus: Corpus, codes: int, seed: int, rounds: int = 15) -> None:
        train = corpus.of_voices(AGENT_VOICES.values(), "train")
        vectors = torch.cat([self._describe(u.audio) for _, u in corpus.read(train)])
        generator = torch.Generator().manual_seed(seed)
        self.centres = vectors[torch.randperm(len(vectors), generator=generator)[:codes]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(vectors, self.centres).argmin(1)
            counts = torch.bincount(nearest, minlength=codes)
            sums = torch.zeros_like(self.centres).index_add_(0, nearest, vectors)
            found = counts > 0
            self.centres[found] = sums[found] / counts[found, None]

    @staticmethod
    def _describe(audio: Audio) -> Tensor:
        tokens = -(-len(audio) // TOKEN_SAMPLES)
        mel = log_mel(torch.from_numpy(to_decoder_rate(np.pad(audio, (0, TOKEN_SAMPLES)))))
        mel = F.interpolate(mel[None, :, : round(tokens * 6.890625)], size=4 * tokens)[0]
        halves = mel.reshape(len(mel), tokens, 2, 2).mean(dim=-1)
        return halves.permute(1, 0, 2).flatten(1)

    def __call__(self, audio: Audio) -> Tensor:
        """Codes int64 [n] of float32 audio at 16 kHz."""
        return torch.cdist(self._describe(audio), self.centres).argmin(1)


def phone_tokens(tokenizer: SpeechTokenizer) -> Callable[[Audio], Tensor]:
    """The finished tokenizer's codes, heard through a clean phone line."""
    return lambda audio: torch.from_numpy(tokenizer.encode([phone_band(audio)])[0])


def load_takes(
    corpus: Corpus,
    encode: Callable[[Audio], Tensor],
    flow: Flow,
    split: str,
    voices: Sequence[str] = tuple(AGENT_VOICES.values()),
) -> list[Take]:
    """The utterances of some voices in a split.

    Raises:
        ValueError: There is none.
    """
    tokens: list[Tensor] = []
    answers: list[bool] = []

    def mels() -> Iterator[Tensor]:
        for _, utterance in corpus.read(corpus.of_voices(voices, split)):
            tokens.append(encode(utterance.audio))
            answers.append(utterance.role == "agent")
            frames = flow.frames(len(tokens[-1]))
            audio = torch.from_numpy(to_decoder_rate(utterance.audio))
            # The last token may reach past the end of the recording.
            yield log_mel(F.pad(audio, (0, max(0, frames * HOP - len(audio))))[: frames * HOP])

    takes = [Take(*parts) for parts in zip(tokens, on_disk(mels()), answers, strict=True)]
    if not takes:
        raise ValueError(f"no utterance of {' or '.join(voices)} in split {split!r}")
    return takes


class Windows:
    """Draws batches of windows of equal length from utterances.

    Raises:
        ValueError: No utterance is as long as the shortest window.
    """

    def __init__(self, takes: list[Take], flow: Flow, lengths: list[int]) -> None:
        self.takes, self.flow = takes, flow
        longest = max(len(take.tokens) for take in takes)
        self.lengths = [length for length in lengths if length <= longest]
        if not self.lengths:
            raise ValueError(
                f"the longest utterance has {longest} tokens, the shortest window {min(lengths)}"
            )

    def draw(self, rng: np.random.Generator, size: int, answers: float = 1.0) -> Batch:
        """Draw ``size`` windows; ``answers`` of the agent's answers for one of anything else."""
        flow = self.flow
        block = flow.config.encoder.block_size
        count = int(rng.choice(self.lengths))
        if rng.random() < 0.3:
            count -= int(rng.integers(1, block))
        long_enough = [take for take in self.takes if len(take.tokens) >= count]
        weights = np.array(
            [(answers if take.answer else 1.0) * len(take.tokens) for take in long_enough]
        )
        frames = flow.frames(count)
        tokens, mels, prompts, given = [], [], [], []
        for index in rng.choice(len(long_enough), size=size, p=weights / weights.sum()):
            take = long_enough[int(index)]
            begin = block * int(rng.integers(0, (len(take.tokens) - count) // block + 1))
            first = flow.frames(begin)
            mel = (take.mel[:, first : first + frames] - flow.config.mel_mean) / flow.config.mel_std
            prompt, known = torch.zeros_like(mel), 0
            # A stream's window that does not begin the answer always has a prompt.
            if count > block and rng.random() < (0.8 if begin else 0.4):
                blocks = (count - 1) // block
                led = blocks if rng.random() < 0.7 else int(rng.integers(1, blocks + 1))
                known = flow.frames(begin + led * block) - first
                # What a stream is led by is its own work, not the recording.
                spoilt = torch.from_numpy(rng.standard_normal((len(mel), known))).float()
                prompt[:, :known] = mel[:, :known] + float(rng.uniform(0.0, 0.15)) * spoilt
            tokens.append(take.tokens[begin : begin + count])
            mels.append(mel)
            prompts.append(prompt)
            given.append(known)
        return Batch(
            torch.stack(tokens), torch.stack(mels), torch.stack(prompts), torch.tensor(given)
        )


def flow_losses(
    flow: Flow, batch: Batch, hidden: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Conditional flow matching (arXiv 2210.02747) and the encoder's own distance from the mel.

    Args:
        flow: In training or eval mode.
        batch: The windows.
        hidden: Share of the windows whose conditions are hidden, for guidance.
        generator: Of the times, the noise and the hiding.

    Returns:
        Mean squared error of the velocity where no prompt says what comes, which is all that a
        stream keeps, and L1 distance of ``condition`` from the mel.
    """
    device = next(flow.parameters()).device
    size, mel = len(batch.mel), batch.mel.to(device)
    mu = flow.condition(batch.tokens.to(device), mel.shape[-1])
    # Drawn where the generator is, so that a seed means the same on every device.
    time = 1 - torch.cos(torch.rand(size, generator=generator).to(device) * (0.5 * math.pi))
    noise = torch.randn(mel.shape, generator=generator).to(device)
    led = (torch.rand(size, generator=generator) >= hidden).to(device, mu.dtype)
    at = time[:, None, None]
    state = (1 - at) * noise + at * mel
    velocity = flow.velocity(state, time, mu.to(noise.dtype), batch.prompt.to(device), led)
    known = torch.where(led.bool(), batch.known.to(device), 0)
    new = (torch.arange(mel.shape[-1], device=device) >= known[:, None]).float()
    errors = (velocity.float() - (mel - noise)).square().mean(1)
    matching = (errors * new).sum() / new.sum()
    return matching, (mu.float() - mel).abs().mean()


@torch.no_grad()
def judge(flow: Flow, takes: list[Take], lengths: list[int], batches: int = 12) -> dict[str, float]:
    """Losses on held-out utterances, with the same windows, times and noise at every call."""
    windows = Windows(takes, flow, lengths)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    flow.eval()
    figures = [flow_losses(flow, windows.draw(rng, 8), 0.0, generator) for _ in range(batches)]
    flow.train()
    return {
        "held_out_matching": float(sum(m for m, _ in figures)) / batches,
        "held_out_prior": float(sum(p for _, p in figures)) / batches,
    }


def initialise(flow: Flow, seed: int) -> None:
    """Kaiming-normal weights in the estimator, as Matcha-TTS starts; zero where it ends."""
    generator = torch.Generator().manual_seed(seed)
    for module in flow.decoder.estimator.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    torch.nn.init.zeros_(flow.decoder.estimator.final_proj.weight)


def export(flow: Flow, model: dict[str, Any], decoding: dict[str, Any], directory: Path) -> None:
    """Write ``flow.pt`` (fp16) and the sections ``flow`` and ``decoding`` of ``config.yaml``.

    A section of another recipe that is already there stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().cpu() for name, value in flow.state_dict().items()}
    torch.save(tensors, directory / "flow.pt")
    path = directory / "config.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ours = {"flow": model, "decoding": decoding}
    whole = {"sample_rate": SAMPLE_RATE, "spk_embed_dim": 192} | whole | ours
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")


def run(
    settings: Settings, corpus: Corpus, tokenizer: Path | None, out: Path, to: Path | None
) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        corpus: Recordings of the agent's voices.
        tokenizer: The finished tokenizer's checkpoint; None for a first stage on stand-in codes.
        out: Directory of the training.
        to: Directory of the decoder checkpoint to write; None to write none.

    Raises:
        CheckpointError: The recipe's ``model`` is none.
        ValueError: The corpus has no utterance to learn from.
    """
    torch.manual_seed(settings.seed)  # the parts that start as torch starts them
    flow = Flow(FlowConfig.from_mapping(settings.model, SAMPLE_RATE, "settings"))
    initialise(flow, settings.seed)
    encode = (
        phone_tokens(SpeechTokenizer.from_pretrained(tokenizer))
        if tokenizer
        else StandIn(corpus, flow.config.vocab_size, settings.seed)
    )
    takes = load_takes(corpus, encode, flow, "train")
    held_out = load_takes(corpus, encode, flow, "held_out")
    average = train(settings, flow, takes, held_out, out)
    if to:
        average.copy_to(flow)
        export(flow, settings.model, settings.decoding, to)


def train(
    settings: Training, flow: Flow, takes: list[Take], held_out: list[Take], out: Path
) -> Average:
    """Train a flow on takes, or go on where a stopped run was.

    Returns:
        The averaged weights.
    """
    flow.to(settings.device)
    average = Average(flow, settings.average)
    using = optimizers(flow, flow.input_embedding.parameters(), settings.lr, weight_decay=0.01)
    parts = {"model": flow, "average": average, **named(using)}
    loop = Loop(out, settings.steps, settings.lr, parts, settings.seed)
    minutes = sum(take.mel.shape[1] for take in takes) * HOP / SAMPLE_RATE / 60
    print(f"{parameter_count([flow]):,} parameters, {len(takes)} utterances, {minutes:.1f} min")
    windows = Windows(takes, flow, settings.lengths)
    sums, counted = torch.zeros(2), 0
    flow.train()
    while loop.step < loop.steps:
        draws = loop.begin()
        batch = windows.draw(draws.numpy, settings.batch, settings.answers_at(loop.step))
        with torch.autocast(
            torch.device(settings.device).type, torch.bfloat16, enabled=settings.bfloat16
        ):
            matching, prior = flow_losses(flow, batch, settings.hidden, draws.torch)
        loop.advance(using, matching + settings.prior * prior)
        average.update(flow, loop.step)
        sums += torch.stack([matching, prior]).detach().cpu()
        counted += 1
        if loop.step % settings.report_every == 0:
            mean = (sums / counted).tolist()
            figures = {"matching": mean[0], "prior": mean[1]}
            if loop.step % settings.judge_every == 0:
                figures |= judge(flow, held_out, settings.lengths)
            loop.report(**figures)
            sums, counted = torch.zeros(2), 0
    loop.save()
    return average
