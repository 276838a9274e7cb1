"""Single models at the command line, in this process, without a server."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest

CALLER_RATE = 16_000


def tokenize(checkpoint: Path, wav: Path) -> list[int]:
    """Speech tokens of a recording.

    Args:
        checkpoint: Directory with speech_tokenizer/.
        wav: A mono sound file at 16 kHz.

    Returns:
        The 0-based ids, 12.5 a second.

    Raises:
        ValueError: The file cannot be read, is at another rate, not mono or without samples.
        CheckpointError: The checkpoint is missing or damaged.
    """
    audio = read_wav(wav)
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    return [int(token) for token in tokenizer.encode([audio])[0]]


def decode(checkpoint: Path, ids: list[int], wav: Path) -> float:
    """Write the sound of speech tokens as 22.05 kHz mono WAV.

    Args:
        checkpoint: Directory with speech_decoder/.
        ids: 0-based ids.
        wav: The file to write.

    Returns:
        Its length in seconds.

    Raises:
        ValueError: No ids, one out of range, or the file cannot be written.
        CheckpointError: The checkpoint is missing or damaged.
    """
    if not ids:
        raise ValueError("ids: expected at least one, got none")
    decoder = SpeechDecoder.from_pretrained(checkpoint / "speech_decoder")
    audio = decoder.decode(torch.tensor(ids, dtype=torch.int64))
    return _write_wav(wav, audio.numpy(), decoder.sample_rate)


def say(checkpoint: Path, request: TurnRequest, wav: Path) -> float:
    """Write a WAV in which the model says what a request asks for.

    Args:
        checkpoint: Directory with language_model/ and speech_decoder/.
        request: Words to say as they are, or an instruction, and how to sample.
        wav: The file to write, 22.05 kHz mono.

    Returns:
        Its length in seconds.

    Raises:
        ValueError: The model said nothing, or the file cannot be written.
        CheckpointError: The checkpoint is missing or damaged.
    """
    decoder = SpeechDecoder.from_pretrained(checkpoint / "speech_decoder")
    engine = GenerationEngine(LanguageModel.from_pretrained(checkpoint / "language_model"))
    engine.submit("say", np.zeros(0, dtype=np.int64), request)
    ids: list[int] = []
    while not engine.idle:
        for piece in engine.step():
            ids.extend(int(token) for token in piece.speech_tokens)
        engine.credit("say", len(ids))
    if not ids:
        raise ValueError("the model said nothing")
    audio = decoder.decode(torch.tensor(ids, dtype=torch.int64))
    return _write_wav(wav, audio.numpy(), decoder.sample_rate)


def read_wav(path: Path) -> NDArray[np.float32]:
    """A recording as the tokenizer takes it: float32 [n], 16 kHz mono, in [-1, 1].

    Raises:
        ValueError: The file cannot be read, is at another rate, not mono or without samples.
    """
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"{path}: {error}") from error
    if rate != CALLER_RATE or audio.shape[1] != 1:
        raise ValueError(
            f"{path}: {rate} Hz with {audio.shape[1]} channel(s), expected {CALLER_RATE} Hz mono"
        )
    if not len(audio):
        raise ValueError(f"{path}: no samples")
    return np.ascontiguousarray(audio[:, 0])


def parse_ids(text: str, source: str) -> list[int]:
    """Token ids from text: a JSON list, or whole numbers with blanks or commas between.

    Args:
        text: The text.
        source: Where it came from, for messages.

    Raises:
        ValueError: Something in it is no whole number.
    """
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            values = json.loads(stripped)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: not a JSON list of ids: {error.msg}") from error
    else:
        values = stripped.replace(",", " ").split()
    ids = []
    for value in values:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (isinstance(value, str) and value.lstrip("-").isdecimal()):
            raise ValueError(f"{source}: expected whole numbers, got {value!r}")
        ids.append(int(value))
    return ids


def _write_wav(path: Path, audio: NDArray[np.float32], rate: int) -> float:
    try:
        soundfile.write(path, np.clip(audio, -1.0, 1.0), rate, subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"{path}: {error}") from error
    return len(audio) / rate
