"""Reads what a caller says from WAV files, and writes what was heard."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from telephony.simulator.audible import SAMPLE_RATE, audible_windows
from telephony.simulator.caller import Line


def read_line(path: Path) -> Line:
    """Read one recorded line.

    Args:
        path: A WAV file, mono, at 16 or 8 kHz.

    Returns:
        The line at 8 kHz, on the recording's own time axis (the filter has no delay).

    Raises:
        ValueError: As ``read_recording``.
    """
    return Line.of(np.clip(read_recording(path) * 32768, -32768, 32767).astype(np.int16))


def read_recording(path: Path) -> NDArray[np.float32]:
    """Read a recording in which something can be heard.

    Args:
        path: A WAV file, mono, at 16 or 8 kHz.

    Returns:
        float32 [n] at 8 kHz, on the recording's own time axis.

    Raises:
        ValueError: The file cannot be read, is no WAV file, has another rate, more channels, no
            samples, or nothing audible; the message names the file.
    """
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"{path}: not a readable WAV file: {error}") from None
    if audio.shape[1] != 1:
        raise ValueError(f"{path}: expected one channel, got {audio.shape[1]}")
    if rate not in (SAMPLE_RATE, 2 * SAMPLE_RATE):
        raise ValueError(f"{path}: expected a sample rate of 16000 or 8000 Hz, got {rate}")
    if not len(audio):
        raise ValueError(f"{path}: no samples in it")
    samples = audio[:, 0]
    if rate != SAMPLE_RATE:
        samples = resample_poly(samples, 1, rate // SAMPLE_RATE)
    if not audible_windows((samples * 32767).clip(-32768, 32767).astype(np.int16)).any():
        raise ValueError(f"{path}: nothing audible in it")
    return np.asarray(samples, np.float32)


def write_call(path: Path, caller: NDArray[np.int16], agent: NDArray[np.int16]) -> None:
    """Write both sides of a call.

    Args:
        path: The WAV file: stereo at 8 kHz, caller left, agent right.
        caller: int16 [n].
        agent: int16 [n].
    """
    soundfile.write(path, np.stack([caller, agent], axis=1), SAMPLE_RATE, "PCM_16")
