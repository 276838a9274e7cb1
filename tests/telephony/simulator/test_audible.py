"""When something can be heard, told from samples and from bytes of the wire."""

import numpy as np
import pytest

from telephony import mulaw
from telephony.simulator.audible import Ear

THRESHOLD = 32768 * 10 ** (-45 / 20)


def heard(frames, forget_at, listen):
    ear = Ear()
    log = []
    for number, frame in enumerate(frames):
        if number in forget_at:
            ear.forget()
        listen(ear, frame)
        log.append((ear.position, ear.onset, ear.last_audible))
    return log


@pytest.mark.parametrize("length", [160, 40, 400])
@pytest.mark.parametrize("level", [0.3, 0.9, 1.0, 1.1, 3.0, 50.0])
def test_an_ear_hears_the_same_in_bytes_as_in_samples(length, level):
    rng = np.random.default_rng(7)
    windows = [THRESHOLD * level * rng.standard_normal(40) for _ in range(300)]
    for number in rng.integers(0, 300, 100):
        windows[number][:] = 0
    for number in rng.integers(0, 300, 20):
        windows[number][rng.integers(40)] = 9000
    sound = np.concatenate(windows).astype(np.int16)
    frames = [mulaw.encode(part) for part in np.split(sound, len(sound) // length)]
    forget_at = set(range(0, len(frames), 7))
    in_bytes = heard(frames, forget_at, Ear.hear_coded)
    in_samples = heard(frames, forget_at, lambda ear, frame: ear.hear(mulaw.decode(frame)))
    assert in_bytes == in_samples
    assert len({last for _, _, last in in_samples}) > 5


def test_steady_sound_at_the_bound_is_heard_the_same_in_bytes_as_in_samples():
    """One sample decides for its window only where nothing else can."""
    for code in range(256):
        frame = bytes([code]) * 160
        by_bytes, by_samples = Ear(), Ear()
        by_bytes.hear_coded(frame)
        by_samples.hear(mulaw.decode(frame))
        assert by_bytes.onset == by_samples.onset, code
        assert by_bytes.last_audible == by_samples.last_audible, code
