"""Trains a language model on a mix of examples: all of its weights, or adapters over them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agent.speech.checkpoint import checkpoint_file
from agent.speech.language_model import LanguageModel
from agent.speech.language_model_config import DTYPES, LanguageModelConfig
from agent.training import lora as adapters
from agent.training.examples import Example, losses
from agent.training.language_model_layout import (
    Sizes,
    fresh_model,
    write_layout,
    write_weights,
)
from agent.training.loop import Loop, parameter_count
from agent.training.lora import Lora
from agent.training.mix import Mix
from agent.training.recipe import Device, Section


class Tuning(Section):
    """How a language model is trained.

    Attributes:
        lora: Adapters to train instead of all weights.
        steps: Optimiser steps.
        batch_ids: Least ids in a step; the last example may pass it.
        longest: Ids after which an example is cut or left out.
        learning_rate: At its peak.
        last_rate: Share of it that is left at the end.
        warmup: Steps.
        weight_decay: Of AdamW.
        dropout: On what each half of a block adds to the stream.
        text_weight: Of a text id's loss.
        speech_weight: Of a speech id's loss.
        bfloat16: Compute in it.
        checkpointing: Keep no activations inside a block, and compute them again.
        device: ``cpu`` or ``cuda``.
        saved_as: Type of the weights that are written.
        report_every: Steps between two lines of the log.
        judge_every: Steps between two looks at held-out examples.
        judged: Most of those.
        export: The weights that are written: those that did best on held-out examples, where
            there are any, or the last.
        seed: Of everything that is drawn.
    """

    lora: Lora | None = None
    steps: int
    batch_ids: int
    longest: int
    learning_rate: float
    last_rate: float = 0.1
    warmup: int
    weight_decay: float = 0.1
    dropout: float = 0.0
    text_weight: float = 1.0
    speech_weight: float = 1.0
    bfloat16: bool = False
    checkpointing: bool = False
    device: Device = "cpu"
    saved_as: Literal["float16", "bfloat16", "float32"] = "float16"
    report_every: int = 10
    judge_every: int = 100
    judged: int = 200
    export: Literal["best", "last"] = "best"
    seed: int = 0


class NewModel(Sizes):
    """A language model to begin from nothing.

    Attributes:
        codes: Number of speech codes: the tokenizer's.
    """

    codes: int


class Learning:
    """The weights that learn, as a part that is saved: a frozen model is not saved with them."""

    def __init__(self, model: nn.Module):
        self._model = model

    def state_dict(self) -> dict[str, Tensor]:
        """By name."""
        return {n: p.detach() for n, p in self._model.named_parameters() if p.requires_grad}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up saved ones."""
        self._model.load_state_dict(state, strict=False)


