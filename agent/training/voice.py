"""Own voice: a decoder learns to speak as one person does, from recordings and nothing else.

Recordings are cut at their quietest moments; their codes come from the speech tokenizer, so nobody
writes down what is said. The flow goes on from a finished checkpoint, on windows cut as a stream
cuts them (:mod:`agent.training.flow`); then, if asked for, the vocoder does, with discriminators or
without (:mod:`agent.training.vocoder`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from loguru import logger
from pydantic import Field

from agent.sound import Audio, phone_band
from agent.speech import SpeechDecoder, SpeechTokenizer
from agent.speech.checkpoint import checkpoint_file, read_yaml
from agent.training import flow as flows
from agent.training import vocoder as vocoders
from agent.training.data import Corpus
from agent.training.recipe import Section
from agent.training.scripts import read_audio
from agent.training.shards import SAMPLE_RATE, Shards, ShardWriter

VOICE = "own"
_FRAME = SAMPLE_RATE // 50


class Cutting(Section):
    """How recordings are cut.

    Attributes:
        shortest: Seconds of a piece.
        longest: The same; a recording is cut at its quietest moment between the two.
        held_out: Every how many pieces one is kept to judge by.
    """

    shortest: float = 3.0
    longest: float = 12.0
    held_out: int = Field(default=20, ge=2)


class Settings(Section):
    """The recipe.

    Attributes:
        recordings: Directory with ``*.wav`` files of one speaker, mono.
        phone_band: Tokenise through a clean phone line, as the decoder's other data was; false for
            the published decoder.
        cutting: How recordings are cut.
        flow: How the flow is trained.
        vocoder: How the vocoder is; None leaves it as it is.
    """

    section = "voice"

    recordings: Path
    phone_band: bool
    cutting: Cutting = Cutting()
    flow: flows.Training
    vocoder: vocoders.Training | None = None


def cut(audio: Audio, shortest: float, longest: float) -> list[Audio]:
    """Cut a recording into pieces, each at the quietest moment that its bounds allow.

    Args:
        audio: float32 [n] at 16 kHz.
        shortest: Seconds of a piece; a rest that is shorter is left out.
        longest: The same.
    """
    frames = len(audio) // _FRAME
    power = np.square(audio[: frames * _FRAME]).reshape(frames, _FRAME).mean(axis=1)
    least, most = round(shortest * 50), round(longest * 50)
    pieces = []
    begin = 0
    while frames - begin >= least:
        end = frames
        if frames - begin > most:
            window = power[begin + least : begin + most]
            end = begin + least + int(window.argmin())
        pieces.append(audio[begin * _FRAME : end * _FRAME])
        begin = end
    return pieces


def collect(settings: Settings, out: Path) -> Corpus:
    """Cut the recordings into a data set; one that cannot be read is named and left out.

    Raises:
        ValueError: There are no recordings, or too little of them to learn and to judge by.
    """
    files = sorted(settings.recordings.rglob("*.wav"))
    if not files:
        raise ValueError(f"{settings.recordings}: no *.wav files below this directory")
    writer, cutting = ShardWriter(out), settings.cutting
    known = set(Shards(out).ids()) if writer.count else set()
    pieces = 0
    for path in files:
        try:
            (audio,) = read_audio(path, channels=1)
        except ValueError as error:
            logger.warning("recording left out", problem=str(error))
            continue
        for number, piece in enumerate(cut(audio, cutting.shortest, cutting.longest)):
            name = f"{path.relative_to(settings.recordings)}:{number}"
            # The second, so that few pieces are enough to have one of each.
            held_out = pieces % cutting.held_out == 1
            pieces += 1
            if name not in known:
                entry = {"id": name, "split": "held_out" if held_out else "train"}
                entry |= {"role": "cover", "voice": VOICE, "text": ""}
                samples = np.round(np.clip(piece, -1, 1) * 32767).astype(np.int16)
                writer.add(entry | {"seen_voice": True}, samples)
    if pieces < 2:
        raise ValueError(
            f"{settings.recordings}: {pieces} pieces of at least {cutting.shortest} s in all "
            "recordings, expected 2 or more"
        )
    return Corpus(out)


def run(
    settings: Settings, tokenizer: SpeechTokenizer, start: Path, out: Path, to: Path | None
) -> None:
    """Train, or go on where a stopped run was.

    Args:
        settings: The recipe.
        tokenizer: Gives the recordings their codes.
        start: Decoder checkpoint to begin with.
        out: Directory of the training.
        to: Directory of the decoder checkpoint to write; None to write none.

    Raises:
        ValueError: The recordings are too few, or tokenizer and decoder do not belong together.
        CheckpointError: The checkpoint is missing or damaged.
    """
    decoder = SpeechDecoder.from_pretrained(start)
    codes = decoder.flow.config.vocab_size
    if codes != tokenizer.codebook_size:
        raise ValueError(
            f"the decoder has {codes} codes and the tokenizer {tokenizer.codebook_size}: they do "
            "not belong together"
        )
    corpus = collect(settings, out / "data")

    def encode(audio: Audio) -> torch.Tensor:
        heard = phone_band(audio) if settings.phone_band else audio
        return torch.from_numpy(tokenizer.encode([heard])[0])

    flow = decoder.flow
    takes, held_out = (
        flows.load_takes(corpus, encode, flow, split, (VOICE,)) for split in ("train", "held_out")
    )
    flows.train(settings.flow, flow, takes, held_out, out / "flow").copy_to(flow)
    vocoder = decoder.vocoder
    if settings.vocoder:
        spoken = vocoders.load_takes(
            corpus, (VOICE,), out / "vocoder" / "takes.pt", settings.vocoder.frames + 1
        )
        average = vocoders.train(settings.vocoder, vocoder, spoken, out / "vocoder")
        average.copy_to(vocoder)
        vocoders.plain(vocoder)
    if to:
        config: dict[str, Any] = read_yaml(checkpoint_file(start, "config.yaml"))
        to.mkdir(parents=True, exist_ok=True)
        kept = {name: config[name] for name in ("sample_rate", "spk_embed_dim") if name in config}
        (to / "config.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
        flows.export(flow, config["flow"], config.get("decoding", {}), to)
        vocoders.export(vocoder, config["hift"], to)
