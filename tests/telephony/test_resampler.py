"""The resampler, measured on its own output: no time is taken, every figure is computed."""

import numpy as np
import pytest

from telephony.resampler import Resampler

PHONE_PATHS = [(8000, 16000), (16000, 8000), (22050, 8000), (8000, 22050)]
OTHER_PATHS = [(16000, 22050), (22050, 16000), (24000, 8000), (48000, 8000), (8000, 8000)]
AMPLITUDE = 30000.0


def resample(samples, source, target):
    resampler = Resampler(source, target)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def sine(hertz, rate, seconds=1.0):
    t = np.arange(round(seconds * rate)) / rate
    return np.rint(AMPLITUDE * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def lines(samples, rate):
    """Frequencies and levels (dB over AMPLITUDE) of a second's spectrum, away from its edges."""
    middle = samples[len(samples) // 4 :][: rate // 2].astype(float)
    window = np.blackman(len(middle))
    spectrum = np.abs(np.fft.rfft(middle * window)) / (window.sum() / 2) / AMPLITUDE
    return np.fft.rfftfreq(len(middle), 1 / rate), 20 * np.log10(spectrum + 1e-12)


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS + OTHER_PATHS)
@pytest.mark.parametrize("seed", range(3))
def test_any_chunking_equals_whole_to_the_last_bit(source, target, seed):
    rng = np.random.default_rng(seed)
    samples = rng.integers(-32768, 32768, 5000).astype(np.int16)
    whole = resample(samples, source, target)
    resampler = Resampler(source, target)
    parts = []
    begin = 0
    while begin < len(samples):
        size = int(rng.choice([0, 1, 2, 7, 160, 441, 1000]))
        parts.append(resampler.push(samples[begin : begin + size]))
        begin += size
    parts.append(resampler.flush())
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS + OTHER_PATHS)
@pytest.mark.parametrize("count", [0, 1, 2, 159, 441, 4410])
def test_nothing_is_lost_at_the_end(source, target, count):
    assert len(resample(np.zeros(count, np.int16), source, target)) == -(-count * target // source)


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS)
def test_at_most_three_milliseconds_are_held_back(source, target):
    resampler = Resampler(source, target)
    received = emitted = 0
    for _ in range(50):
        emitted += len(resampler.push(np.zeros(source // 50, np.int16)))
        received += source // 50
        missing = received / source - emitted / target
        assert missing <= 0.003
    assert resampler.held_back <= 0.003
    assert missing == pytest.approx(resampler.held_back, abs=1 / min(source, target))


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS)
def test_nothing_is_shifted_in_time(source, target):
    out = resample(sine(500, source), source, target)
    expected = sine(500, target)
    middle = slice(target // 4, -target // 4)
    residue = out[middle].astype(float) - expected[middle]
    assert np.sqrt(np.mean(residue**2)) < 1e-3 * AMPLITUDE


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS)
def test_the_phone_band_is_flat(source, target):
    for hertz in (100, 300, 1000, 2000, 3000, 3200, 3400):
        frequencies, levels = lines(resample(sine(hertz, source), source, target), target)
        level = levels[np.argmin(np.abs(frequencies - hertz))]
        assert abs(level) < (0.01 if hertz <= 3000 else 0.3), (hertz, level)


@pytest.mark.parametrize(("source", "target"), PHONE_PATHS)
def test_images_and_aliases_are_below_minus_60_db(source, target):
    nyquist = min(source, target) / 2
    for hertz in (*range(200, 4000, 200), *range(4000, source // 2, 250)):
        frequencies, levels = lines(resample(sine(hertz, source), source, target), target)
        away = np.abs(frequencies - hertz) > 20 if hertz < nyquist else np.full(len(levels), True)
        assert levels[away].max() < -60, (hertz, levels[away].max())


def test_a_flushed_resampler_begins_anew():
    samples = sine(700, 22050, 0.1)
    resampler = Resampler(22050, 8000)
    first = np.concatenate((resampler.push(samples), resampler.flush()))
    second = np.concatenate((resampler.push(samples), resampler.flush()))
    np.testing.assert_array_equal(first, second)


def test_what_would_overflow_is_clipped_not_wrapped():
    samples = np.where(np.arange(4000) % 40 < 20, 32767, -32768).astype(np.int16)
    out = resample(samples, 8000, 16000).astype(int)
    assert np.abs(np.diff(out)).max() < 65535
    assert out.max() == 32767
    assert out.min() == -32768


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1), (8000.0, 16000)])
def test_a_rate_that_is_none_is_refused_by_name(rates):
    with pytest.raises(ValueError, match="_rate: expected a positive integer"):
        Resampler(*rates)


@pytest.mark.parametrize("samples", [np.zeros(4), np.zeros((2, 2), np.int16)])
def test_samples_of_another_kind_are_refused(samples):
    with pytest.raises(ValueError, match=r"samples: expected int16 \[n\]"):
        Resampler(8000, 16000).push(samples)
