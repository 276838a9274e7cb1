"""Trains the nano language model: first to hear words, then on the line's conversations.

The callers are tokenised again and again over random phone lines, once before the training and the
rest beside it, by a process of its own (``glm-voice train language-model --hear``).
"""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.evaluation.text import Language
from agent.speech.language_model import LanguageModel
from agent.speech.text_tokenizer import TextTokenizer
from agent.speech.tokenizer import SpeechTokenizer
from agent.training import listening
from agent.training.conversations import (
    Conversations,
    Scene,
    Takes,
    hear,
    hear_plainly,
    spoken_codes,
)
from agent.training.data import Corpus
from agent.training.examples import GIVEN, SPEECH, TEXT, Losses, weighted
from agent.training.language_model_layout import (
    Settings,
    fresh_model,
    liken_codes,
    nano_texts,
    write_layout,
    write_weights,
)
from agent.training.line import NEUTRAL, Line
from agent.training.listening import Listener
from agent.training.loop import Average, Loop, parameter_count
from agent.training.muon import named, optimizers
from agent.training.side_by_side import SideBySide
from agent.training.tokenizer_data import spell
from agent.training.tuning import add_dropout


def predictions(
    model: LanguageModel, scenes: Sequence[Scene]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits [r, vocab], targets [r], kinds [r] and exchange numbers [r] of ids to predict."""
    device = model.device
    starts = SideBySide([len(scene.start) for scene in scenes], device)
    ids = torch.tensor([i for scene in scenes for i in scene.start], device=device)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    model.attending(ids, starts.positions, starts, none)
    exchanges = [exchange for scene in scenes for exchange in scene.exchanges]
    of = [number for number, scene in enumerate(scenes) for _ in scene.exchanges]
    lengths = [len(exchange.ids) for exchange in exchanges]
    branches = SideBySide(lengths, device, starts, of)
    ids = torch.tensor([i for exchange in exchanges for i in exchange.ids], device=device)
    kinds = torch.tensor([k for exchange in exchanges for k in exchange.kinds])
    # The id at a position is predicted from the one before; an exchange's first id is given.
    targets = (kinds != GIVEN).nonzero()[:, 0]
    owners = torch.repeat_interleave(torch.arange(len(exchanges)), torch.tensor(lengths))[targets]
    kinds = kinds[targets].to(device)
    targets = targets.to(device)
    logits = model.attending(ids, branches.positions, branches, targets - 1)
    return logits, ids[targets], kinds, owners.to(device)


def losses(model: LanguageModel, scenes: Sequence[Scene], text_weight: float) -> Losses:
    """Cross-entropy of the ids to predict."""
    logits, targets, kinds, _ = predictions(model, scenes)
    return weighted(logits, targets, kinds, text_weight)


@torch.no_grad()
def judge(model: LanguageModel, scenes: Sequence[Scene], name: str) -> dict[str, float]:
    """Share of questions whose answer would be word for word right, and whose speech as well.

    Every id is predicted from the right ones before it: if all are the most likely ones, the model
    left to itself says the same.
    """
    model.eval()
    right: dict[int, list[bool]] = {TEXT: [], SPEECH: []}
    for scene in scenes:
        logits, targets, kinds, owners = predictions(model, [scene])
        wrong = logits.argmax(-1) != targets
        for number in range(len(scene.exchanges)):
            for kind, answers in right.items():
                answers.append(not bool(wrong[(owners == number) & (kinds == kind)].any()))
    return {
        f"text_{name}": float(np.mean(right[TEXT])),
        f"speech_{name}": float(np.mean(right[SPEECH])),
    }


@dataclass(frozen=True)
class Batch:
    """What one step learns from: scenes, and utterances to spell."""

    scenes: list[Scene]
    beside: list[listening.Utterance]


class Recipe:
    """The files of one training and what is made from them, each made once.

    Args:
        settings: The recipe.
        corpus: Rendered recordings.
        lines: What is said on the line, one a language.
        tokenizer: The finished speech tokenizer.
        out: Directory of the training.
        start: A checkpoint of the same sizes to begin from, in place of nothing; it can hear.
    """

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        lines: Sequence[Line],
        tokenizer: SpeechTokenizer,
        out: Path,
        start: Path | None = None,
    ):
        self.settings, self.corpus, self.out = settings, corpus, out
        self._start = start
        self.lines = {line.language: line for line in lines}
        self._tokenizer = tokenizer
        out.mkdir(parents=True, exist_ok=True)
        self.layout = out / "layout"
        self.callers = [
            *corpus.indices(split="train", role="caller"),
            *corpus.indices(split="train", role="cover", style=None),
        ]
        self.agent = corpus.indices(split="train", role="agent", canonical=True)
        self.sentences = corpus.indices(split="train", role="cover", style=NEUTRAL)

    def prepare(self) -> None:
        """Write the layout and the codes that do not vary."""
        if self._start and not self.layout.is_dir():
            weights = shutil.ignore_patterns("*.safetensors")
            shutil.copytree(self._start, self.layout, ignore=weights)
        if not self.layout.is_dir():
            codes = self._tokenizer.codebook_size
            write_layout(
                self.settings, nano_texts(self.lines.values(), self.corpus), codes, self.layout
            )
        if not (path := self.out / "spoken.npz").is_file():
            spoken = self.corpus.read([*self.agent, *self.sentences])
            Takes.save(path, ((i, spoken_codes(u.audio, self._tokenizer)) for i, u in spoken))
        if not (path := self.out / "held_out.npz").is_file():
            rng = np.random.default_rng(self.settings.seed)
            held_out = self.corpus.indices(split="held_out", role="caller", seen_voice=True)
            count = min(self.settings.judged, len(held_out))
            indices = sorted(rng.choice(held_out, count, replace=False).tolist())
            heard = self.corpus.read(indices)
            Takes.save(path, ((i, hear_plainly(u.audio, self._tokenizer)) for i, u in heard))

    def hear(self, most: int) -> None:
        """Tokenise the callers over one random phone line each, until there are ``most`` takes."""
        for number in range(most):
            path = self.out / f"take_{number}.npz"
            if path.is_file():
                continue
            Takes.save(path, hear(self.corpus, self.callers, self._tokenizer, number))
            print(f"{path.name} written", flush=True)

    def takes(self) -> list[Takes]:
        """All takes there are by now."""
        return [Takes(path) for path in sorted(self.out.glob("take_?.npz"))]

    def run(self, to: Path | None = None) -> None:
        """Train, or go on where a stopped run was.

        Args:
            to: Directory of the checkpoint to write; None to write none.
        """
        settings = self.settings
        model = fresh_model(self.layout, settings.seed)
        liken_codes(model, self._tokenizer.encoder.codebook.weight.detach(), settings.seed)
        model.to(settings.device)
        add_dropout(model, settings.dropout)
        listener = Listener(model, settings.listening.blocks, settings.seed).to(settings.device)
        conversations = self._conversations(model.text_tokenizer, Takes(self.out / "spoken.npz"))
        held_out = Takes(self.out / "held_out.npz")
        print(f"{parameter_count([model]):,} parameters", flush=True)
        if self._start:
            model.load_state_dict(LanguageModel.from_pretrained(self._start).state_dict())
        elif not (self.out / "last.pt").is_file():
            self._listen(listener, model.text_tokenizer, conversations, held_out)
        average = Average(model, settings.average)
        blocks: Any = model.transformer["encoder"]
        others = [p for name, p in model.named_parameters() if ".encoder." not in name]
        others += listener.letters.parameters()
        using = optimizers(blocks, others, settings.learning_rate, settings.weight_decay)
        parts = {
            "model": model, "letters": listener.letters, "average": average, **named(using),
        }  # fmt: skip
        loop = Loop(
            self.out, settings.steps, settings.learning_rate, parts, settings.seed, settings.warmup
        )
        scenes = self._judged(conversations, held_out)
        averaged = fresh_model(self.layout, settings.seed).to(settings.device)
        sums = torch.zeros(2, device=model.device)
        model.train()
        for batch in self._batches(conversations, loop):
            loop.begin()
            with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.bfloat16):
                found = losses(model, batch.scenes, settings.text_weight)
                heard = listening.loss(listener, batch.beside)
            loop.advance(using, found.together + settings.listening.weight * heard)
            average.update(model, loop.step)
            sums += torch.stack([found.text, found.speech])
            if loop.step % settings.report_every == 0:
                mean = (sums / settings.report_every).tolist()
                figures = {"text": mean[0], "speech": mean[1]}
                if loop.step % settings.judge_every == 0 or loop.step == loop.steps:
                    average.copy_to(averaged)
                    for name, judged in scenes.items():
                        figures |= judge(averaged, judged, name)
                loop.report(**figures)
                sums.zero_()
        loop.save()
        if to:
            write_weights(average.values, model.config, self.layout, to)

    def _batches(self, conversations: Conversations, loop: Loop) -> Iterator[Batch]:
        """What the steps to come learn from.

        Takes that have been written meanwhile join in after every look at what is held out.
        """
        every = self.settings.judge_every
        while loop.step < loop.steps:
            takes = self.takes()
            draw = functools.partial(self.draw, conversations, takes)
            until = min(loop.steps, (loop.step // every + 1) * every)
            yield from loop.drawn(draw, until, self.settings.workers)

    def draw(
        self, conversations: Conversations, takes: Sequence[Takes], _: int, rng: np.random.Generator
    ) -> Batch:
        """A step's scenes and utterances."""
        scenes = [s for _ in range(self.settings.scenes) for s in conversations.draw(takes, rng)]
        beside = self._spelt(conversations, takes, self.settings.listening.beside, rng)
        return Batch(scenes, list(beside))

    def _listen(
        self,
        listener: Listener,
        tokenizer: TextTokenizer,
        conversations: Conversations,
        held_out: Takes,
    ) -> None:
        settings, corpus, takes = self.settings, self.corpus, self.takes()
        judged: dict[str, list[listening.Utterance]] = {}
        for index in held_out.indices:
            ids = tokenizer.speech_ids(held_out[index].tolist())
            judged.setdefault(str(corpus.field(index, "language")), []).append(
                self._spell(ids, index)
            )
        listening.learn(
            listener,
            settings.listening,
            lambda count, rng: self._spelt(conversations, takes, count, rng),
            judged,
            self.out / "listening",
            settings.weight_decay,
            settings.judge_every,
            settings.seed,
            settings.workers,
        )

    def _spelt(
        self,
        conversations: Conversations,
        takes: Sequence[Takes],
        count: int,
        rng: np.random.Generator,
    ) -> Iterator[listening.Utterance]:
        return itertools.starmap(self._spell, conversations.overhear(takes, count, rng))

    def _spell(self, ids: list[int], index: int) -> listening.Utterance:
        language: Language = "zh" if self.corpus.field(index, "language") == "zh" else "en"
        return ids, spell(self.corpus.text(index), language)

    def _judged(self, conversations: Conversations, heard: Takes) -> dict[str, list[Scene]]:
        """Held-out questions by language, and those that need a tool."""
        scenes: dict[str, list[Scene]] = {}
        for language, line in self.lines.items():
            asked = [
                (heard[index], intent)
                for index in heard.indices
                if self.corpus.field(index, "language") == language
                # What is said at several points of a call is judged at one of them.
                for intent in line.asked_by(self.corpus.field(index, "saying") or "")[:1]
            ]
            scenes[language] = conversations.judged(asked, language, tools=False)
            with_tools = [(codes, intent) for codes, intent in asked if intent.tool]
            scenes[f"tools_{language}"] = conversations.judged(with_tools, language, tools=True)
        return {name: judged for name, judged in scenes.items() if judged}

    def _conversations(self, tokenizer: TextTokenizer, spoken: Takes) -> Conversations:
        # What was corrupt when the callers were heard, or the agent, is in no take.
        heard = self.takes()[0]
        return Conversations(
            self.lines,
            self.corpus,
            spoken,
            tokenizer,
            self.settings.mixture,
            [index for index in self.callers if index in heard],
            [index for index in self.sentences if index in spoken],
        )
