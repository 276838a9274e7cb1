"""Data for the language models out of what is at hand: speech codes of audio, shards of text."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from agent.sound import phone_band
from agent.speech.tokenizer import SpeechTokenizer
from agent.training.recipe import Section
from agent.training.shards import PLACES, Shards, ShardWriter


class Settings(Section):
    """How audio is tokenised.

    Attributes:
        phone_band: Through a clean phone line first, as what answers calls should hear it.
        keep_audio: Write the audio beside the codes.
    """

    section = "encode"

    phone_band: bool
    keep_audio: bool = False


def encode(settings: Settings, data: Path, tokenizer: SpeechTokenizer, out: Path) -> None:
    """Write samples with their speech codes, or what is missing of them.

    A sample that is corrupt or has no audio is left out.
    """
    shards, writer = Shards(data), ShardWriter(out)
    known = set(Shards(out).ids()) if writer.count else set()
    began, done = time.monotonic(), 0
    for index, sample in shards.read(range(len(shards))):
        if sample.entry["id"] in known or not len(sample.audio):
            continue
        audio = sample.audio.astype(np.float32) / 32768.0
        (codes,) = tokenizer.encode([phone_band(audio) if settings.phone_band else audio])
        entry = {name: value for name, value in sample.entry.items() if name not in PLACES}
        writer.add(entry, sample.audio if settings.keep_audio else None, codes)
        done += 1
        if done % 200 == 0:
            left = (time.monotonic() - began) / done * (len(shards) - index - 1)
            print(f"{index + 1}/{len(shards)} samples  left {left / 60:.1f} min", flush=True)
    print(f"{writer.count} samples with codes in {out}, {shards.skipped} corrupt", flush=True)


def texts(source: Path, out: Path) -> None:
    """Write shards of the lines of all ``*.txt`` files below a directory, each a text.

    Raises:
        ValueError: There is no such file, or one is not UTF-8.
    """
    files = sorted(source.rglob("*.txt"))
    if not files:
        raise ValueError(f"{source}: no *.txt files below this directory")
    writer = ShardWriter(out)
    number = 0
    for path in files:
        try:
            with path.open(encoding="utf-8") as lines:
                for line, text in enumerate(lines, 1):
                    number += bool(text.strip())
                    if text.strip() and number > writer.count:
                        name = f"{path.relative_to(source)}:{line}"
                        writer.add({"id": name, "text": text.strip()})
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error})") from error
    print(f"{writer.count} texts in {out}", flush=True)
