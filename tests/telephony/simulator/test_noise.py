"""Noise at its level, codecs in their place."""

from pathlib import Path

import numpy as np
import pytest

from telephony.simulator.noise import Background, Noise, make_noise, speech_level, through


@pytest.fixture
def speech(tone):
    silence = np.zeros(4000, np.float32)
    return np.concatenate([silence, tone(1.0).astype(np.float32) / 32768, silence])


def rms(sound):
    return float(np.sqrt(np.mean(sound**2)))


def test_speech_is_measured_where_it_is_audible(speech):
    assert speech_level([speech]) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize("kind", ["white", "pink", "speech"])
@pytest.mark.parametrize("snr", [0, 20])
def test_noise_comes_at_its_level(speech, kind, snr):
    noise = make_noise(Noise(kind=kind, snr_db=snr), None, [speech], seed=1)

    assert 20 * np.log10(speech_level([speech]) / rms(noise)) == pytest.approx(snr, abs=0.1)


def test_a_recording_of_noise_comes_at_its_level(speech, tone):
    recording = tone(2.0, hertz=1000.0).astype(np.float32) / 70000

    noise = make_noise(Noise(wav=Path("x.wav"), snr_db=12), recording, [speech], seed=1)

    assert 20 * np.log10(speech_level([speech]) / rms(noise)) == pytest.approx(12, abs=0.1)


def test_noise_is_the_same_for_the_same_seed(speech):
    def make(seed):
        return make_noise(Noise(kind="pink", snr_db=9), None, [speech], seed)

    assert np.array_equal(make(3), make(3))
    assert not np.array_equal(make(3), make(4))


def test_speech_shaped_noise_has_the_spectrum_of_the_lines(speech):
    noise = make_noise(Noise(kind="speech", snr_db=9), None, [speech], seed=1)

    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / 8000)
    assert power[(hertz > 380) & (hertz < 500)].sum() > 0.9 * power.sum()


def test_noise_without_speech_to_set_its_level_by_is_refused():
    with pytest.raises(ValueError, match="no line is spoken"):
        make_noise(Noise(kind="white", snr_db=9), None, [], seed=1)


@pytest.mark.parametrize("fields", [{}, {"kind": "white", "wav": "x.wav"}])
def test_noise_has_one_source(fields):
    with pytest.raises(ValueError, match="exactly one of kind and wav"):
        Noise.model_validate({"snr_db": 3, **fields})


@pytest.mark.parametrize(("codec", "worst_db"), [("g711_alaw", 30), ("gsm", 8), ("opus", 8)])
def test_a_codec_changes_the_sound_and_not_its_time(codec, worst_db):
    rng = np.random.default_rng(0)
    speech = np.convolve(rng.normal(0, 0.1, 24_077), np.ones(8) / 8, "same").astype(np.float32)

    coded = through([codec], speech)

    assert len(coded) == len(speech)
    assert not np.array_equal(coded, speech)
    lags = range(-40, 41)
    likeness = [np.dot(np.roll(coded, lag), speech) for lag in lags]
    assert lags[int(np.argmax(likeness))] == 0
    assert 20 * np.log10(rms(speech) / rms(coded - speech)) > worst_db


def test_the_background_repeats_without_a_gap():
    background = Background(np.arange(250, dtype=np.int16))

    frames = np.concatenate([background.frame(160) for _ in range(5)])

    assert np.array_equal(frames, np.arange(800) % 250)
