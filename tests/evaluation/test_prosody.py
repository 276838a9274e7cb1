"""Pace, pitch and energy against sounds that are known."""

import numpy as np
import pytest

from agent.evaluation.prosody import prosody


def voice(hertz, seconds=1.0, rate=16_000, loudness=0.1):
    time = np.arange(round(rate * seconds)) / rate
    parts = [np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8)]
    return (loudness * np.sum(parts, axis=0)).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("hertz", [75, 120, 210, 390])
def test_pitch_of_a_steady_voice_is_neither_an_octave_up_nor_down(hertz, rate):
    assert prosody(voice(hertz, rate=rate), rate, 1).pitch == pytest.approx(hertz, rel=2e-3)


def test_pauses_and_silence_around_change_neither_pace_nor_energy():
    silence = np.zeros(8_000, np.float32)
    plain = prosody(voice(120, 2.0), 16_000, 6)
    padded = prosody(np.concatenate([silence, voice(120), silence, voice(120)]), 16_000, 6)
    assert plain.rate == pytest.approx(3.0, rel=0.05)
    assert padded.rate == pytest.approx(plain.rate, rel=0.08)
    assert padded.energy == pytest.approx(plain.energy, abs=0.5)


def test_twice_as_loud_is_six_decibels():
    soft, loud = (prosody(voice(120, loudness=a), 16_000, 1).energy for a in (0.05, 0.1))
    assert loud - soft == pytest.approx(6.02, abs=0.01)


def test_noise_has_no_pitch_and_silence_has_nothing():
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    assert prosody(0.1 * noise, 16_000, 1).pitch is None
    assert prosody(np.zeros(16_000, np.float32), 16_000, 1) is None
    assert prosody(np.zeros(0, np.float32), 16_000, 1) is None
