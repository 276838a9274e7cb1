"""Whether both sides compute the same on the very weights that are timed.

A ratio between different computations means nothing, so this comes first.
"""

from __future__ import annotations

import numpy as np
import torch

from agent.bench.bench import Bench, Weights
from agent.bench.reference import Reference
from agent.bench.sounds import speech, speech_tokens
from agent.bench.turn import spoken_turn
from agent.speech import SpeechDecoder
from agent.speech.decoder import DecoderSettings

# The reference's own settings; it does not read others from a checkpoint.
REFERENCE_SETTINGS = DecoderSettings(steps=10, guidance=0.7, temperature=1.0)
_MEL_TOLERANCE = 1e-2
_WAVE_TOLERANCE = 1e-3
_IDS = 40


def check(bench: Bench) -> tuple[list[str], bool]:
    """Compare both sides on both weights.

    Returns:
        A line for each comparison, and whether all were as they should be.
    """
    lines: list[str] = []
    fine = True
    for weights in (bench.mid_size, bench.nano):
        for part, compare in (
            ("tokenizer", _tokenizer),
            ("language_model", _language_model),
            ("decoder", _decoder),
        ):
            reference = bench.load(weights, part)  # type: ignore[arg-type]
            if reference is None:
                continue
            text, same = compare(weights, reference)
            lines.append(f"{weights.name}, {'same' if same else 'NOT THE SAME'}: {text}")
            fine = fine and same
    return lines or ["No reference: nothing to compare with."], fine


def _tokenizer(weights: Weights, reference: Reference) -> tuple[str, bool]:
    audio = speech(5.0)
    ours = weights.tokenizer.encode([audio])[0].tolist()
    theirs = reference.call("tokens", audio=reference.share(audio))["ids"]
    equal = sum(a == b for a, b in zip(ours, theirs, strict=False))
    # A near-tie between codes may fall either way.
    same = len(ours) == len(theirs) and equal >= 0.95 * len(ours)
    return f"{equal} of {len(ours)} token ids of 5 s of speech", same


def _language_model(weights: Weights, reference: Reference) -> tuple[str, bool]:
    codes = weights.tokenizer.encode([speech(5.0)])[0].tolist()
    ids = spoken_turn(weights, codes).ids
    ours = list(weights.language_model.generate(ids, _IDS))
    theirs = reference.call("generate", ids=ids, count=_IDS)["ids"]
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return f"{equal} of {_IDS} greedy ids after a prompt of {len(ids)}", ours == theirs


def _decoder(weights: Weights, reference: Reference) -> tuple[str, bool]:
    shipped = weights.decoder
    decoder = SpeechDecoder(shipped.flow, shipped.vocoder, REFERENCE_SETTINGS)
    config = decoder.flow.config
    codes = speech_tokens(25, config.vocab_size)
    made = reference.path(".npz")
    reference.call("mel", codes=codes.tolist(), out=str(made))
    arrays = np.load(made)
    ours = decoder.mel(codes, noise=arrays["z"]).numpy()
    # The reference does not know the scale that a checkpoint may bring for its mel.
    theirs = arrays["mel"] * config.mel_std + config.mel_mean
    mel = float(np.abs(ours - theirs).max())

    log_mel = torch.from_numpy(ours)[None]
    generator = torch.Generator().manual_seed(0)
    phase = decoder.vocoder.draw_phase(generator)
    noise = decoder.vocoder.draw(log_mel.shape[-1], generator)
    with torch.no_grad():
        source = decoder.vocoder.source(decoder.vocoder.f0(log_mel), phase, noise)
        wave = decoder.vocoder(log_mel, source)[0].numpy()
    given, out = reference.path(".npz"), reference.path(".npy")
    np.savez(given, mel=ours, source=source[0].numpy())
    reference.call("vocode", given=str(given), out=str(out))
    difference = float(np.abs(wave - np.load(out)).max())
    text = f"mel of 25 tokens within {mel:.1g}, waveform of the same source within {difference:.1g}"
    return text, mel < _MEL_TOLERANCE and difference < _WAVE_TOLERANCE