class Best:
    """The weights that did best on held-out examples so far, in a file."""

    def __init__(self, learning: Learning, path: Path):
        self._learning, self._path = learning, path
        self._loss = math.inf

    def offer(self, loss: float) -> None:
        """Keep the present weights if their loss is the lowest so far."""
        if loss < self._loss:
            self._loss = loss
            partial = self._path.with_suffix(".tmp")
            torch.save(self._learning.state_dict(), partial)
            partial.replace(self._path)

    def restore(self) -> None:
        """Take the best weights up again; nothing if none were offered."""
        if math.isfinite(self._loss):
            self._learning.load_state_dict(
                torch.load(self._path, map_location="cpu", weights_only=True)
            )

    def state_dict(self) -> dict[str, float]:
        """The lowest loss."""
        return {"loss": self._loss}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from there."""
        self._loss = state["loss"]


def begin(
    sizes: NewModel | None, start: Path | None, train: Tuning, texts: Iterable[str], out: Path
) -> tuple[Path, LanguageModel]:
    """A model to train, from a published checkpoint or from nothing.

    A frozen model is kept in what its config says on a GPU, one that learns in float32.

    Args:
        sizes: Of a model from nothing.
        start: A checkpoint.
        train: How it will be trained.
        texts: What the text pieces of a model from nothing are learnt from.
        out: Directory of the training; a new model's layout is written into it.

    Returns:
        The directory with configs and tokenizer files, and the model.

    Raises:
        ValueError: Neither or both of ``sizes`` and ``start``.
        CheckpointError: The checkpoint is missing or damaged.
    """
    if start is not None and sizes is None:
        dtype = None if train.lora else torch.float32
        return start, LanguageModel.from_pretrained(start, train.device, dtype)
    if sizes is None or start is not None:
        raise ValueError("give a checkpoint with --start, or the field 'model': one of the two")
    layout = out / "layout"
    if not layout.is_dir():
        write_layout(sizes, texts, sizes.codes, layout)
    return layout, fresh_model(layout, train.seed).to(train.device)


def add_dropout(model: LanguageModel, share: float) -> None:
    """Add dropout to what each half of a block adds to the stream, in training only."""

    def drop(module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        return functional.dropout(output, share, module.training)

    for name, module in model.named_modules():
        if name.endswith((".self_attention", ".mlp", ".word_embeddings")):
            module.register_forward_hook(drop)


def recompute_blocks(model: LanguageModel) -> None:
    """Let every block compute its activations again on the way back, instead of keeping them."""
    parts: Any = model.transformer
    for block in parts["encoder"]["layers"]:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def batches(mix: Mix, ids: int) -> Iterator[list[Example]]:
    """Examples of at least so many ids together."""
    while True:
        batch: list[Example] = []
        while sum(len(example.ids) for example in batch) < ids:
            batch.append(mix.next())
        yield batch


def tune(
    model: LanguageModel,
    mix: Mix,
    held_out: Sequence[Example],
    settings: Tuning,
    out: Path,
) -> None:
    """Train a model, or go on where a stopped run was.

    Args:
        model: Changed in place: it ends with the weights to export, and adapted where the settings
            have ``lora``.
        mix: What it learns from.
        held_out: Examples to judge it by; may be empty.
        settings: How.
        out: Directory of the training.
    """
    if settings.lora:
        adapters.adapt(model, settings.lora, settings.seed)
    if settings.dropout:
        add_dropout(model, settings.dropout)
    if settings.checkpointing:
        recompute_blocks(model)
    weights = adapters.parameters(model)
    optimizer = torch.optim.AdamW(
        weights,
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    weights_alone = Learning(model)
    best = Best(weights_alone, out / "best.pt")
    parts = {"weights": weights_alone, "optimizer": optimizer, "mix": mix, "best": best}
    loop = Loop(
        out, settings.steps, settings.learning_rate, parts, settings.seed, settings.warmup,
        last=settings.last_rate,
    )  # fmt: skip
    learning = sum(weight.numel() for weight in weights)
    print(f"{parameter_count([model]):,} parameters, {learning:,} learn", flush=True)
    autocast = functools.partial(
        torch.autocast, model.device.type, torch.bfloat16, enabled=settings.bfloat16
    )
    sums = torch.zeros(2, 2)
    drawn = batches(mix, settings.batch_ids)
    model.train()
    while loop.step < loop.steps:
        loop.begin()
        batch = next(drawn)
        with autocast():
            found = losses(model, batch, settings.text_weight, settings.speech_weight)
        loop.advance(optimizer, found.together)
        counts = torch.tensor(found.counts, dtype=torch.float32)
        sums += torch.stack([torch.stack([found.text, found.speech]).cpu() * counts, counts])
        if loop.step % settings.report_every == 0 or loop.step == loop.steps:
            text, speech = (sums[0] / sums[1].clamp(min=1)).tolist()
            figures = {"text": text, "speech": speech, "ids": float(sum(mix.ids.values()))}
            if held_out and (loop.step % settings.judge_every == 0 or loop.step == loop.steps):
                with autocast():
                    judged = judge(model, held_out, settings.batch_ids)
                figures |= judged
                best.offer(
                    settings.text_weight * judged["held_out_text"]
                    + settings.speech_weight * judged["held_out_speech"]
                )
            loop.report(**figures)
            sums.zero_()
    loop.save()
    if settings.export == "best":
        best.restore()
    model.eval()


def held_out_examples(
    sources: Iterable[tuple[Sequence[int], Callable[[int, np.random.Generator], Example | None]]],
    most: int,
) -> list[Example]:
    """Examples to judge by: the first usable ones of each source, equally many of each.

    Args:
        sources: Held-out indices, and what makes their examples.
        most: Of all together.
    """
    found: list[Example] = []
    given = list(sources)
    for indices, make in given:
        made = (make(index, np.random.default_rng(0)) for index in indices)
        usable = (example for example in made if example is not None)
        found += itertools.islice(usable, max(1, most // len(given)))
    return found


@torch.no_grad()
def judge(model: LanguageModel, held_out: Sequence[Example], ids: int) -> dict[str, float]:
    """Mean losses on held-out examples, so many ids at a time."""
    model.eval()
    sums = torch.zeros(2, 2)
    batch: list[Example] = []
    for number, example in enumerate(held_out, 1):
        batch.append(example)
        if sum(len(e.ids) for e in batch) >= ids or number == len(held_out):
            found = losses(model, batch)
            counts = torch.tensor(found.counts, dtype=torch.float32)
            sums += torch.stack([torch.stack([found.text, found.speech]).cpu() * counts, counts])
            batch = []
    model.train()
    text, speech = (sums[0] / sums[1].clamp(min=1)).tolist()
    return {"held_out_text": text, "held_out_speech": speech}


def write(model: LanguageModel, settings: Tuning, layout: Path, out: Path) -> None:
    """Write a trained model in the published layout, adapters merged.

    Args:
        model: As :func:`tune` left it; its adapters are merged here.
        settings: How it was trained.
        layout: A checkpoint whose configs and text tokenizer are the model's.
        out: The directory; made if missing. Adapters also go into ``adapter.safetensors``.
    """
    out.mkdir(parents=True, exist_ok=True)
    if settings.lora:
        adapters.save(model, settings.lora, out / adapters.ADAPTER_FILE)
        adapters.merge(model)
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    write_weights(model.state_dict(), model.config, layout, out, dtype[settings.saved_as])


def merge(start: Path, adapter: Path, out: Path) -> None:
    """Write a checkpoint with adapters merged into it, in the type that its config says.

    Args:
        start: The checkpoint that the adapters were trained over.
        adapter: ``adapter.safetensors`` of that training.
        out: The directory to write; made if missing.

    Raises:
        CheckpointError: A file is missing or damaged, or the two do not belong together.
    """
    config = LanguageModelConfig.read(checkpoint_file(start, "config.json"))
    dtype = DTYPES[config.torch_dtype]
    model = LanguageModel.from_pretrained(start, dtype=dtype)
    adapters.load(model, adapter)
    adapters.merge(model)
    write_weights(model.state_dict(), config, start, out, dtype)
