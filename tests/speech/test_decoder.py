"""Tokens to waveform: the whole against the reference, the stream against the whole."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from agent.speech import SpeechDecoder
from agent.speech.checkpoint import CheckpointError
from agent.speech.decoder import DecoderSettings
from agent.speech.flow_stream import MelStream, advance_mels

FAST = DecoderSettings(steps=2, prompt_blocks=3)


@pytest.fixture(scope="module")
def checkpoint(goldens: Path) -> Path:
    return goldens / "speech_decoder"


@pytest.fixture(scope="module")
def decoder(checkpoint: Path) -> SpeechDecoder:
    return SpeechDecoder.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def fast(decoder) -> SpeechDecoder:
    return SpeechDecoder(decoder.flow, decoder.vocoder, FAST)


@pytest.fixture(scope="module")
def offline(goldens: Path) -> dict[str, torch.Tensor]:
    arrays = np.load(goldens / "expected" / "offline.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(256, (87,), generator=torch.Generator().manual_seed(1))


def _streamed(decoder, tokens, sizes, seed=5):
    stream = decoder.stream(seed)
    pieces = torch.split(tokens, sizes)
    return [
        stream.push(piece, last=number == len(pieces) - 1) for number, piece in enumerate(pieces)
    ]


def test_settings_of_a_published_checkpoint_are_the_references(decoder):
    assert decoder.settings == DecoderSettings(
        steps=10, guidance=0.7, temperature=1.0, prompt_blocks=2
    )


def test_mel_and_waveform_of_a_whole_answer_are_the_references(decoder, offline):
    mel = decoder.mel(offline["tokens"][0], offline["z"][0])
    assert torch.allclose(mel, offline["mel"][0], atol=1e-4)
    waveform = decoder.vocode(mel, offline["phase"][0, :, 0], offline["noise"][0].float())
    error = waveform - offline["wav"][0]
    assert error.abs().max() < 5e-3
    assert error.square().mean().sqrt() < 5e-4


def test_a_prompt_leads_and_is_left_out_of_the_result(decoder, goldens):
    arrays = np.load(goldens / "expected" / "flow.npz")
    new, noise, before, known, expected = (
        torch.from_numpy(arrays[f"prompt_{name}"])[0]
        for name in ("new_tokens", "z", "tokens", "feat", "mel")
    )
    mel = decoder.mel(new, noise, prompt_tokens=before, prompt_mel=known.T)
    assert torch.allclose(mel, expected, atol=1e-4)


@pytest.mark.parametrize(
    "sizes", [[87], [1] * 87, [37, 3, 40, 7], [80, 7], [3, 0, 84], [30, 57, 0]]
)
def test_any_chunking_of_a_stream_gives_the_same_audio(fast, tokens, sizes):
    blocks = torch.cat(_streamed(fast, tokens, [10] * 8 + [7]))
    audio = torch.cat(_streamed(fast, tokens, sizes))
    assert audio.shape == blocks.shape
    # What is left is the vocoder's rounding (the goldens' README: up to 5e-4).
    assert torch.allclose(audio, blocks, atol=2e-3)


@pytest.mark.parametrize("name", ["demo", "blocks"])
def test_no_frame_is_lost_where_the_reference_loses_one_a_chunk(fast, goldens, name):
    case = json.loads((goldens / "expected" / "decoder_streams.json").read_text("utf-8"))[name]
    ids = torch.tensor(case["tokens"])
    audio = torch.cat(_streamed(fast, ids, 10))
    assert len(audio) == case["offline_samples"] == fast.flow.frames(len(ids)) * 256
    assert len(audio) > case["reference_samples"]


@pytest.mark.parametrize("count", [1, 7, 10])
def test_an_answer_of_one_block_is_the_same_whole_and_streamed(fast, tokens, count):
    streamed = torch.cat(_streamed(fast, tokens[:count], [count, 0]))
    assert torch.allclose(streamed, fast.decode(tokens[:count], seed=5), atol=2e-3)


def test_first_audio_comes_with_the_tenth_token_and_all_of_it_by_the_last(fast, tokens):
    stream = fast.stream()
    assert [len(stream.push(token[None])) for token in tokens[:9]] == [0] * 9
    # 68 frames less what the vocoder looks ahead.
    first = len(stream.push(tokens[9:10]))
    assert 45 * 256 < first < 68 * 256
    assert first + len(stream.push(tokens[:0], last=True)) == 68 * 256


def test_audio_over_block_borders_is_that_of_the_joined_mel(fast, tokens):
    audio = torch.cat(_streamed(fast, tokens[:35], 10))
    stream = MelStream(fast.flow, FAST, seed=5)
    with torch.inference_mode():
        mels = [advance_mels([(stream, block, False)])[0] for block in torch.split(tokens[:35], 10)]
    assert [mel.shape[1] for mel in mels] == [68, 69, 69, 35]
    joined = fast.vocode(torch.cat(mels, dim=1), seed=6)
    assert torch.allclose(audio, joined, atol=2e-3)


def test_frames_held_back_are_lost_or_do_not_know_the_next_block(fast, tokens):
    """Held-back frames come with the next block, made anew with it; the others stay as they are."""
    held = replace(FAST, held_frames=4)
    plain, keeping = (MelStream(fast.flow, s, seed=5) for s in (FAST, held))
    sizes = [10, 10, 10, 5, 0]
    blocks = [(block, n == 4) for n, block in enumerate(torch.split(tokens[:35], sizes))]
    with torch.inference_mode():
        mels = [
            [advance_mels([(stream, block, last)])[0] for block, last in blocks]
            for stream in (plain, keeping)
        ]
    assert [mel.shape[1] for mel in mels[0]] == [68, 69, 69, 35, 0]
    assert [mel.shape[1] for mel in mels[1]] == [64, 69, 69, 35, 4]
    one, other = (torch.cat(parts, dim=1) for parts in mels)
    assert torch.allclose(one[:, :64], other[:, :64], atol=1e-4)
    assert not torch.allclose(one[:, 64:68], other[:, 64:68], atol=1e-2)


def test_audio_of_held_frames_differs_with_the_pushes(fast, tokens):
    decoder = SpeechDecoder(fast.flow, fast.vocoder, replace(FAST, held_frames=4))
    whole = torch.cat(_streamed(decoder, tokens[:35], [35]))
    assert len(whole) == fast.flow.frames(35) * 256
    for sizes in ([10, 10, 10, 5], [3, 20, 7, 5, 0], [30, 5]):
        assert torch.allclose(torch.cat(_streamed(decoder, tokens[:35], sizes)), whole, atol=2e-3)


def test_whole_blocks_are_held_back(checkpoint):
    settings = replace(FAST, held_frames=68)
    with pytest.raises(CheckpointError, match="held_frames is 68, expected fewer than the 68"):
        SpeechDecoder.from_pretrained(checkpoint, settings=settings)


def test_work_for_a_block_does_not_grow_with_the_answer(fast, tokens, monkeypatch):
    encoded, carried = [], []
    encode, carry = fast.flow.encode, fast.flow.carry

    def count_tokens(ids, cache):
        encoded.append((ids.shape[1], len(cache)))
        return encode(ids, cache)

    def count_frames(mu, *rest):
        carried.append(mu.shape[-1])
        return carry(mu, *rest)

    monkeypatch.setattr(fast.flow, "encode", count_tokens)
    monkeypatch.setattr(fast.flow, "carry", count_frames)
    _streamed(fast, tokens.repeat(2), 10)
    assert encoded == [(10, 0), (10, 10), (10, 20), (10, 30)] + [(10, 40)] * 13 + [(4, 40)]
    # 30 tokens before it and the last 4, of which the first began in an earlier frame.
    assert carried == [68, 137, 206] + [275] * 14 + [234]


def test_streams_share_no_state_and_leave_the_process_generator_alone(fast, tokens):
    alone = torch.cat(_streamed(fast, tokens[:25], 10, seed=1))
    before = torch.get_rng_state()
    one, other = fast.stream(1), fast.stream(2)
    pieces, others = [], []
    for start in (0, 10, 20):
        pieces.append(one.push(tokens[start : min(start + 10, 25)], last=start == 20))
        others.append(other.push(tokens[start : start + 10]))
    assert torch.equal(torch.cat(pieces), alone)
    assert not torch.equal(others[0], pieces[0])
    assert torch.equal(torch.get_rng_state(), before)


def _history(decoder, tokens, seed):
    """A stream that has had some tokens, and its twin."""
    streams = decoder.stream(seed), decoder.stream(seed)
    for stream in streams:
        stream.push(tokens)
    return streams


def test_streams_advanced_together_get_what_each_would_alone(fast, tokens):
    histories = [0, 10, 25, 43, 60, 60]
    pieces = [(30, False), (7, True), (3, False), (14, True), (25, False), (0, True)]
    pairs = [_history(fast, tokens[:n], seed) for seed, n in enumerate(histories)]
    given = [tokens[40 : 40 + count] for count, _ in pieces]
    together = fast.advance(
        [(one, ids, last) for (one, _), ids, (_, last) in zip(pairs, given, pieces, strict=True)]
    )
    for (one, other), ids, (_, last), audio in zip(pairs, given, pieces, together, strict=True):
        alone = other.push(ids, last)
        assert audio.shape == alone.shape
        assert torch.allclose(audio, alone, atol=2e-3)
        if not last:
            assert torch.allclose(
                one.push(tokens[:8], True), other.push(tokens[:8], True), atol=2e-3
            )


def test_mels_of_streams_advanced_together_are_those_of_each_alone(fast, tokens):
    starts = [0, 10, 30, 40]
    alone, together = ([MelStream(fast.flow, FAST, seed) for seed in range(4)] for _ in range(2))
    with torch.inference_mode():
        for stream, twin, start in zip(alone, together, starts, strict=True):
            advance_mels([(stream, tokens[:start], False)])
            advance_mels([(twin, tokens[:start], False)])
        mels = advance_mels([(stream, tokens[:20], False) for stream in together])
        for stream, mel in zip(alone, mels, strict=True):
            assert torch.allclose(advance_mels([(stream, tokens[:20], False)])[0], mel, atol=1e-4)


def test_full_windows_share_each_call_of_the_flow(fast, tokens, monkeypatch):
    # 50 and 60 tokens: the new blocks have 68 and 69 frames.
    streams = [_history(fast, tokens[:count], 0)[0] for count in (50, 60, 5)]
    shapes = []
    carry = fast.flow.carry

    def count(mu, *rest):
        shapes.append(mu.shape[0])
        return carry(mu, *rest)

    monkeypatch.setattr(fast.flow, "carry", count)
    fast.advance([(stream, tokens[:10], False) for stream in streams])
    assert sorted(shapes) == [1, 2]


def test_a_piece_refused_leaves_all_streams_as_they_were_and_is_named(fast, tokens):
    (one, twin), (other, ended) = (_history(fast, tokens[:10], seed) for seed in (0, 1))
    foreign = SpeechDecoder(fast.flow, fast.vocoder, FAST).stream()
    ended.push(tokens[:0], last=True)
    for wrong, message in (
        ((other, torch.tensor([256]), False), r"pieces\[1\]: tokens holds 256"),
        ((ended, tokens[:3], False), r"pieces\[1\]: the decoder stream has ended"),
        ((foreign, tokens[:3], False), r"pieces\[1\]: the stream is another decoder's"),
        ((one, tokens[:3], False), r"pieces\[1\]: the stream is named twice"),
    ):
        with pytest.raises(ValueError, match=message):
            fast.advance([(one, tokens[10:20], True), wrong])
    assert torch.equal(one.push(tokens[10:20], True), twin.push(tokens[10:20], True))


def test_nobody_to_advance_is_no_error(fast):
    assert fast.advance([]) == []


def test_there_is_no_dropout_at_inference(decoder, tokens):
    assert not any(module.training for module in decoder.flow.modules())
    assert torch.equal(decoder.mel(tokens[:5]), decoder.mel(tokens[:5]))


def test_an_answer_without_speech_has_no_audio(fast, tokens):
    assert len(fast.stream().push(tokens[:0], last=True)) == 0


def test_a_stream_that_has_ended_takes_no_more(fast, tokens):
    stream = fast.stream()
    stream.push(tokens[:10], last=True)
    with pytest.raises(ValueError, match="has ended"):
        stream.push(tokens[:10])


def test_a_refused_push_leaves_the_stream_as_it_was(fast, tokens):
    clean, disturbed = fast.stream(), fast.stream()
    first, second = clean.push(tokens[:12]), clean.push(tokens[12:20], last=True)
    assert torch.equal(disturbed.push(tokens[:12]), first)
    with pytest.raises(ValueError, match="256"):
        disturbed.push(torch.tensor([256]), last=True)
    assert torch.equal(disturbed.push(tokens[12:20], last=True), second)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([3, 256]), r"tokens holds 256, expected ids from 0 to 255"),
        (torch.tensor([3, -1]), r"tokens holds -1"),
        (torch.zeros(0, dtype=torch.int64), r"tokens is empty"),
        (torch.zeros(1, 4, dtype=torch.int64), r"tokens has shape \(1, 4\)"),
        (torch.zeros(4), r"dtype torch.float32"),
        (torch.zeros(4, dtype=torch.int32), r"expected \(n,\) and torch.int64"),
    ],
)
def test_bad_tokens_are_refused(fast, ids, message):
    with pytest.raises(ValueError, match=message):
        fast.decode(ids)
    if len(ids):
        with pytest.raises(ValueError, match=message):
            fast.stream().push(ids)


def test_noise_and_prompt_that_do_not_fit_are_refused(fast, tokens):
    with pytest.raises(ValueError, match=r"noise has shape \(80, 67\), expected \(80, 68\)"):
        fast.mel(tokens[:10], noise=torch.zeros(80, 67))
    with pytest.raises(ValueError, match="belong together"):
        fast.mel(tokens[:10], prompt_tokens=tokens[:10])
    with pytest.raises(ValueError, match="prompt_mel has 137 frames, expected fewer than the 137"):
        fast.mel(tokens[:10], prompt_tokens=tokens[:10], prompt_mel=torch.zeros(80, 137))
    with pytest.raises(ValueError, match=r"mel has shape \(81, 4\)"):
        fast.mel(tokens[:10], prompt_tokens=tokens[:10], prompt_mel=torch.zeros(81, 4))
    with pytest.raises(ValueError, match=r"prompt_tokens holds 300"):
        fast.mel(tokens[:10], prompt_tokens=torch.tensor([300]), prompt_mel=torch.zeros(80, 2))


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "speech_decoder"))


def _with_decoding(directory: Path, section: object) -> None:
    with (directory / "config.yaml").open("a", encoding="utf-8") as stream:
        yaml.safe_dump({"decoding": section}, stream)


def test_a_checkpoint_brings_its_own_settings_and_a_caller_overrides_them(copied):
    _with_decoding(copied, {"steps": 6, "temperature": 0.5})
    expected = DecoderSettings(steps=6, guidance=0.7, temperature=0.5)
    assert SpeechDecoder.from_pretrained(copied).settings == expected
    assert SpeechDecoder.from_pretrained(copied, settings=FAST).settings == FAST


def test_temperature_scales_the_noise(decoder, tokens):
    noise = torch.randn(80, 68, generator=torch.Generator().manual_seed(0))
    cool = SpeechDecoder(decoder.flow, decoder.vocoder, DecoderSettings(temperature=0.5))
    assert torch.equal(cool.mel(tokens[:10], noise), decoder.mel(tokens[:10], noise * 0.5))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"steps": 0}, r"decoding\.steps is 0, expected at least 1"),
        ({"temperature": -1}, r"decoding\.temperature is -1"),
        ({"steps": 1.5}, r"'steps' is 1.5, expected int"),
        ({"speed": 2}, r"decoding\.speed"),
        ([6], r"'decoding'"),
    ],
)
def test_wrong_settings_in_a_checkpoint_are_refused_by_field(copied, section, message):
    _with_decoding(copied, section)
    with pytest.raises(CheckpointError, match=rf"config\.yaml.*{message}"):
        SpeechDecoder.from_pretrained(copied)


@pytest.mark.parametrize("name", ["config.yaml", "flow.pt", "hift.pt"])
def test_a_missing_or_torn_file_is_refused_by_name(copied, name):
    path = copied / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        SpeechDecoder.from_pretrained(copied)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: file is missing"):
        SpeechDecoder.from_pretrained(copied)


def test_a_checkpoint_without_a_section_is_refused_by_field(copied):
    (copied / "config.yaml").write_text("sample_rate: 22050\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.yaml: field 'flow' is missing"):
        SpeechDecoder.from_pretrained(copied)


def test_weights_in_half_precision_load_as_single(copied, decoder, tokens):
    weights = torch.load(copied / "flow.pt", weights_only=True)
    torch.save({name: value.half() for name, value in weights.items()}, copied / "flow.pt")
    rounded = SpeechDecoder.from_pretrained(copied)
    mel = rounded.mel(tokens[:10])
    assert mel.dtype == torch.float32
    assert torch.allclose(mel, decoder.mel(tokens[:10]), atol=0.1)


def test_arrays_and_tensors_are_one_to_the_decoder(fast, tokens):
    ids, noise = tokens[:10], torch.zeros(80, 68)
    assert torch.equal(fast.mel(ids.numpy(), noise.numpy()), fast.mel(ids, noise))
    mel = fast.mel(ids, noise)
    assert torch.equal(fast.vocode(mel.numpy()), fast.vocode(mel))
    assert torch.equal(fast.decode(ids.numpy()), fast.decode(ids))
    assert torch.equal(
        fast.stream().push(ids.numpy(), last=True), fast.stream().push(ids, last=True)
    )
