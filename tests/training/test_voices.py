"""Synthesisers: what a voice is asked for is what is heard."""

import shutil

import numpy as np
import pytest

from agent.evaluation.prosody import prosody
from agent.training import voices
from agent.training.shards import SAMPLE_RATE
from agent.training.synthesis import Order, render
from agent.training.voices import (
    AGENT_VOICES,
    CALLERS,
    STYLES,
    Manner,
    level,
    pinyin,
    shifted,
    trim,
)

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
TEXT = "We are open from eight in the morning to six in the evening, Monday to Friday."


def test_phones_follow_the_audio_when_silence_is_cut():
    speech = 0.3 * np.sin(np.arange(SAMPLE_RATE // 2) / 5)
    quiet = np.zeros(SAMPLE_RATE // 2)
    audio = np.concatenate([quiet, speech, quiet]).astype(np.float32)
    cut, phones = trim(audio, [("pau", 0.5), ("aa", 1.0), ("pau", 1.2), ("pau", 1.5)], keep=0.1)
    assert len(cut) / SAMPLE_RATE == pytest.approx(0.7, abs=0.021)
    assert phones is not None
    assert [name for name, _ in phones] == ["pau", "aa", "pau"]
    ends = [end for _, end in phones]
    np.testing.assert_allclose(ends, [0.1, 0.6, 0.7], atol=0.021)


def test_level_never_clips():
    spike = np.zeros(16000, np.float32)
    spike[100] = 0.5
    assert np.abs(level(spike, rms=0.3)).max() <= 0.951


def test_missing_program_is_named(monkeypatch):
    monkeypatch.setattr(voices.shutil, "which", lambda name: None if name == "flite" else name)
    with pytest.raises(RuntimeError, match="not installed: flite"):
        voices.require_synthesisers()


def spoken(voice, manner):
    ((samples, phones),) = render([Order("a", "agent", voice, TEXT, "en", manner)])
    heard = prosody(samples.astype(np.float32) / 32768, SAMPLE_RATE, len(TEXT.split()))
    assert heard is not None
    return heard, len(samples) / SAMPLE_RATE, phones


@needs_flite
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_shifted_voice_speaks_at_another_pace_or_in_its_old_pitch(factor):
    own, seconds, phones = spoken("flite:rms", Manner())
    other, others_seconds, others_phones = spoken(f"flite:rms@{factor}", Manner())
    assert others_seconds == pytest.approx(seconds, rel=0.06)
    assert other.pitch == pytest.approx(own.pitch * factor, rel=0.06)
    names = [[name for name, _ in found] for found in (phones, others_phones)]
    assert names[0] == names[1]
    ends = [np.array([end for _, end in found]) for found in (phones, others_phones)]
    np.testing.assert_allclose(ends[1], ends[0], atol=0.25)
    assert ends[1][-1] == pytest.approx(others_seconds, abs=0.05)


def test_a_tone_is_not_moved_with_its_phones():
    tone = np.sin(2 * np.pi * 400 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    moved, phones = shifted(tone, [("aa", 0.5), ("pau", 1.0)], 1.25)
    assert moved.dtype == np.float32
    assert len(moved) == SAMPLE_RATE * 4 // 5
    peak = np.abs(np.fft.rfft(moved)).argmax() * SAMPLE_RATE / len(moved)
    assert peak == pytest.approx(500, abs=2)
    assert phones == [("aa", pytest.approx(0.4)), ("pau", pytest.approx(0.8))]
    assert shifted(tone, None, 0.8)[1] is None


@needs_flite
def test_a_style_is_not_heard():
    plain, *_ = spoken(AGENT_VOICES["en"], STYLES["neutral"])
    found = {style: spoken(AGENT_VOICES["en"], manner)[0] for style, manner in STYLES.items()}
    assert found["neutral"] == plain
    assert found["slow"].rate < 0.85 * plain.rate
    assert found["fast"].rate > 1.15 * plain.rate
    assert 12 * np.log2(found["cheerful"].pitch / plain.pitch) > 2
    for style in ("slow", "fast"):
        assert abs(12 * np.log2(found[style].pitch / plain.pitch)) < 1


def test_pinyin_loses_a_tone_or_a_pause():
    pytest.importorskip("pypinyin", reason="only trainings need it")
    assert pinyin("你好，我妈的吗？") == "ni3 hao3 , wo3 ma1 de5 ma5 ?"
    assert pinyin("八点。") == "ba1 dian3 ."


def test_a_mandarin_voice_is_given_characters(monkeypatch, tmp_path):
    pytest.importorskip("pypinyin", reason="only trainings need it")
    asked = []
    monkeypatch.setattr(voices, "_run", asked.append)
    monkeypatch.setattr(voices, "_at_16_khz", lambda path: np.zeros(1, np.float32))
    voices.espeak("cmn-latn-pinyin+f2", "八点。", Manner(stretch=0.8, pitch=40), tmp_path)
    voices.espeak("en-us+m1", "Eight.", Manner(), tmp_path)
    assert [command[-1] for command in asked] == ["ba1 dian3 .", "Eight."]
    assert asked[0][1:7] == ["-v", "cmn-latn-pinyin+f2", "-s", "200", "-p", "40"]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_syllables_of_another_tone_sound_alike():
    pytest.importorskip("pypinyin", reason="only trainings need it")
    pitches = {}
    for text in ("妈。", "马。"):
        ((samples, phones),) = render(
            [Order("a", "agent", AGENT_VOICES["zh"], text, "zh", Manner())]
        )
        assert phones is None
        assert 0.2 < len(samples) / SAMPLE_RATE < 1.0
        heard = prosody(samples.astype(np.float32) / 32768, SAMPLE_RATE, 1)
        pitches[text] = heard.pitch
    assert 12 * np.log2(pitches["妈。"] / pitches["马。"]) > 1.5  # high, and low


def test_a_voice_is_twice_in_the_list_or_the_agents_own():
    for language, callers in CALLERS.items():
        names = [voice.name for voice in callers]
        assert len(set(names)) == len(names)
        assert AGENT_VOICES[language] not in names
        assert {voice.seen for voice in callers} == {True, False}
