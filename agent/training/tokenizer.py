"""Trains a speech tokenizer, from nothing or from Whisper, and exports it in the published layout.

The encoder of `agent.speech.tokenizer_encoder` learns speech recognition through its quantiser, as
the published tokenizer did: codes -> up-sampling by 4 -> transformer layers -> CTC over characters
(Graves 2006), plus cross-entropy over phones at 50 Hz where the synthesiser told them. The same two
losses on the frames before pooling teach the encoder before its codes say much. Augmentation grows
from nothing: at full strength from the first step on, next to nothing is learnt. The quantiser is
switched on after a while: k-means start, codebook by exponential moving averages, restart of dead
codes (van den Oord 2017, appendix A.1; Dhariwal 2020), straight-through gradient.
"""

from __future__ import annotations

import itertools
import json
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
from agent.training.data import Corpus
from agent.training.loop import Loop, parameter_count
from agent.training.muon import named, optimizers
from agent.training.shards import SAMPLE_RATE
from agent.training.tokenizer_data import FRAME_SAMPLES, IGNORED, Batch, Loader, Plans
from agent.training.tokenizer_parts import (
    POOL,
    POSITIONS,
    Quantiser,
    Reader,
    Settings,
    start_from,
)
from agent.training.voices import AGENT_VOICES
from agent.training.whisper import start_from_whisper

LOG_EVERY, JUDGE_EVERY = 50, 1000


