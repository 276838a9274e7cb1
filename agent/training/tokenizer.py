"""Trains the nano speech tokenizer from nothing and exports it in the published layout.

``python -m agent.training.tokenizer --settings RECIPE --data DIR --out DIR``, where RECIPE is
agent/nano/recipe_tokenizer.yaml.

The encoder of `agent.speech.tokenizer_encoder` learns speech recognition through its quantiser, as
the published tokenizer did: codes -> up-sampling by 4 -> transformer layers -> CTC over characters
(Graves 2006), plus cross-entropy over phones at 50 Hz where the synthesiser told them. The same two
losses on the frames before pooling teach the encoder before its codes say much. Augmentation grows
from nothing: at full strength from the first step on, next to nothing is learnt. The quantiser is
switched on after a while: k-means start, codebook by exponential moving averages, restart of dead
codes (van den Oord 2017, appendix A.1; Dhariwal 2020), straight-through gradient.

OUT/last.pt resumes, OUT/log.jsonl tells the losses and the held-out character error, OUT/export
holds the checkpoint, OUT/DONE appears at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from agent.evaluation.text import edit_distance
from agent.speech.features import LogMel, normalise
from agent.speech.tokenizer_encoder import WhisperVQEncoder
from agent.training.augment import mask_spectrum, running_maximum
from agent.training.data import SAMPLE_RATE, Corpus
from agent.training.tokenizer_data import FRAME_SAMPLES, IGNORED, Batch, Loader
from agent.training.tokenizer_parts import (
    POOL,
    POSITIONS,
    Quantiser,
    Reader,
    Settings,
    start_from,
)

LOG_EVERY, SAVE_EVERY, JUDGE_EVERY = 50, 250, 1000


class Trainer:
    """One run: the modules, what is optimised, and where it has got to."""

    def __init__(self, settings: Settings, corpus: Corpus, out: Path):
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.out = out
        self.loader = Loader(corpus, settings.batch_seconds)
        self.train_indices = corpus.indices(split="train")
        held_out = corpus.indices(split="held_out")
        self.judged = {
            "seen": [i for i in held_out if corpus[i].seen_voice and corpus[i].role == "caller"],
            "unseen": [i for i in held_out if not corpus[i].seen_voice],
            "agent": [i for i in held_out if corpus[i].voice == "flite:slt"],
        }
        self.judged = {
            name: found[:: max(1, len(found) // 150)] for name, found in self.judged.items()
        }
        self.log_mel = LogMel(settings.n_mels)
        self.encoder = WhisperVQEncoder(settings.encoder())
        self.reader = Reader(settings, max(1, len(self.loader.phone_names)))
        start_from(self.encoder, self.reader)
        self.quantiser = Quantiser(self.encoder, settings)
        self.parameters = [
            p for p in [*self.encoder.parameters(), *self.reader.parameters()] if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.step = 0
        self.switch = int(settings.continuous * settings.steps)
        self.collected: list[Tensor] = []

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero."""
        settings = self.settings
        warm = min(1.0, (self.step + 1) / settings.warmup)
        return (
            settings.learning_rate
            * warm
            * 0.5
            * (1.0 + math.cos(math.pi * self.step / settings.steps))
        )

    def strength(self) -> float:
        """How far the variations go by now: none at first, or else nothing is learnt for long."""
        return self.settings.variation * min(1.0, 2.0 * self.step / self.settings.steps)

    def features(self, batch: Batch, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Normalised log-mel [batch, n_mels, 2 n] and which of n frames are no padding."""
        raw = self.log_mel.whole(batch.audio)
        maximum = raw.amax(dim=(1, 2), keepdim=True)
        if rng is not None:
            # A stream clamps at the maximum so far: let the codes not depend on which it is.
            streamed = torch.from_numpy(rng.random((len(raw), 1, 1)) < 0.5)
            maximum = torch.where(streamed, running_maximum(raw, 2 * self.settings.block), maximum)
        mel = normalise(raw, maximum)
        frames = torch.arange(batch.audio.shape[1] // FRAME_SAMPLES)
        valid = frames * FRAME_SAMPLES < batch.samples[:, None]
        return (mel if rng is None else mask_spectrum(mel, rng, self.strength())), valid

    def forward(
        self, mel: Tensor, valid: Tensor, offset: int, train: bool
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Logits of characters and phones, early and through the codes, and the commitment loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16 and train):
            frames = self.encoder.frames(mel, valid, offset)
            early = self.reader.early(frames)
        hidden = self.encoder.pool(frames.float())
        real = valid[:, ::POOL]
        commitment = hidden.new_zeros(())
        codes = hidden
        if self.step >= self.switch:
            flat = hidden.detach()
            ids = self.encoder.quantise(flat)
            chosen = self.encoder.codebook(ids)
            commitment = functional.mse_loss(hidden[real], chosen[real])
            codes = hidden + (chosen - flat)
            if train:
                self.quantiser.update(flat[real], ids[real])
        elif train and self.step >= self.switch - 80:
            self.collected.append(hidden.detach()[real])
        positions = self.encoder.embed_positions.weight[offset : offset + valid.shape[1]]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16 and train):
            late = self.reader(codes, positions[None], valid)
        return [early, late], commitment

    def optimise(self, batch: Batch, rng: np.random.Generator) -> dict[str, float]:
        """One step; returns the losses."""
        mel, valid = self.features(batch, rng)
        # Any position may be the first: turns are longer than the sentences of the corpus.
        offset = 0
        if 3 * self.step > self.settings.steps and rng.random() < 0.5:
            offset = POOL * int(rng.integers(0, (POSITIONS - valid.shape[1]) // POOL + 1))
        heads, commitment = self.forward(mel, valid, offset, train=True)
        losses: list[tuple[Tensor, Tensor]] = []
        for characters, phones in heads:
            ctc = functional.ctc_loss(
                characters.float().log_softmax(-1).transpose(0, 1), batch.texts, valid.sum(1),
                batch.lengths, zero_infinity=True,
            )  # fmt: skip
            phone = functional.cross_entropy(
                phones.float().flatten(0, 1), batch.phones.flatten(), ignore_index=IGNORED,
                reduction="sum",
            ) / max(1, int((batch.phones != IGNORED).sum()))  # fmt: skip
            losses.append((ctc, phone))
        (early_ctc, early_phone), (ctc, phone) = losses
        loss = ctc + phone + self.settings.commitment * commitment
        loss = loss + self.settings.early * (early_ctc + early_phone)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.optimizer.step()
        self.step += 1
        if self.step == self.switch:
            self.quantiser.start(torch.cat(self.collected))
            self.collected = []
        return {
            "ctc": ctc.item(), "phone": phone.item(), "early_ctc": early_ctc.item(),
            "early_phone": early_phone.item(), "commitment": commitment.item(),
        }  # fmt: skip

    @torch.inference_mode()
    def judge(self) -> dict[str, Any]:
        """Held-out character error through the quantiser and a clean phone line, greedy CTC."""
        result: dict[str, Any] = {}
        used: list[Tensor] = []
        for name, indices in self.judged.items():
            wrong = total = 0
            for start in range(0, len(indices), 16):
                batch = self.loader.batch(indices[start : start + 16], None)
                mel, valid = self.features(batch, None)
                if self.step >= self.switch:
                    used.append(self.encoder.quantise(self.encoder(mel, valid))[valid[:, ::POOL]])
                best = self.forward(mel, valid, 0, train=False)[0][1][0].argmax(-1)
                texts = torch.split(batch.texts, batch.lengths.tolist())
                for row, real, text in zip(best, valid, texts, strict=True):
                    path = torch.unique_consecutive(row[real])
                    wrong += edit_distance(path[path > 0].tolist(), text.tolist())
                    total += len(text)
            if total:
                result[f"character_error_{name}"] = round(wrong / total, 4)
        if used:
            share = torch.bincount(torch.cat(used), minlength=self.settings.codes).float()
            share = share[share > 0] / share.sum()
            result["codes_used"] = len(share)
            result["perplexity"] = round(float(torch.exp(-(share * share.log()).sum())), 1)
        return result

    def save(self) -> None:
        """Write last.pt, never half of it."""
        state = {
            "encoder": self.encoder.state_dict(),
            "reader": self.reader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "quantiser": self.quantiser.state(),
            "collected": self.collected,
            "step": self.step,
        }
        torch.save(state, self.out / "last.tmp")
        (self.out / "last.tmp").replace(self.out / "last.pt")

    def resume(self) -> None:
        """Go on from last.pt, if there is one."""
        path = self.out / "last.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.encoder.load_state_dict(state["encoder"])
        self.reader.load_state_dict(state["reader"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.quantiser.load(state["quantiser"])
        self.collected = state["collected"]
        self.step = state["step"]

    def log(self, **entry: Any) -> None:
        """Append to log.jsonl and show."""
        line = json.dumps({"step": self.step, **entry})
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def batches(self) -> Iterator[tuple[list[int], np.random.Generator]]:
        """Plans without end; a resumed run starts a new epoch."""
        rng = np.random.default_rng((self.settings.seed, self.step))
        while True:
            for plan in self.loader.plan(self.train_indices, rng):
                yield plan, rng

    def run(self) -> None:
        """Train to the end and export."""
        self.resume()
        began, first, seconds = time.time(), self.step, 0.0
        sums: dict[str, float] = {}
        for plan, rng in self.batches():
            if self.step >= self.settings.steps:
                break
            batch = self.loader.batch(plan, rng, self.strength(), self.settings.clean)
            seconds += float(batch.samples.sum()) / SAMPLE_RATE
            for name, value in self.optimise(batch, rng).items():
                sums[name] = sums.get(name, 0.0) + value / LOG_EVERY
            if self.step % LOG_EVERY == 0:
                spent = time.time() - began
                left = spent / (self.step - first) * (self.settings.steps - self.step)
                losses = {name: round(value, 4) for name, value in sums.items()}
                self.log(
                    **losses, seconds_per_second=round(seconds / spent, 1),
                    minutes=round(spent / 60, 1), minutes_left=round(left / 60, 1),
                )  # fmt: skip
                sums = {}
            if self.step % JUDGE_EVERY == 0:
                self.log(**self.judge())
            if self.step % SAVE_EVERY == 0:
                self.save()
        self.save()
        self.log(**self.judge())
        export(self.encoder, self.quantiser, self.out / "export")
        (self.out / "DONE").touch()


def export(encoder: WhisperVQEncoder, quantiser: Quantiser, out: Path) -> None:
    """Write the published layout, tensors in float16: two configs and model.safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = encoder.config
    config = {
        "model_type": "whisper",
        "architectures": ["WhisperVQEncoder"],
        "activation_function": "gelu",
        "d_model": sizes.width,
        "encoder_attention_heads": sizes.heads,
        "encoder_causal_attention": False,
        "encoder_causal_convolution": True,
        "encoder_ffn_dim": sizes.ffn,
        "encoder_layers": sizes.layers,
        "max_source_positions": sizes.positions,
        "num_hidden_layers": sizes.layers,
        "num_mel_bins": sizes.n_mels,
        "pooling_kernel_size": sizes.pool,
        "pooling_position": sizes.layers,
        "pooling_type": "avg",
        "quantize_causal_block_size": sizes.block,
        "quantize_causal_encoder": False,
        "quantize_encoder_only": True,
        "quantize_position": sizes.layers,
        "quantize_vocab_size": sizes.codes,
        "quantize_ema_decay": quantiser.decay,
        "quantize_restart_interval": quantiser.restart_after,
        "scale_embedding": False,
        "torch_dtype": "float16",
    }
    preprocessor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": 30,
        "feature_size": sizes.n_mels,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 30 * SAMPLE_RATE,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": SAMPLE_RATE,
    }
    for name, value in (("config", config), ("preprocessor_config", preprocessor)):
        text = json.dumps(value, indent=2, sort_keys=True) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")
    tensors = {name: t.half().contiguous() for name, t in encoder.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description="Trains the nano speech tokenizer.")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    Trainer(Settings.read(arguments.settings), Corpus(arguments.data), arguments.out).run()


if __name__ == "__main__":
    main()
