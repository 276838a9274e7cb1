"""Speaks a scenario's texts with synthetic voices, and keeps what was spoken.

Three kinds of voice, as ``engine:name``: ``flite:rms`` and ``espeak-ng:en-gb-scotland+m1`` where
those programs are installed, and ``nano``, the voice of the checkpoint that ships, everywhere.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator

from agent import offline
from agent.settings import SHIPPED_CHECKPOINT
from agent.sound import SAMPLE_RATE, resampled
from agent.speech.request import TurnRequest
from agent.training.voices import Manner, espeak, flite, level, trim
from telephony.simulator.part import Part

CACHE_VARIABLE = "REHEARSAL_CACHE"
_PROGRAMS = {"flite": "flite", "espeak-ng": "espeak-ng"}
_PREFERRED = ("flite:rms", "espeak-ng:en-us")
_BREAK = re.compile(r'<break\s+time="(\d+)ms"\s*/>')
_RECIPE = 1
"""Goes up when the same order comes out as other sound."""


class Voice(Part):
    """Who speaks, and how.

    Attributes:
        name: ``nano``, ``flite:NAME`` or ``espeak-ng:NAME``. Accents are espeak-ng's, such as
            ``espeak-ng:en-029``; a voice of another language gives that language's accent.
        speed: Pace, as a factor; ``nano`` has only its own.
        pitch: espeak-ng's pitch, 0 to 99; other engines have their own.
    """

    name: str
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    pitch: int = Field(default=50, ge=0, le=99)

    @field_validator("name")
    @classmethod
    def _engine(cls, value: str) -> str:
        engine, _, name = value.partition(":")
        if value != "nano" and (engine not in _PROGRAMS or not name):
            raise ValueError(f"expected nano, flite:NAME or espeak-ng:NAME, got {value!r}")
        return value


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


VoiceField = Annotated[Voice, BeforeValidator(_named)]
"""A voice, or only its name."""


def default_voice() -> Voice:
    """The voice of a scenario that names none: flite's rms, else espeak-ng, else nano."""
    for name in _PREFERRED:
        if shutil.which(_PROGRAMS[name.partition(":")[0]]):
            return Voice(name=name)
    return Voice(name="nano")


def cache_directory() -> Path:
    """Where spoken texts are kept: ``$REHEARSAL_CACHE``, else below the user's cache directory."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "glm-voice"


def without_breaks(text: str) -> str:
    """The words of a text, without its ``<break time="800ms"/>``."""
    return " ".join(_BREAK.sub(" ", text).split())


class Speaker:
    """Speaks texts, each once: the same order is answered from the disk."""

    def __init__(self, cache: Path | None = None) -> None:
        """Prepare to speak.

        Args:
            cache: Where sounds are kept; ``cache_directory()`` if not given.
        """
        self._cache = (cache or cache_directory()) / "voices"

    def speak(self, text: str, voice: Voice) -> NDArray[np.float32]:
        """Speak a text.

        Args:
            text: Words; ``<break time="800ms"/>`` among them is a silence.
            voice: Who speaks.

        Returns:
            float32 [n] at 16 kHz, at one level whatever the voice.

        Raises:
            ValueError: There is nothing to say, the voice is not installed, or it fails.
        """
        parts = _BREAK.split(text)
        words = [part.strip() for part in parts[::2]]
        if not any(words):
            raise ValueError(f"nothing to say in {text!r}")
        sounds = []
        for index, part in enumerate(words):
            if part:
                sounds.append(self._phrase(part, voice))
            if index < len(words) - 1:
                milliseconds = int(parts[2 * index + 1])
                sounds.append(np.zeros(milliseconds * SAMPLE_RATE // 1000, np.float32))
        return np.concatenate(sounds)

    def _phrase(self, text: str, voice: Voice) -> NDArray[np.float32]:
        order = json.dumps([_RECIPE, text, voice.model_dump()], sort_keys=True)
        path = self._cache / f"{hashlib.sha256(order.encode()).hexdigest()[:32]}.wav"
        if path.exists():
            audio, _ = soundfile.read(path, dtype="float32")
            return np.asarray(audio, np.float32)
        audio = _synthesise(text, voice)
        self._cache.mkdir(parents=True, exist_ok=True)
        # Several rehearsals may speak at once: nobody reads a file that is half written.
        with tempfile.NamedTemporaryFile(dir=self._cache, suffix=".wav", delete=False) as file:
            soundfile.write(file, audio, SAMPLE_RATE, "PCM_16", format="WAV")
        os.replace(file.name, path)
        return self._phrase(text, voice)


def _synthesise(text: str, voice: Voice) -> NDArray[np.float32]:
    engine, _, name = voice.name.partition(":")
    program = _PROGRAMS.get(engine)
    if program is not None and shutil.which(program) is None:
        raise ValueError(f"voice {voice.name}: the program {program} is not installed")
    manner = Manner(stretch=1 / voice.speed, pitch=voice.pitch)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if engine == "nano":
                audio = _nano(text, Path(folder))
            elif engine == "flite":
                audio, _ = flite(name, text, manner, Path(folder))
            else:
                audio = espeak(name, text, manner, Path(folder))
        except RuntimeError as error:
            raise ValueError(f"voice {voice.name}: {error}") from None
    if not np.abs(audio).max(initial=0.0) > 0.0:
        raise ValueError(f"voice {voice.name}: no sound for {text!r}")
    return np.asarray(level(trim(audio, None)[0]), np.float32)


def _nano(text: str, folder: Path) -> NDArray[np.float32]:
    path = folder / "nano.wav"
    offline.say(SHIPPED_CHECKPOINT, TurnRequest(say=text, temperature=0.2, seed=0), path)
    audio, rate = soundfile.read(path, dtype="float32")
    return resampled(audio, rate)
