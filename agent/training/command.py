"""The parts of ``glm-voice train``: what each is given and what it runs.

Only what the command line itself needs is imported here; a recipe is imported when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_OPTIONS = {
    "--settings": "YAML file of the recipe",
    "--data": "directory of shards to read",
    "--texts": "directory with *.txt files, a text a line",
    "--tokenizer": "the finished speech tokenizer's checkpoint",
    "--text-to-token": "the finished text-to-token model's checkpoint",
    "--start": "checkpoint to begin with",
    "--adapter": "adapter.safetensors of a training with `lora`",
    "--out": "directory of this run: what resumes it, and its log.jsonl",
    "--export": "directory of the checkpoint to write at the end",
}


@dataclass(frozen=True)
class Part:
    """One recipe.

    Attributes:
        help: What it does, in a line.
        run: Runs it.
        options: Options it needs.
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
    Trainer(settings, Corpus(options.data), options.out, options.start).run(options.export)


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
    from agent.training.line import read_line

    settings = Settings.read(options.settings)
    recipe = Recipe(
        settings,
        Corpus(options.data),
        [read_line(path) for path in settings.lines],
        SpeechTokenizer.from_pretrained(options.tokenizer),
        options.out,
        options.start,
    )
    if options.hear:
        recipe.hear(settings.takes)
        return
    recipe.prepare()
    recipe.hear(settings.first_takes)
    recipe.run(options.export)


def _encode(options: argparse.Namespace) -> None:
    from agent.speech.tokenizer import SpeechTokenizer
    from agent.training import preparing

    settings = preparing.Settings.read(options.settings)
    tokenizer = SpeechTokenizer.from_pretrained(options.tokenizer)
    preparing.encode(settings, options.data, tokenizer, options.out)


def _texts(options: argparse.Namespace) -> None:
    from agent.training import preparing

    preparing.texts(options.texts, options.out)


def _text_to_token(options: argparse.Namespace) -> None:
    from agent.training import text_to_token

    settings = text_to_token.Settings.read(options.settings)
    text_to_token.run(settings, options.start, options.out, options.export)


def _interleave(options: argparse.Namespace) -> None:
    from agent.training import interleaving
    from agent.training.text_to_token import TextToToken

    settings = interleaving.Settings.read(options.settings)
    model = TextToToken.from_pretrained(options.text_to_token)
    interleaving.run(settings, options.data, model, options.out)


def _dialogues(options: argparse.Namespace) -> None:
    from agent.speech.tokenizer import SpeechTokenizer
    from agent.training import call_centre
    from agent.training.text_to_token import TextToToken

    settings = call_centre.Settings.read(options.settings)
    tokenizer = options.tokenizer and SpeechTokenizer.from_pretrained(options.tokenizer)
    speaker = options.text_to_token and TextToToken.from_pretrained(options.text_to_token)
    call_centre.run(settings, tokenizer, speaker, options.out)


def _pretrain(options: argparse.Namespace) -> None:
    from agent.training import pretraining

    settings = pretraining.Settings.read(options.settings)
    pretraining.run(settings, options.start, options.out, options.export)


def _finetune(options: argparse.Namespace) -> None:
    from agent.training import finetuning

    settings = finetuning.Settings.read(options.settings)
    finetuning.run(settings, options.start, options.out, options.export)


def _merge(options: argparse.Namespace) -> None:
    from agent.training import tuning

    tuning.merge(options.start, options.adapter, options.export)


def _voice(options: argparse.Namespace) -> None:
    from agent.speech.tokenizer import SpeechTokenizer
    from agent.training import voice

    settings = voice.Settings.read(options.settings)
    tokenizer = SpeechTokenizer.from_pretrained(options.tokenizer)
    voice.run(settings, tokenizer, options.start, options.out, options.export)


def _nano(options: argparse.Namespace) -> None:
    """Every recipe of the checkpoint that ships, one behind the other; each resumes."""
    out, export = options.out, options.export
    shared = {
        "data": out / "data",
        "tokenizer": export / "speech_tokenizer",
        "hear": False,
    }
    for name, recipe, to in (
        ("corpus", "corpus", None),
        ("tokenizer", "tokenizer", None),
        ("tokenizer", "tokenizer_continued", "speech_tokenizer"),
        ("vocoder", "vocoder", "speech_decoder"),
        ("flow", "flow", "speech_decoder"),
        ("language-model", "language_model", "language_model"),
    ):
        print(f"== {recipe}", flush=True)
        where = {
            "settings": options.settings / f"recipe_{recipe}.yaml",
            "start": out / "tokenizer" if recipe == "tokenizer_continued" else None,
            "out": shared["data"] if recipe == "corpus" else out / recipe,
            "export": to and export / to,
        }
        PARTS[name].run(argparse.Namespace(**shared, **where))


PARTS = {
    "nano": Part(
        "all recipes of the checkpoint that ships; --settings is the directory agent/nano",
        _nano,
        ("--settings", "--out", "--export"),
    ),
    "corpus": Part(
        "render what the other recipes learn from",
        _corpus,
        (
            "--settings",
            "--out",
        ),
    ),
    "tokenizer": Part(
        "train a speech tokenizer; --start is a Whisper checkpoint, or an earlier run's --out",
        _tokenizer,
        ("--settings", "--data", "--out"),
        ("--start", "--export"),
    ),
    "vocoder": Part("train a vocoder", _vocoder, ("--settings", "--data", "--out"), ("--export",)),
    "flow": Part(
        "train a flow; without --tokenizer a first stage on stand-in codes",
        _flow,
        ("--settings", "--data", "--out"),
        ("--tokenizer", "--export"),
    ),
    "language-model": Part(
        "train the nano language model",
        _language_model,
        ("--settings", "--data", "--tokenizer", "--out"),
        ("--start", "--export"),
        (("--hear", "only tokenise callers, all takes, for a process beside the training"),),
    ),
    "texts": Part("write text files as data", _texts, ("--texts", "--out")),
    "encode": Part(
        "write the speech codes of audio as data",
        _encode,
        ("--settings", "--data", "--tokenizer", "--out"),
    ),
    "text-to-token": Part(
        "train a model that gives the speech codes of a text",
        _text_to_token,
        ("--settings", "--out"),
        ("--start", "--export"),
    ),
    "interleave": Part(
        "turn spans of texts into speech codes",
        _interleave,
        ("--settings", "--data", "--text-to-token", "--out"),
    ),
    "dialogues": Part(
        "make dialogues to fine-tune on out of scripts and recordings",
        _dialogues,
        ("--settings", "--out"),
        ("--tokenizer", "--text-to-token"),
    ),
    "pretrain": Part(
        "train a language model on a mix of speech and text",
        _pretrain,
        ("--settings", "--out"),
        ("--start", "--export"),
    ),
    "finetune": Part(
        "train a language model on spoken dialogues",
        _finetune,
        ("--settings", "--out"),
        ("--start", "--export"),
    ),
    "merge": Part(
        "merge adapters into the checkpoint they were trained over",
        _merge,
        ("--start", "--adapter", "--export"),
    ),
    "voice": Part(
        "let a decoder speak as the speaker of some recordings",
        _voice,
        ("--settings", "--tokenizer", "--start", "--out"),
        ("--export",),
    ),
}
