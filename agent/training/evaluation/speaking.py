"""How well a checkpoint can be understood: word errors of a recogniser, seams, styles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from agent.evaluation.answering import Answer, conversations, speak
from agent.evaluation.items import Measure
from agent.evaluation.judge import Judge, unknown_words
from agent.evaluation.prosody import Prosody, prosody
from agent.evaluation.style import change
from agent.evaluation.text import Language, units, word_errors, words
from agent.sound import SAMPLE_RATE, Audio, phone_band, resampled
from agent.speech import LanguageModel, SpeechDecoder
from agent.speech.answer import PIECE
from agent.speech.prompt import TOKENS_PER_SECOND
from agent.speech.request import TurnRequest
from agent.training.data import Corpus
from agent.training.evaluation.callers import Said
from agent.training.line import Line

# How much more often the judge expects the line's answers than sentences that only cover English.
_ANSWER_WEIGHT = 5
_FLUX_WINDOW = 512
_FLUX_HOP = 128


@dataclass(frozen=True)
class Intelligibility:
    """Word errors of the judge over some audio."""

    utterances: int
    words: int
    wideband_errors: int
    phone_errors: int

    def figures(self) -> dict[str, Any]:
        """Its numbers and both rates: at 16 kHz, and after 8 kHz mu-law."""
        total = max(1, self.words)
        return asdict(self) | {
            "wer": round(self.wideband_errors / total, 4),
            "wer_phone": round(self.phone_errors / total, 4),
        }


def intelligibility(judge: Judge, spoken: Iterable[tuple[str, Audio, int, int]]) -> Intelligibility:
    """Judge (text, audio float32 [n], rate in Hz, weight) and add up weighted word errors."""
    count = total = wideband = phone = 0
    for text, audio, rate, weight in spoken:
        count += weight
        total += weight * len(words(text))
        wide = resampled(audio, rate)
        wideband += weight * word_errors(text, judge.recognise(wide))
        phone += weight * word_errors(text, judge.recognise(phone_band(audio, rate)))
    return Intelligibility(count, total, wideband, phone)


def judge_of(line: Line, corpus: Corpus) -> Judge:
    """Build the judge of an English line: what is said on it, and sentences that cover English.

    Sentences with a word that the judge does not know are left out.
    """
    covers = [corpus.text(index) for index in corpus.indices(role="cover", language=line.language)]
    unknown = set(unknown_words(covers))
    usual = [text for text in covers if unknown.isdisjoint(words(text))]
    return Judge([*line.texts() * _ANSWER_WEIGHT, *usual])


def flux(audio: Audio, rate: int) -> tuple[np.ndarray[Any, np.dtype[np.float64]], float]:
    """Spectral flux: the rise of log-magnitudes from one window to the next.

    Args:
        audio: float32 [n].
        rate: In Hz.

    Returns:
        float64 [windows - 1], mean over bins of what rose, in dB; and how many windows a second
        there are.
    """
    window = torch.hann_window(_FLUX_WINDOW)
    spectrum = torch.stft(
        torch.from_numpy(audio), _FLUX_WINDOW, _FLUX_HOP, window=window, return_complex=True
    )
    decibels = 20.0 * (spectrum.abs() + 1e-4).log10()
    return (decibels.diff(dim=1).clamp(min=0.0).mean(0).double().numpy(), rate / _FLUX_HOP)


def seams(audio: Audio, rate: int) -> tuple[list[float], list[float]]:
    """Flux at the borders of blocks of ten tokens, and everywhere else.

    A border counts by its strongest window within 15 ms; elsewhere by the strongest of as many
    windows, so that the two can be compared.
    """
    values, per_second = flux(audio, rate)
    reach = max(1, round(0.015 * per_second))
    strongest = np.array(
        [values[max(0, i - reach) : i + reach + 1].max() for i in range(len(values))]
    )
    borders = np.arange(1, int(len(audio) / rate * TOKENS_PER_SECOND / PIECE) + 1)
    places = np.round(borders * PIECE / TOKENS_PER_SECOND * per_second).astype(int)
    places = places[places < len(strongest)]
    inside = np.ones(len(strongest), dtype=bool)
    for place in places:
        inside[max(0, place - 2 * reach) : place + 2 * reach + 1] = False
    return strongest[places].tolist(), strongest[inside].tolist()


def streaming(decoder: SpeechDecoder, judge: Judge, spoken: Mapping[Answer, int]) -> dict[str, Any]:
    """The same answers streamed in blocks of ten and decoded whole: word errors, and flux."""
    rate = decoder.sample_rate
    streamed = {answer: speak(decoder, answer.codes) for answer in spoken}
    whole = {answer: decoder.decode(answer.codes).cpu().numpy() for answer in spoken}
    at_borders: list[float] = []
    inside: list[float] = []
    whole_at_borders: list[float] = []
    whole_inside: list[float] = []
    for answer in spoken:
        for audio, borders, others in (
            (streamed[answer], at_borders, inside),
            (whole[answer], whole_at_borders, whole_inside),
        ):
            one, other = seams(audio, rate)
            borders += one
            others += other

    def judged(sounds: Mapping[Answer, Audio]) -> dict[str, Any]:
        rows = ((a.text, sounds[a], rate, weight) for a, weight in spoken.items())
        return intelligibility(judge, rows).figures()

    return {
        "streamed": judged(streamed),
        "whole": judged(whole),
        "flux_at_borders": _mean(at_borders),
        "flux_inside": _mean(inside),
        "whole_flux_at_borders": _mean(whole_at_borders),
        "whole_flux_inside": _mean(whole_inside),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def styles(
    model: LanguageModel,
    decoder: SpeechDecoder,
    line: Line,
    questions: Sequence[Said],
    wishes: Mapping[str, Sequence[Said]],
) -> dict[str, Any]:
    """Ask questions plainly, with a style in the instructions, and after a wish said aloud.

    Args:
        model: Who answers.
        decoder: Its voice.
        line: Its styles.
        questions: Held-out recordings.
        wishes: For each style recordings that ask for it.

    Returns:
        For each style and way of asking: the mean change of rate (%) and pitch (semitones) against
        the plain answer, and the share of answers with the same words.
    """
    plain_request = TurnRequest(temperature=0.0)
    plain = [(a,) for (a,) in conversations(model, [[(q.codes, plain_request)] for q in questions])]
    manners = [_manner(decoder, answer, line.language) for (answer,) in plain]
    figures: dict[str, Any] = {}
    for style, instructions in line.styles.items():
        asked = TurnRequest(temperature=0.0, system=instructions[0])
        ways = {"instructed": [[(q.codes, asked)] for q in questions]}
        if wished := wishes.get(style):
            ways["spoken"] = [
                [(wished[n % len(wished)].codes, plain_request), (q.codes, plain_request)]
                for n, q in enumerate(questions)
            ]
        for way, calls in ways.items():
            given = [answers[-1] for answers in conversations(model, calls)]
            changes: dict[Measure, list[float]] = {"rate": [], "pitch": []}
            kept = []
            for (before,), one, after in zip(plain, manners, given, strict=True):
                kept.append(units(before.text, line.language) == units(after.text, line.language))
                other = _manner(decoder, after, line.language)
                if one is None or other is None or not kept[-1]:
                    continue
                for measure, found in changes.items():
                    moved = change(measure, one, other)
                    found += [] if moved is None else [moved]
            figures[f"{style}, {way}"] = {
                "questions": len(kept),
                "words_kept": round(float(np.mean(kept)), 4) if kept else None,
                "rate_percent": _mean(changes["rate"]),
                "pitch_semitones": _mean(changes["pitch"]),
            }
    return figures


def _manner(decoder: SpeechDecoder, answer: Answer, language: Language) -> Prosody | None:
    if not answer.codes:
        return None
    count = len(units(answer.text, language))
    return prosody(speak(decoder, answer.codes), decoder.sample_rate, count)


def source_voice(judge: Judge, corpus: Corpus) -> dict[str, Any]:
    """The judge's floor: the recordings that the agent's plain answers were learnt from."""
    indices = corpus.indices(role="agent", canonical=True, language="en", style="neutral")
    recordings = (utterance for _, utterance in corpus.read(indices))
    return intelligibility(judge, ((u.text, u.audio, SAMPLE_RATE, 1) for u in recordings)).figures()
