"""Free speech synthesisers of the Debian archive: flite, festival and espeak-ng.

They are the only speakers the nano checkpoint ever heard, and its card says so.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from agent.evaluation.text import Language
from agent.training.line import NEUTRAL
from agent.training.shards import SAMPLE_RATE

Phones = list[tuple[str, float]]
AGENT_VOICES: dict[Language, str] = {
    "en": "flite:slt",
    "zh": "espeak-ng:cmn-latn-pinyin+f2",
}


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        name: "engine:name", with "@1.12" behind it where all frequencies are so much higher, as of
            another speaker's throat, at the same pace.
        weight: How often it is drawn.
        seen: Whether training hears it.
    """

    name: str
    weight: float = 1.0
    seen: bool = True


# Natural voices, each as several speakers.
_NATURAL = {
    "flite:rms": 4.0,
    "festival:cmu_us_slt_arctic_hts": 3.0,
    "flite:kal16": 2.5,
    "festival:ked_diphone": 2.5,
    "festival:kal_diphone": 2.0,
}
_SHIFTED = {
    "flite:rms": (0.9, 1.12, 1.24),
    "flite:kal16": (0.92, 1.15),
    "festival:cmu_us_slt_arctic_hts": (0.84, 0.93, 1.1),
    "festival:ked_diphone": (0.92, 1.14),
    "festival:kal_diphone": (1.1,),
    "flite:slt": (0.87,),
}
# Variants of espeak-ng that sound like a person on a bad line; others only confuse a tokenizer.
_ESPEAK = (
    *("en-us", "en-us+m1", "en-us+m3", "en-us+f2", "en-us+f4", "en-us+Andy", "en-us+linda"),
    *("en-us+steph", "en-gb+m2", "en-gb+f1", "en-gb+m4", "en-gb-x-rp", "en-gb-x-rp+f2"),
    *("en-029+m7", "en-gb-scotland+m1", "en-us-nyc+f3", "en-us+m2", "en-us+m5", "en-us+f1"),
    *("en-gb+m8", "en-gb-x-gbclan+m3", "en-gb-x-gbcwmd+f4", "en-gb-scotland+f2", "en-029+f1"),
    *("en-us+Alex", "en-us+Annie", "en-us+Denis", "en-us+Michael"),
)
_MANDARIN = (
    *("", "+m1", "+m2", "+m3", "+m4", "+m7", "+f1", "+f3", "+f4", "+Andy", "+linda", "+Annie"),
)
CALLERS: dict[Language, tuple[Voice, ...]] = {
    "en": (
        *(Voice(name, weight) for name, weight in _NATURAL.items()),
        *(Voice(f"{name}@{factor}", 1.5) for name, by in _SHIFTED.items() for factor in by),
        *(Voice(f"espeak-ng:{name}") for name in _ESPEAK),
        Voice("flite:awb", seen=False),
        Voice("espeak-ng:en-us+m6", seen=False),
        Voice("espeak-ng:en-gb-x-rp+f3", seen=False),
    ),
    "zh": (
        *(Voice(f"espeak-ng:cmn-latn-pinyin{variant}") for variant in _MANDARIN),
        Voice("espeak-ng:cmn-latn-pinyin+m6", seen=False),
        Voice("espeak-ng:cmn-latn-pinyin+f5", seen=False),
    ),
}


@dataclass(frozen=True)
class Manner:
    """How something is said.

    Attributes:
        stretch: Durations, as a factor; 1 is the voice's own pace.
        pitch: espeak-ng's pitch, 0 to 99.
        melody: flite's mean and deviation of the pitch, in Hz; None for the voice's own.
    """

    stretch: float = 1.0
    pitch: int = 50
    melody: tuple[int, int] | None = None


STYLES = {
    NEUTRAL: Manner(),
    "slow": Manner(1.4),
    "fast": Manner(0.75),
    "cheerful": Manner(0.95, melody=(225, 32)),
}
"""How the agent speaks in each style; its own voice has about 173 Hz."""


def require_synthesisers() -> None:
    """Check that the programs are there.

    Raises:
        RuntimeError: Names what is missing and how to install it.
    """
    missing = [name for name in ("flite", "espeak-ng", "festival") if shutil.which(name) is None]
    if missing:
        raise RuntimeError(
            f"not installed: {', '.join(missing)}. On Debian or Ubuntu: apt-get install flite "
            "espeak-ng festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
        )


