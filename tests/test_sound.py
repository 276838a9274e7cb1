"""Sound at other rates, and what a phone line does to it."""

import numpy as np
import pytest

from agent.sound import mu_law, phone_band


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_phone_band_keeps_speech_and_stops_what_no_phone_carries() -> None:
    def power(x: np.ndarray) -> float:
        return float(np.mean(x[2_000:-2_000] ** 2))

    assert 0.95 < power(phone_band(tone(1_000))) / power(tone(1_000)) < 1.05
    assert power(phone_band(tone(5_000))) / power(tone(5_000)) < 1e-3


def test_phone_band_keeps_the_length() -> None:
    for samples in (1, 159, 16_001):
        assert len(phone_band(np.zeros(samples, np.float32))) == samples


def test_mu_law_levels_stay_where_they_are() -> None:
    once = mu_law(np.linspace(-1.2, 1.2, 1_001, dtype=np.float32))
    assert len(np.unique(once)) <= 256
    np.testing.assert_allclose(mu_law(once), once, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_phone_band_keeps_length_and_loses_what_a_phone_loses(rate):
    time = np.arange(rate) / rate
    kept = phone_band((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32), rate)
    assert kept.dtype == np.float32
    assert len(kept) == 16_000
    assert np.sqrt((kept**2).mean()) == pytest.approx(0.354, abs=0.01)
    if rate > 8000:
        lost = phone_band((0.5 * np.sin(2 * np.pi * 5500 * time)).astype(np.float32), rate)
        assert np.sqrt((lost[200:-200] ** 2).mean()) < 0.01


def test_mu_law_error_follows_the_level():
    audio = np.array([0.0, 0.001, -0.01, 0.1, -1.0, 2.0], np.float32)
    heard = mu_law(audio)
    np.testing.assert_allclose(heard[1:5], audio[1:5], rtol=0.15)
    assert heard[0] == 0.0
    assert heard[5] == pytest.approx(1.0)
