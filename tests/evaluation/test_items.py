"""Reading data: a mistake in it must be named, not evaluated."""

import json

import numpy as np
import pytest
import soundfile

from agent.evaluation.items import load_sound, read_directory


@pytest.fixture
def data(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(160, np.float32), 16_000)

    def write(task, *lines):
        path = tmp_path / f"{task}.jsonl"
        path.write_text("\n".join(s if isinstance(s, str) else json.dumps(s) for s in lines))
        return read_directory(task, tmp_path)

    return write


def test_paths_start_at_the_directory_and_its_name_is_the_set(data, tmp_path):
    (item,) = data("asr", {"id": "1", "audio": "a.wav", "text": "yes"}, "")
    assert item.audio == tmp_path / "a.wav"
    assert (item.set, item.language) == (tmp_path.name, "en")
    assert read_directory("qa", tmp_path) is None


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("asr", "{", "line 2: not JSON"),
        ("asr", "[]", "line 2: expected an object, found list"),
        ("asr", {"id": "2", "audio": "a.wav"}, "line 2: field 'text': Field required"),
        ("asr", {"id": "2", "audio": "b.wav", "text": "x"}, "field 'audio': no such file: .*b.wav"),
        ("asr", {"id": "2", "audio": "a.wav", "text": " "}, "field 'text'"),
        ("asr", {"id": "2", "audio": "a.wav", "text": "x", "txt": ""}, "field 'txt'"),
        ("asr", {"id": "1", "audio": "a.wav", "text": "x"}, "field 'id': '1' comes twice"),
        (
            "asr",
            {"id": "2", "audio": "a.wav", "text": "x", "language": "fr"},
            "field 'language'",
        ),
        ("qa", {"id": "2", "question": {"text": "x"}, "answers": []}, "field 'answers'"),
        ("qa", {"id": "2", "question": {}, "answers": ["x"]}, "'question': expected exactly one"),
        ("chat", {"id": "2", "question": {"audio": "a.wav"}}, "question.words is missing"),
        ("cloze", {"id": "2", "right": {}, "wrong": {"text": "x"}}, "field 'right': expected"),
        (
            "cloze",
            {"id": "2", "prompt": "dialogue", "right": {"text": "x"}, "wrong": {"text": "y"}},
            "needs a context",
        ),
        (
            "style",
            {
                "id": "2",
                "plain": {"text": "x"},
                "styled": {"text": "y"},
                "expect": {"rate": "slow"},
            },
            "field 'expect.rate'",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(data, task, line, message):
    first = {
        "asr": {"id": "1", "audio": "a.wav", "text": "yes"},
        "qa": {"id": "1", "question": {"text": "x"}, "answers": ["y"]},
        "chat": {"id": "1", "question": {"text": "x"}},
        "cloze": {"id": "1", "right": {"audio": "a.wav"}, "wrong": {"audio": "a.wav"}},
        "style": {
            "id": "1",
            "plain": {"text": "x"},
            "styled": {"text": "y"},
            "expect": {"rate": "lower"},
        },
    }[task]
    with pytest.raises(ValueError, match=message) as error:
        data(task, first, line)
    assert f"{task}.jsonl, line 2" in str(error.value)


def test_sound_of_any_rate_and_channels_comes_at_16_khz(tmp_path):
    time = np.arange(22_050) / 22_050
    tone = 0.4 * np.sin(2 * np.pi * 1_000 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], axis=1), 22_050)
    wide = load_sound(tmp_path / "stereo.wav")
    assert wide.dtype == np.float32
    assert len(wide) == 16_000
    assert np.sqrt((wide**2).mean()) == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    narrow = load_sound(tmp_path / "stereo.wav", on_the_phone=True)
    assert len(np.unique(narrow[::2].round(4))) < 300  # every other sample is the line's own
    with pytest.raises(ValueError, match=r"none\.wav"):
        load_sound(tmp_path / "none.wav")
