"""Own voice: recordings in, a decoder that loads out."""

import numpy as np
import pytest
import soundfile
import torch
from loguru import logger

from agent.speech import SpeechDecoder
from agent.training import flow as flows
from agent.training import vocoder as vocoders
from agent.training import voice
from agent.training.on_disk import on_disk
from agent.training.voice import Cutting, Settings, cut


class Tokenizer:
    codebook_size = 256

    def encode(self, waveforms):
        return [np.arange(-(-len(w) // 1280)) % 256 for w in waveforms]


@pytest.fixture
def recordings(tmp_path):
    path = tmp_path / "recordings"
    path.mkdir()
    rng = np.random.default_rng(0)
    for number, seconds in enumerate((7, 4)):
        sound = 0.2 * rng.standard_normal(seconds * 22_050).astype(np.float32)
        soundfile.write(path / f"{number}.wav", sound, 22_050)
    return path


@pytest.fixture
def settings(recordings):
    flow = flows.Training(
        steps=2, batch=1, lengths=[10, 20], prior=0.5, lr=1e-3, average=0.5, bfloat16=False,
        report_every=1, judge_every=2, seed=0,
    )  # fmt: skip
    vocoder = vocoders.Training(
        steps=2, batch=1, frames=8, lr=1e-3, average=0.5, bfloat16=False, report_every=1, seed=0,
        adversarial=vocoders.Adversarial(start=0, width=2),
    )  # fmt: skip
    cutting = Cutting(shortest=2.0, longest=4.0)
    return Settings(
        recordings=recordings, phone_band=True, cutting=cutting, flow=flow, vocoder=vocoder
    )


def test_a_recording_is_cut_inside_a_word():
    audio = np.full(16_000 * 10, 0.5, np.float32)
    for second in (2.5, 5.9, 8.0):
        audio[int(second * 16_000) : int((second + 0.1) * 16_000)] = 0.0
    pieces = cut(audio, 2.0, 4.0)
    assert sum(map(len, pieces)) <= len(audio)
    assert [round(len(piece) / 16_000, 1) for piece in pieces] == [2.5, 3.4, 2.1, 2.0]
    assert cut(audio[:16_000], 2.0, 4.0) == []


def test_features_change_on_disk():
    tensors = [torch.randn(3, 4), torch.randn(0), torch.randn(5)]
    for before, after in zip(tensors, on_disk(iter(tensors)), strict=True):
        assert torch.equal(before, after)
    assert on_disk([]) == []


def test_recordings_make_no_decoder_that_loads(settings, goldens, tmp_path, monkeypatch):
    monkeypatch.setattr(vocoders, "pitch", lambda audio, frames: np.full(frames, 120, np.float32))
    start = goldens / "speech_decoder"
    (settings.recordings / "broken.wav").write_bytes(b"no sound")
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["extra"]), level="WARNING")
    voice.run(settings, Tokenizer(), start, tmp_path / "run", tmp_path / "made")
    logger.remove(sink)
    assert [extra["problem"].split(":")[0].endswith("broken.wav") for extra in heard] == [True]
    made, before = (
        SpeechDecoder.from_pretrained(tmp_path / "made"),
        SpeechDecoder.from_pretrained(start),
    )
    for part in ("flow", "vocoder"):
        ours, theirs = getattr(made, part), getattr(before, part)
        changed = [
            name
            for (name, a), b in zip(
                ours.state_dict().items(), theirs.state_dict().values(), strict=True
            )
            if not torch.allclose(a, b, atol=1e-3)
        ]
        assert changed
    assert made.settings == before.settings
    assert len(made.decode(torch.arange(12))) > 0
    # More recordings later: the pieces there are stay what they were.
    again = voice.collect(settings, tmp_path / "run" / "data")
    assert len(again) == len(set(again._shards.ids())) == 3
    assert len(again.indices(split="held_out")) == 1


def test_a_vocoder_that_is_to_stay_changes(settings, goldens, tmp_path):
    start = goldens / "speech_decoder"
    settings = settings.model_copy(update={"vocoder": None})
    voice.run(settings, Tokenizer(), start, tmp_path / "run", tmp_path / "made")
    made, before = (
        SpeechDecoder.from_pretrained(path).vocoder for path in (tmp_path / "made", start)
    )
    for a, b in zip(made.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


def test_another_tokenizer_or_too_little_sound_is_accepted(settings, goldens, tmp_path):
    other = Tokenizer()
    other.codebook_size = 5
    with pytest.raises(ValueError, match="the decoder has 256 codes and the tokenizer 5"):
        voice.run(settings, other, goldens / "speech_decoder", tmp_path / "run", None)
    long = settings.model_copy(update={"cutting": Cutting(shortest=5.0)})
    with pytest.raises(ValueError, match=r"1 pieces of at least 5\.0 s"):
        voice.collect(long, tmp_path / "data")
    with pytest.raises(ValueError, match=r"no \*\.wav files"):
        voice.collect(settings.model_copy(update={"recordings": tmp_path / "run"}), tmp_path / "d")
