"""Recorded lines: what cannot be used is named."""

import pytest
import soundfile

from telephony.simulator.recording import read_line


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_line_is_read_at_8_khz_with_its_audible_part_in_place(wav, rate):
    line = read_line(wav(before=0.3, seconds=1.0, after=0.4, rate=rate))

    assert len(line.audio) == 1.7 * 8000
    assert line.first / 8000 == pytest.approx(0.3, abs=0.006)
    assert line.end / 8000 == pytest.approx(1.3, abs=0.006)


def test_a_wrong_rate_is_named(wav):
    with pytest.raises(ValueError, match=r"line\.wav: .* 16000 or 8000 Hz, got 44100"):
        read_line(wav(rate=44100))


def test_stereo_is_named(wav):
    with pytest.raises(ValueError, match=r"line\.wav: expected one channel, got 2"):
        read_line(wav(channels=2))


def test_a_file_without_samples_is_named(tmp_path):
    soundfile.write(tmp_path / "empty.wav", [], 16000)
    with pytest.raises(ValueError, match=r"empty\.wav: no samples"):
        read_line(tmp_path / "empty.wav")


def test_silence_is_named(wav):
    with pytest.raises(ValueError, match=r"line\.wav: nothing audible"):
        read_line(wav(seconds=0.0))


def test_what_is_no_wav_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(ValueError, match=name):
            read_line(tmp_path / name)
