"""Row group: what steps and guidance of the flow cost in time, and what they bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.bench.answers import answers
from agent.bench.bench import Bench, clock
from agent.bench.table import Result, Table
from agent.evaluation.answering import Answer, speak
from agent.evaluation.text import word_errors, words
from agent.sound import phone_band
from agent.speech import SpeechDecoder
from agent.speech.answer import PIECE
from agent.training.line import read_line

if TYPE_CHECKING:
    from agent.evaluation.judge import Judge

_STEPS = (4, 6, 10)
_GUIDANCE = (0.0, 0.7)


def run(bench: Bench) -> Sequence[Result]:
    """Measure on the shipped weights, whose speech can be understood."""
    spoken = sorted(answers(bench.nano), key=lambda one: -len(one.codes))
    spoken = spoken[: 1 if bench.quick else 4]
    judge, reason = _judge()
    shipped = bench.nano.decoder
    rows = []
    for guidance in _GUIDANCE:
        for steps in _STEPS:
            bench.progress(f"{steps} steps, guidance {guidance:g}")
            settings = replace(shipped.settings, steps=steps, guidance=guidance)
            decoder = SpeechDecoder(shipped.flow, shipped.vocoder, settings)
            factor, errors = _speak(decoder, spoken, judge)
            rows.append((str(steps), f"{guidance:g}", f"{factor:.3f}", errors or reason))
    count = sum(len(words(one.text)) for one in spoken)
    return [
        Table(
            "Flow settings on nano: cost and word errors over the phone",
            ("steps", "guidance", "real-time factor", "word error rate"),
            tuple(rows),
            (
                f"{len(spoken)} answers, {count} words, in blocks of {PIECE}; the checkpoint's "
                f"own settings are {shipped.settings.steps} and {shipped.settings.guidance:g}.",
                "The judge knows the line's answers and nothing else, so these rates are lower "
                "than those in evaluation.json.",
            ),
        )
    ]


def _judge() -> tuple[Judge | None, str]:
    """A judge of the line's answers, or why there is none."""
    try:
        from agent.evaluation.judge import Judge
    except ImportError:
        return None, "pocketsphinx is not installed"
    from agent.training.evaluation.measure import NANO_CORPUS

    return Judge(read_line(NANO_CORPUS).texts()), ""


def _speak(
    decoder: SpeechDecoder, spoken: Sequence[Answer], judge: Judge | None
) -> tuple[float, str]:
    """Real-time factor of some answers, and their word error rate as text."""
    seconds = length = 0.0
    wrong = total = 0
    for answer in spoken:
        begin = clock()
        audio = speak(decoder, answer.codes)
        seconds += clock() - begin
        length += len(audio) / decoder.sample_rate
        if judge is not None:
            heard = judge.recognise(phone_band(audio, decoder.sample_rate))
            wrong += word_errors(answer.text, heard)
            total += len(words(answer.text))
    return seconds / length, f"{100 * wrong / max(1, total):.1f} %" if judge else ""
