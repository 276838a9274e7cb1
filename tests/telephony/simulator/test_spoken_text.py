"""Synthetic voices: what is kept, and what is said when one is not there."""

import numpy as np
import pytest

from telephony.simulator import spoken_text
from telephony.simulator.spoken_text import Speaker, Voice, default_voice, without_breaks


@pytest.fixture
def spoken(monkeypatch, tone):
    """Tones instead of voices; every text that was spoken, and by whom."""
    orders = []

    def speak(name, text, manner, folder):
        orders.append((name, text, manner))
        return tone(0.5, 16000).astype(np.float32) / 32768

    monkeypatch.setattr(spoken_text.shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(spoken_text, "espeak", speak)
    monkeypatch.setattr(spoken_text, "flite", lambda *order: (speak(*order), []))
    return orders


def test_a_text_is_spoken_once(spoken, tmp_path):
    voice = Voice(name="flite:rms")

    first = Speaker(tmp_path).speak("Hello.", voice)
    again = Speaker(tmp_path).speak("Hello.", voice)

    assert len(spoken) == 1
    assert np.array_equal(first, again)
    assert first.dtype == np.float32
    assert len(first) == pytest.approx(0.5 * 16000, rel=0.05)


@pytest.mark.parametrize("other", [{"name": "espeak-ng:en-029"}, {"speed": 1.2}, {"pitch": 80}])
def test_another_voice_or_manner_is_another_sound(spoken, tmp_path, other):
    Speaker(tmp_path).speak("Hello.", Voice(name="espeak-ng:en-us"))
    Speaker(tmp_path).speak("Hello.", Voice.model_validate({"name": "espeak-ng:en-us", **other}))

    assert len(spoken) == 2


def test_a_break_is_silence_of_its_length(spoken, tmp_path):
    speaker, voice = Speaker(tmp_path), Voice(name="flite:rms")
    alone = len(speaker.speak("One", voice))

    sound = speaker.speak('One <break time="750ms"/> two', voice)

    assert [order[1] for order in spoken] == ["One", "two"]
    assert len(sound) == 2 * alone + 0.75 * 16000
    assert not sound[alone : alone + 12000].any()
    assert without_breaks('One <break time="750ms"/> two') == "One two"


@pytest.mark.parametrize(
    ("installed", "voice"),
    [
        ({"flite", "espeak-ng"}, "flite:rms"),
        ({"espeak-ng"}, "espeak-ng:en-us"),
        (set(), "nano"),
    ],
)
def test_the_usual_voice_is_one_that_is_there(monkeypatch, installed, voice):
    monkeypatch.setattr(
        spoken_text.shutil, "which", lambda program: program if program in installed else None
    )
    assert default_voice().name == voice


def test_a_voice_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(spoken_text.shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match="flite:slt: the program flite is not installed"):
        Speaker(tmp_path).speak("Hello.", Voice(name="flite:slt"))


@pytest.mark.parametrize("name", ["flite", "flite:", "kokoro:af", ""])
def test_an_unknown_engine_is_named(name):
    with pytest.raises(ValueError, match="expected nano, flite:NAME or espeak-ng:NAME"):
        Voice(name=name)


def test_nothing_to_say_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to say"):
        Speaker(tmp_path).speak(' <break time="5ms"/> ', Voice(name="nano"))


@pytest.mark.parametrize("name", ["flite:rms", "espeak-ng:en-gb-scotland"])
def test_installed_voices_speak(tmp_path, name):
    if not spoken_text.shutil.which(name.partition(":")[0]):
        pytest.skip(f"{name} is not installed")
    sound = Speaker(tmp_path).speak("Good morning.", Voice(name=name))

    assert 0.4 < len(sound) / 16000 < 3
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.08, rel=0.3)