class Trainer:
    """One run: the modules, what is optimised, and where it has got to.

    Args:
        settings: The recipe.
        corpus: What is heard.
        out: Directory of the run.
        start: What to begin with: a Whisper checkpoint, or the directory of an earlier run; None
            begins from nothing.

    Raises:
        CheckpointError: ``start`` is missing, damaged or of other sizes.
    """

    def __init__(self, settings: Settings, corpus: Corpus, out: Path, start: Path | None = None):
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.loader = Loader(corpus, settings.batch_seconds)
        self.plans = Plans(self.loader, corpus.indices(split="train"), settings.seed)
        self.judged = {
            "seen": corpus.indices(split="held_out", seen_voice=True, role="caller", language="en"),
            "unseen": corpus.indices(split="held_out", seen_voice=False, language="en"),
            "mandarin": corpus.indices(split="held_out", role="caller", language="zh"),
            "agent": corpus.indices(split="held_out", voice=AGENT_VOICES["en"]),
        }
        self.judged = {
            name: found[:: max(1, len(found) // 150)] for name, found in self.judged.items()
        }
        self.log_mel = LogMel(settings.n_mels, device=settings.device)
        self.encoder = WhisperVQEncoder(settings.encoder())
        self.reader = Reader(
            settings, max(1, len(self.loader.phone_names)), max(1, len(self.loader.styles))
        )
        saved: dict[str, Any] | None = None
        if start is None:
            start_from(self.encoder, self.reader)
        elif (start / "last.pt").is_file():
            saved = torch.load(start / "last.pt", map_location="cpu", weights_only=True)
        else:
            start_from_whisper(start, settings, self.encoder, self.reader)
        self.encoder.to(settings.device)
        self.reader.to(settings.device)
        self.quantiser = Quantiser(self.encoder, settings)
        if saved is not None:
            for name in ("encoder", "reader", "quantiser"):
                getattr(self, name).load_state_dict(saved[name])
        self.optimizers = optimizers(
            nn.ModuleList([self.encoder, self.reader]),
            self.reader.heads(),
            settings.learning_rate,
            settings.weight_decay,
        )
        self.switch = int(settings.continuous * settings.steps)
        parts = {
            "encoder": self.encoder, "reader": self.reader, "quantiser": self.quantiser,
            **named(self.optimizers),
        }  # fmt: skip
        self.loop = Loop(
            out, settings.steps, settings.learning_rate, parts, settings.seed, settings.warmup
        )

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.loop.step

    def strength(self, step: int) -> float:
        """How far the variations go: none at first, or else nothing is learnt for long."""
        ramp = self.settings.ramp * self.settings.steps
        return self.settings.variation * min(1.0, (step + 1) / (ramp + 1))

    def draw(self, step: int, rng: np.random.Generator) -> Batch:
        """What a step learns from."""
        strength, clean = self.strength(step), self.settings.clean
        batches = (
            self.loader.batch(self.plans[later], rng, strength, clean)
            for later in itertools.count(step)
        )
        return next(batch for batch in batches if batch is not None)

    def features(self, batch: Batch, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Normalised log-mel [batch, n_mels, 2 n] and which of n frames are no padding."""
        raw = self.log_mel.whole(batch.audio)
        maximum = raw.amax(dim=(1, 2), keepdim=True)
        if rng is not None:
            # A stream clamps at the maximum so far: let the codes not depend on which it is.
            streamed = torch.from_numpy(rng.random((len(raw), 1, 1)) < 0.5).to(raw.device)
            maximum = torch.where(streamed, running_maximum(raw, 2 * self.settings.block), maximum)
        mel = normalise(raw, maximum)
        frames = torch.arange(batch.audio.shape[1] // FRAME_SAMPLES, device=raw.device)
        valid = frames * FRAME_SAMPLES < batch.samples[:, None]
        return (mel if rng is None else mask_spectrum(mel, rng, self.strength(self.step))), valid

    def forward(
        self, mel: Tensor, valid: Tensor, offset: int, train: bool
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor], Tensor]:
        """Logits of characters and phones, the same through the codes, and the commitment loss.

        Through the codes there are also logits of styles.
        """
        kind, enabled = mel.device.type, self.settings.bfloat16 and train
        with torch.autocast(kind, torch.bfloat16, enabled=enabled):
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
            self.quantiser.collect(hidden.detach()[real])
        positions = self.encoder.embed_positions.weight[offset : offset + valid.shape[1]]
        with torch.autocast(kind, torch.bfloat16, enabled=enabled):
            late = self.reader(codes, positions[None], valid)
        return early, late, commitment

    def optimise(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """One step; returns the losses."""
        mel, valid = self.features(batch, rng)
        # Any position may be the first: turns are longer than the sentences of the corpus.
        offset = 0
        if self.step > self.settings.shifted * self.settings.steps and rng.random() < 0.8:
            offset = POOL * int(rng.integers(0, (POSITIONS - valid.shape[1]) // POOL + 1))
        early, late, commitment = self.forward(mel, valid, offset, train=True)
        losses: list[tuple[Tensor, Tensor]] = []
        for characters, phones in (early, late[:2]):
            ctc = functional.ctc_loss(
                characters.float().log_softmax(-1).transpose(0, 1), batch.texts, valid.sum(1),
                batch.lengths, zero_infinity=True,
            )  # fmt: skip
            losses.append((ctc, _known(phones, batch.phones)))
        (early_ctc, early_phone), (ctc, phone) = losses
        style = _known(late[2], torch.where(valid, batch.styles[:, None], IGNORED))
        loss = ctc + phone + self.settings.commitment * commitment + self.settings.style * style
        loss = loss + self.settings.early * (early_ctc + early_phone)
        self.loop.advance(self.optimizers, loss, self.settings.clip)
        if self.step == self.switch:
            self.quantiser.start()
        return {
            "ctc": ctc.detach(), "phone": phone.detach(), "early_ctc": early_ctc.detach(),
            "early_phone": early_phone.detach(), "style": style.detach(),
            "commitment": commitment.detach(),
        }  # fmt: skip

    @torch.inference_mode()
    def judge(self) -> dict[str, float]:
        """Held-out character error through the quantiser and a clean phone line, greedy CTC."""
        result: dict[str, float] = {}
        used: list[Tensor] = []
        for name, indices in self.judged.items():
            wrong = total = 0
            for start in range(0, len(indices), 16):
                batch = self.loader.batch(indices[start : start + 16], None)
                if batch is None:
                    continue
                batch = batch.to(self.settings.device)
                mel, valid = self.features(batch, None)
                if self.step >= self.switch:
                    used.append(self.encoder.quantise(self.encoder(mel, valid))[valid[:, ::POOL]])
                best = self.forward(mel, valid, 0, train=False)[1][0].argmax(-1)
                texts = torch.split(batch.texts, batch.lengths.tolist())
                for row, real, text in zip(best, valid, texts, strict=True):
                    path = torch.unique_consecutive(row[real])
                    wrong += edit_distance(path[path > 0].tolist(), text.tolist())
                    total += len(text)
            if total:
                result[f"character_error_{name}"] = wrong / total
        if used:
            share = torch.bincount(torch.cat(used), minlength=self.settings.codes).float()
            share = share[share > 0] / share.sum()
            result["codes_used"] = len(share)
            result["perplexity"] = float(torch.exp(-(share * share.log()).sum()))
        return result

    def run(self, to: Path | None) -> None:
        """Train to the end, or go on where a stopped run was.

        Args:
            to: Directory of the checkpoint to write; None to write none.
        """
        print(f"{parameter_count([self.encoder, self.reader]):,} parameters", flush=True)
        sums: dict[str, Tensor] = {}
        seconds = 0.0
        for batch in self.loop.drawn(self.draw, self.settings.steps, self.settings.workers):
            # Its own numbers: what the batch was drawn with is another process's.
            (rng,) = self.loop.begin().numpy.spawn(1)
            seconds += float(batch.samples.sum()) / SAMPLE_RATE
            found = self.optimise(batch.to(self.settings.device), rng)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / LOG_EVERY
            judged = self.step % JUDGE_EVERY == 0 or self.step == self.settings.steps
            if self.step % LOG_EVERY == 0 or judged:
                means = {name: float(total) for name, total in sums.items()}
                self.loop.report(**means, seconds=seconds, **(self.judge() if judged else {}))
                sums, seconds = {}, 0.0
        self.loop.save()
        if to:
            export(self.encoder, self.quantiser, to)


def _known(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the frames whose label is known; 0 where none is."""
    total = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels != IGNORED).sum().clamp(min=1)


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
    tensors = {name: t.half().cpu().contiguous() for name, t in encoder.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
