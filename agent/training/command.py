"""The parts of ``glm-voice train``: what each is given and what it runs.

Only what the command line itself needs is imported here; a recipe is imported when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_OPTIONS = {
    "--data": "directory of shards that `train corpus` wrote",
    "--tokenizer": "the finished speech tokenizer's checkpoint",
    "--out": "directory of this run: what resumes it, and its log.jsonl",
    "--export": "directory of the checkpoint to write at the end",
}


@dataclass(frozen=True)
class Part:
    """One recipe.

    Attributes:
        help: What it does, in a line.
        run: Runs it.
        options: Options it needs, besides ``--settings``.
        optional: Options it can do without.
        flags: Switches, with what they do.
    """

    help: str
    run: Callable[[argparse.Namespace], None]
    options: tuple[str, ...]
    optional: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the parts and their options to the parser of ``glm-voice train``."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, part in PARTS.items():
        command = parts.add_parser(name, help=part.help, description=part.help)
        command.add_argument("--settings", type=Path, required=True, help="YAML file of the recipe")
        for option in (*part.options, *part.optional):
            required = option in part.options
            command.add_argument(option, type=Path, required=required, help=_OPTIONS[option])
        for flag, text in part.flags:
            command.add_argument(flag, action="store_true", help=text)
        command.add_argument(
            "--threads", type=int, default=1, help="of the CPU; small models lose by more (1)"
        )


def run(options: argparse.Namespace) -> None:
    """Run a part.

    Raises:
        ValueError: Settings or data are not as expected; names file and field.
        CheckpointError: A checkpoint that is given is missing or damaged.
        RuntimeError: A program that the part needs is not installed.
    """
    import torch

    torch.set_num_threads(options.threads)
    PARTS[options.part].run(options)


def _corpus(options: argparse.Namespace) -> None:
    from agent.training import synthesis

    synthesis.run(synthesis.Settings.read(options.settings), options.out)


def _tokenizer(options: argparse.Namespace) -> None:
    from agent.training.data import Corpus
    from agent.training.tokenizer import Trainer
    from agent.training.tokenizer_parts import Settings

    settings = Settings.read(options.settings)
    Trainer(settings, Corpus(options.data), options.out).run(options.export)


def _vocoder(options: argparse.Namespace) -> None:
    from agent.training import vocoder
    from agent.training.data import Corpus

    settings = vocoder.Settings.read(options.settings)
    vocoder.run(settings, Corpus(options.data), options.out, options.export)


def _flow(options: argparse.Namespace) -> None:
    from agent.training import flow
    from agent.training.data import Corpus

    settings = flow.Settings.read(options.settings)
    flow.run(settings, Corpus(options.data), options.tokenizer, options.out, options.export)


def _language_model(options: argparse.Namespace) -> None:
    from agent.speech.tokenizer import SpeechTokenizer
    from agent.training.data import Corpus
    from agent.training.language_model import Recipe
    from agent.training.language_model_layout import Settings
    from agent.training.phrasings import read_line

    settings = Settings.read(options.settings)
    recipe = Recipe(
        settings,
        Corpus(options.data),
        read_line(settings.line),
        SpeechTokenizer.from_pretrained(options.tokenizer),
        options.out,
    )
    if options.hear:
        recipe.hear(settings.takes)
        return
    recipe.prepare()
    recipe.hear(settings.first_takes)
    recipe.run(options.export)


def _nano(options: argparse.Namespace) -> None:
    """Every recipe of the checkpoint that ships, one behind the other; each resumes."""
    out, export = options.out, options.export
    shared = {"data": out / "data", "tokenizer": export / "speech_tokenizer", "hear": False}
    for name, part, to in (
        ("corpus", "data", None),
        ("tokenizer", "tokenizer", "speech_tokenizer"),
        ("vocoder", "vocoder", "speech_decoder"),
        ("flow", "flow", "speech_decoder"),
        ("language-model", "language_model", "language_model"),
    ):
        print(f"== {name}", flush=True)
        settings = options.settings / f"recipe_{name.replace('-', '_')}.yaml"
        where = {"settings": settings, "out": out / part, "export": to and export / to}
        PARTS[name].run(argparse.Namespace(**shared, **where))


PARTS = {
    "nano": Part(
        "all recipes of the checkpoint that ships; --settings is the directory agent/nano",
        _nano,
        ("--out", "--export"),
    ),
    "corpus": Part("render what the other recipes learn from", _corpus, ("--out",)),
    "tokenizer": Part("train a speech tokenizer", _tokenizer, ("--data", "--out"), ("--export",)),
    "vocoder": Part("train a vocoder", _vocoder, ("--data", "--out"), ("--export",)),
    "flow": Part(
        "train a flow; without --tokenizer a first stage on stand-in codes",
        _flow,
        ("--data", "--out"),
        ("--tokenizer", "--export"),
    ),
    "language-model": Part(
        "train the nano language model",
        _language_model,
        ("--data", "--tokenizer", "--out"),
        ("--export",),
        (("--hear", "only tokenise callers, all takes, for a process beside the training"),),
    ),
}
