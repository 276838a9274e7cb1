"""What lies between a caller's mouth and the phone network: background noise, gain, codecs.

All sound here is float32 [n] at 8 kHz in [-1, 1]. Twilio's own mu-law comes after it, always.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.signal import firwin, lfilter

from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.part import Part

LOOP_SECONDS = 20
"""Noise that is made, and not recorded, repeats after so long."""

Codec = Literal["g711_alaw", "gsm", "opus"]
"""Codecs of the way to Twilio: a European trunk, a mobile phone of the second generation, VoIP."""

Sound = NDArray[np.float32]
_FORMATS: dict[Codec, tuple[str, str]] = {
    "g711_alaw": ("WAV", "ALAW"),
    "gsm": ("WAV", "GSM610"),
    "opus": ("OGG", "OPUS"),
}


class Noise(Part):
    """What is heard behind the caller during the whole call.

    Attributes:
        kind: White, pink (minus 3 dB an octave), or speech-shaped: the long-term spectrum of the
            scenario's own lines.
        wav: A recording instead, repeated; a relative path starts at the scenario's file.
        snr_db: Level of the caller's speech over it, both as root mean squares.
    """

    kind: Literal["white", "pink", "speech"] | None = None
    wav: Path | None = None
    snr_db: float = Field(ge=-20, le=60)

    @model_validator(mode="after")
    def _one(self) -> "Noise":
        if (self.kind is None) == (self.wav is None):
            raise ValueError("give exactly one of kind and wav")
        return self


def speech_level(sounds: Sequence[Sound]) -> float:
    """Root mean square of lines where they are audible; 0 if none ever is."""
    parts = [
        sound[begin:end]
        for sound in sounds
        for begin, end in audible_spans((sound * 32767).astype(np.int16))
    ]
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) if parts else 0.0


def make_noise(noise: Noise, recording: Sound | None, speech: Sequence[Sound], seed: int) -> Sound:
    """Noise at its level, to be repeated.

    Args:
        noise: What is asked for.
        recording: The sound of ``noise.wav``, where there is one.
        speech: The scenario's lines, which its level goes by.
        seed: Of made noise: the same one, the same samples.

    Returns:
        float32 [n].

    Raises:
        ValueError: The recording is silent, or there is no speech to go by.
    """
    loudness = speech_level(speech)
    if not loudness:
        raise ValueError("noise: no line is spoken, so there is nothing to set its level by")
    sound = recording if recording is not None else _made(noise.kind, speech, seed)
    own = float(np.sqrt(np.mean(sound**2))) if len(sound) else 0.0
    if not own:
        raise ValueError(f"noise.wav: {noise.wav}: nothing audible in it")
    return np.asarray(sound * (loudness / own * 10 ** (-noise.snr_db / 20)), np.float32)


def through(codecs: Sequence[Codec], sound: Sound) -> Sound:
    """Sound after one codec after another.

    Args:
        codecs: In the order of the way.
        sound: float32 [n].

    Returns:
        float32 [n], not shifted in time.
    """
    for codec in codecs:
        container, subtype = _FORMATS[codec]
        file = io.BytesIO()
        soundfile.write(file, sound.clip(-1.0, 1.0), SAMPLE_RATE, subtype, format=container)
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
        sound = np.asarray(decoded[: len(sound)], np.float32)
    return sound


class Background:
    """A sound that goes on while nothing is said.

    Args:
        sound: int16 [n], repeated.
    """

    def __init__(self, sound: NDArray[np.int16]) -> None:
        self._sound = sound
        self._at = 0

    def frame(self, samples: int) -> NDArray[np.int16]:
        """The next samples: int16 [samples]."""
        places = np.arange(self._at, self._at + samples) % len(self._sound)
        self._at = int(places[-1] + 1)
        frame: NDArray[np.int16] = self._sound[places]
        return frame


def _made(kind: str | None, speech: Sequence[Sound], seed: int) -> Sound:
    samples = LOOP_SECONDS * SAMPLE_RATE
    white = np.random.default_rng(seed).standard_normal(samples)
    if kind == "white":
        return white.astype(np.float32)
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(white)
    if kind == "pink":
        spectrum /= np.sqrt(np.maximum(frequencies, 50.0))
    else:
        joined = np.concatenate(speech)
        width = 256
        frames = joined[: len(joined) // width * width].reshape(-1, width)
        power = (np.abs(np.fft.rfft(frames * np.hanning(width))) ** 2).mean(axis=0)
        spectrum *= np.sqrt(np.interp(frequencies, np.fft.rfftfreq(width, 1 / SAMPLE_RATE), power))
    # The phone network carries nothing below 300 Hz or so.
    band = firwin(129, 200, pass_zero=False, fs=SAMPLE_RATE)
    return np.asarray(lfilter(band, 1.0, np.fft.irfft(spectrum, samples)), np.float32)
