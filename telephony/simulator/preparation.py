"""Makes a scenario's sounds before the call: lines read or spoken, noise, gain, codecs."""

from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.caller import Caller, Line
from telephony.simulator.checks.outside import Outside
from telephony.simulator.listening import RecogniserListener
from telephony.simulator.noise import Background, Sound, make_noise, through
from telephony.simulator.recording import read_recording
from telephony.simulator.scenario import Scenario, Turn
from telephony.simulator.spoken_text import Speaker, default_voice

_KEY_SAMPLES = SAMPLE_RATE // 5
"""A key is held for a tenth of a second, and the next comes a tenth later."""
_WAIT_SAMPLES = SAMPLE_RATE // 2


@dataclass(frozen=True)
class Sounds:
    """What a caller needs for its call.

    Attributes:
        lines: One for each of the scenario's lines.
        background: What is heard between them; None: nothing.
    """

    lines: tuple[Line, ...]
    background: Background | None


def prepare(scenario: Scenario, speaker: Speaker | None = None) -> Sounds:
    """Read and speak everything that a scenario may say.

    Args:
        scenario: The script.
        speaker: Speaks what is not recorded; one with the usual cache if not given.

    Returns:
        Its sounds.

    Raises:
        ValueError: A recording or a voice cannot be used; the message names it.
    """
    speaker = speaker or Speaker()
    spoken = {i: _sound(t, scenario, speaker) for i, t in enumerate(scenario.lines) if t.is_spoken}
    # Where a line can be heard is settled before noise and codecs blur it.
    clean = {index: Line.of(_samples(sound)) for index, sound in spoken.items()}
    noise: Sound | None = None
    if scenario.noise is not None:
        path = scenario.noise.wav
        recording = read_sound(path) if path is not None else None
        noise = make_noise(scenario.noise, recording, list(spoken.values()), scenario.seed)
    gain = 10 ** (scenario.gain_db / 20)
    rng = np.random.default_rng(scenario.seed)
    lines: list[Line] = []
    for index, turn in enumerate(scenario.lines):
        if index not in spoken:
            lines.append(_wordless(turn, noise, scenario, rng))
            continue
        sound = spoken[index] * 10 ** (turn.gain_db / 20)
        sound = through(scenario.codec, (sound + _stretch(noise, len(sound), rng)) * gain)
        lines.append(Line(_samples(sound), clean[index].first, clean[index].end))
    background = None
    if noise is not None:
        background = Background(_samples(through(scenario.codec, noise * gain)))
    return Sounds(tuple(lines), background)


def new_caller(scenario: Scenario) -> Caller:
    """The caller of a scenario, with its lines read or spoken.

    One with a goal listens through a recogniser, where there is one, until it is given records.

    Raises:
        ValueError: A recording or a voice cannot be used; the message names it.
    """
    sounds = prepare(scenario)
    caller = Caller(scenario, sounds.lines, background=sounds.background)
    if scenario.goal is not None:
        caller.listen_through(RecogniserListener(Outside()))
    return caller


def read_sound(path: Path) -> Sound:
    """Any sound file, of any rate and number of channels, as float32 [n] at 8 kHz.

    Raises:
        ValueError: It cannot be read; the message names it.
    """
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"{path}: not a readable sound file: {error}") from None
    mono = audio.mean(axis=1)
    common = gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(mono, SAMPLE_RATE // common, rate // common), np.float32)


def _sound(turn: Turn, scenario: Scenario, speaker: Speaker) -> Sound:
    if turn.wav is not None:
        return read_recording(turn.wav)
    voice = turn.voice or scenario.voice or default_voice()
    return np.asarray(resample_poly(speaker.speak(turn.say, voice), 1, 2), np.float32)


def _stretch(noise: Sound | None, samples: int, rng: np.random.Generator) -> Sound:
    if noise is None:
        return np.zeros(samples, np.float32)
    begin = int(rng.integers(len(noise)))
    stretch: Sound = noise[np.arange(begin, begin + samples) % len(noise)]
    return stretch


def _wordless(
    turn: Turn, noise: Sound | None, scenario: Scenario, rng: np.random.Generator
) -> Line:
    """Keys, or nothing at all. An answer to silence may come from its first sample on."""
    keys, at = _keys(turn.digits or "")
    samples = at if turn.silence_ms is None else turn.silence_ms * SAMPLE_RATE // 1000
    sound = _stretch(noise, samples, rng) * 10 ** (scenario.gain_db / 20)
    audio = _samples(through(scenario.codec, sound))
    return Line(audio, 0, 1 if turn.silence_ms is not None else samples, keys)


def _keys(digits: str) -> tuple[tuple[tuple[int, str], ...], int]:
    """When each key is pressed, in samples, and when the last has been let go."""
    keys: list[tuple[int, str]] = []
    at = 0
    for digit in digits:
        if digit == "w":
            at += _WAIT_SAMPLES
        else:
            keys.append((at, digit))
            at += _KEY_SAMPLES
    return tuple(keys), at


def _samples(sound: Sound) -> NDArray[np.int16]:
    return np.clip(sound * 32768, -32768, 32767).astype(np.int16)