def _at_16_khz(path: Path) -> npt.NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    divisor = math.gcd(rate, SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        samples = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor)
    return np.asarray(samples, dtype=np.float32)


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def flite(
    name: str, text: str, manner: Manner, folder: Path
) -> tuple[npt.NDArray[np.float32], Phones]:
    """Speak with flite; returns float32 [n] at 16 kHz and (phone, end in seconds)."""
    path = folder / "flite.wav"
    settings = [f"duration_stretch={manner.stretch:.3f}"]
    if manner.melody:
        mean, deviation = manner.melody
        settings += [f"int_f0_target_mean={mean}", f"int_f0_target_stddev={deviation}"]
    asked = [part for setting in settings for part in ("--setf", setting)]
    out = _run(["flite", "-voice", name, *asked, "-psdur", "-t", text, "-o", path])
    pairs = (token.rsplit(":", 1) for token in out.split() if ":" in token)
    return _at_16_khz(path), [(phone, float(end)) for phone, end in pairs]


def espeak(name: str, text: str, manner: Manner, folder: Path) -> npt.NDArray[np.float32]:
    """Speak with espeak-ng; returns float32 [n] at 16 kHz. A Mandarin voice is given pinyin."""
    path = folder / "espeak.wav"
    if "pinyin" in name:
        text = pinyin(text)
    speed = str(round(160 / manner.stretch))
    _run(["espeak-ng", "-v", name, "-s", speed, "-p", str(manner.pitch), "-w", path, text])
    return _at_16_khz(path)


def festival(
    requests: Sequence[tuple[str, str, Manner]], folder: Path
) -> list[npt.NDArray[np.float32]]:
    """Speak many (voice, text, manner) in one run of festival, whose start is slow."""
    script = folder / "festival.scm"
    steps = []
    for index, (name, text, manner) in enumerate(requests):
        quoted = text.replace("\\", "").replace('"', "")
        steps.append(
            f"(voice_{name}) (Parameter.set 'Duration_Stretch {manner.stretch:.3f})\n"
            f'(utt.save.wave (utt.synth (Utterance Text "{quoted}")) '
            f'"{folder / f"festival{index}.wav"}" \'riff)'
        )
    script.write_text("\n".join(steps), encoding="utf-8")
    _run(["festival", "-b", script])
    return [_at_16_khz(folder / f"festival{index}.wav") for index in range(len(requests))]


def pinyin(text: str) -> str:
    """Syllables of a Mandarin text with their tones, as espeak-ng reads them; pauses stay.

    espeak-ng's own reading of characters lacks its dictionary in Debian.
    """
    from pypinyin import Style, lazy_pinyin  # only trainings need it

    syllables = lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True)
    return " ".join(syllables).translate(str.maketrans("，。？！", ",.?!"))


def shifted(
    audio: npt.NDArray[np.float32], phones: Phones | None, factor: float
) -> tuple[npt.NDArray[np.float32], Phones | None]:
    """Raise all frequencies, as a smaller speaker's; it gets shorter by the same factor."""
    step = Fraction(factor).limit_denominator(50)
    audio = resample_poly(audio, step.denominator, step.numerator).astype(np.float32)
    moved = None if phones is None else [(name, end / float(step)) for name, end in phones]
    return audio, moved


def trim(
    audio: npt.NDArray[np.float32], phones: Phones | None, keep: float = 0.08
) -> tuple[npt.NDArray[np.float32], Phones | None]:
    """Cut the silence at both ends down to ``keep`` seconds, and shift the phones along."""
    frame = SAMPLE_RATE // 100
    frames = np.resize(audio, (max(1, len(audio) // frame), frame))
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(level > 0.02 * level.max())
    margin = round(keep * SAMPLE_RATE)
    start = max(0, int(loud[0]) * frame - margin)
    end = min(len(audio), (int(loud[-1]) + 1) * frame + margin)
    if phones is not None:
        length = (end - start) / SAMPLE_RATE
        kept: Phones = []
        for phone, until in phones:
            moved = min(until - start / SAMPLE_RATE, length)
            if moved > (kept[-1][1] if kept else 0.0):
                kept.append((phone, round(moved, 3)))
        phones = kept
    return audio[start:end], phones


def level(audio: npt.NDArray[np.float32], rms: float = 0.08) -> npt.NDArray[np.float32]:
    """Bring speech to a root mean square, as far as its peaks allow."""
    gain = rms / max(float(np.sqrt((audio**2).mean())), 1e-6)
    return audio * min(gain, 0.95 / max(float(np.abs(audio).max()), 1e-6))
