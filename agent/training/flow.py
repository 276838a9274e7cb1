"""Recipe of the flow: speech tokens to the mel of the agent's voice.

Tokens come from the speech tokenizer, over the phone's band as everywhere; mels are of the wide-
band recording. While the tokenizer is still being trained, a first stage runs on stand-in codes
(k-means of the mel): what the flow learns of the voice does not depend on which codes lead it. The
run is stopped, and resumed with ``--tokenizer`` for the rest.

Windows are cut as a stream cuts them: they begin at the border of an encoder block, mostly end at
one, and in part have the mel of their first blocks given.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
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
from agent.training.voices import AGENT_VOICE

TOKEN_SAMPLES = 1280  # of 16 kHz audio


@dataclass(frozen=True)
class Take:
    """One utterance: ids int64 [n], log mel float32 [80, frames], whether the agent answers so."""

    tokens: Tensor
    mel: Tensor
    answer: bool


@dataclass(frozen=True)
class Batch:
    """Windows of one length: tokens [b, n], normalised mel and prompt [b, 80, f]."""

    tokens: Tensor
    mel: Tensor
    prompt: Tensor


class StandIn:
    """Codes for a first stage: clusters of the mel over a token's first and second half."""

    def __init__(self, corpus: Corpus, codes: int, seed: int, rounds: int = 15) -> None:
        train = corpus.indices(voice=AGENT_VOICE, split="train")
        vectors = torch.cat([self._describe(corpus[index].audio) for index in train])
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
    corpus: Corpus, encode: Callable[[Audio], Tensor], flow: Flow, split: str
) -> list[Take]:
    """The utterances of the agent's voice in a split."""
    takes = []
    for index in corpus.indices(voice=AGENT_VOICE, split=split):
        utterance = corpus[index]
        tokens = encode(utterance.audio)
        frames = flow.frames(len(tokens))
        audio = torch.from_numpy(to_decoder_rate(utterance.audio))
        # The last token may reach past the end of the recording.
        audio = F.pad(audio, (0, max(0, frames * HOP - len(audio))))[: frames * HOP]
        takes.append(Take(tokens, log_mel(audio), utterance.role == "agent"))
    if not takes:
        raise ValueError(f"no utterance of voice {AGENT_VOICE!r} in split {split!r}")
    return takes


class Windows:
    """Draws batches of windows of equal length from utterances."""

    def __init__(self, takes: list[Take], flow: Flow, lengths: list[int], seed: int) -> None:
        self.takes, self.flow, self.lengths = takes, flow, lengths
        self.rng = np.random.default_rng(seed)

    def draw(self, size: int, answers: float = 1.0) -> Batch:
        """Draw ``size`` windows; ``answers`` of the agent's answers for one of anything else."""
        rng, flow = self.rng, self.flow
        block = flow.config.encoder.block_size
        count = int(rng.choice(self.lengths))
        if rng.random() < 0.3:
            count -= int(rng.integers(1, block))
        long_enough = [take for take in self.takes if len(take.tokens) >= count]
        weights = np.array(
            [(answers if take.answer else 1.0) * len(take.tokens) for take in long_enough]
        )
        frames = flow.frames(count)
        tokens, mels, prompts = [], [], []
        for index in rng.choice(len(long_enough), size=size, p=weights / weights.sum()):
            take = long_enough[int(index)]
            begin = block * int(rng.integers(0, (len(take.tokens) - count) // block + 1))
            first = flow.frames(begin)
            mel = (take.mel[:, first : first + frames] - flow.config.mel_mean) / flow.config.mel_std
            prompt = torch.zeros_like(mel)
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
        return Batch(torch.stack(tokens), torch.stack(mels), torch.stack(prompts))


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
        Mean squared error of the velocity and L1 distance of ``condition`` from the mel.
    """
    size = len(batch.mel)
    mu = flow.condition(batch.tokens, batch.mel.shape[-1])
    time = 1 - torch.cos(torch.rand(size, generator=generator) * (0.5 * math.pi))
    noise = torch.randn(batch.mel.shape, generator=generator)
    led = (torch.rand(size, generator=generator) >= hidden).to(mu.dtype)
    at = time[:, None, None]
    velocity = flow.velocity(
        (1 - at) * noise + at * batch.mel, time, mu.to(noise.dtype), batch.prompt, led
    )
    matching = F.mse_loss(velocity.float(), batch.mel - noise)
    return matching, (mu.float() - batch.mel).abs().mean()


@torch.no_grad()
def judge(flow: Flow, takes: list[Take], lengths: list[int], batches: int = 12) -> dict[str, float]:
    """Losses on held-out utterances, with the same windows, times and noise at every call."""
    windows = Windows(takes, flow, lengths, seed=0)
    generator = torch.Generator().manual_seed(0)
    flow.eval()
    figures = [flow_losses(flow, windows.draw(8), 0.0, generator) for _ in range(batches)]
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


def export(flow: Flow, settings: dict[str, Any], directory: Path) -> None:
    """Write ``flow.pt`` (fp16) and the sections ``flow`` and ``decoding`` of ``config.yaml``.

    A section of another recipe that is already there stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half() for name, value in flow.state_dict().items()}
    torch.save(tensors, directory / "flow.pt")
    path = directory / "config.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ours = {"flow": settings["model"], "decoding": settings["decoding"]}
    whole = {"sample_rate": SAMPLE_RATE, "spk_embed_dim": 192} | whole | ours
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Train, reporting to the terminal; ``--export`` writes the averaged weights at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--tokenizer", type=Path, help="its checkpoint; without it, the first stage"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="directory of the decoder checkpoint")
    arguments = parser.parse_args()
    settings = yaml.safe_load(arguments.settings.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])  # this process is the training's own
    flow = Flow(FlowConfig.from_mapping(settings["model"], SAMPLE_RATE, arguments.settings))
    initialise(flow, settings["seed"])
    average = Average(flow, settings["average"])
    optimizer = torch.optim.AdamW(
        flow.parameters(), lr=settings["lr"], betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    parts = {"model": flow, "optimizer": optimizer, "average": average}
    loop = Loop(arguments.out, settings["steps"], settings["lr"], parts)

    corpus = Corpus(arguments.data)
    encode = (
        phone_tokens(SpeechTokenizer.from_pretrained(arguments.tokenizer))
        if arguments.tokenizer
        else StandIn(corpus, flow.config.vocab_size, settings["seed"])
    )
    takes = load_takes(corpus, encode, flow, "train")
    held_out = load_takes(corpus, encode, flow, "held_out")
    minutes = sum(take.mel.shape[1] for take in takes) * HOP / SAMPLE_RATE / 60
    print(f"{parameter_count([flow]):,} parameters, {len(takes)} utterances, {minutes:.1f} min")

    windows = Windows(takes, flow, settings["lengths"], settings["seed"] + loop.step)
    generator = torch.Generator().manual_seed(settings["seed"] + loop.step)
    hidden = settings["model"]["decoder"]["cfm_params"]["content"]["training_cfg_rate"]
    sums, counted = torch.zeros(2), 0
    flow.train()
    while loop.step < loop.steps:
        answers = [weight for step, weight in settings["answers"] if step <= loop.step][-1]
        batch = windows.draw(settings["batch"], answers)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings["bfloat16"]):
            matching, prior = flow_losses(flow, batch, hidden, generator)
        loop.advance(optimizer, matching + settings["prior"] * prior)
        average.update(flow, loop.step)
        sums += torch.stack([matching, prior]).detach()
        counted += 1
        if loop.step % settings["report_every"] == 0:
            mean = (sums / counted).tolist()
            figures = {"matching": mean[0], "prior": mean[1]}
            if loop.step % settings["judge_every"] == 0:
                figures |= judge(flow, held_out, settings["lengths"])
            loop.report(**figures)
            sums, counted = torch.zeros(2), 0
    loop.save()
    if arguments.export:
        average.copy_to(flow)
        export(flow, settings, arguments.export)


if __name__ == "__main__":
    main()
