"""How well a checkpoint answers the phone: what it understands, and how well it can be understood.

``python -m agent.training.evaluation --checkpoint DIR --data DIR --out FILE`` puts held-out
sentences through a phone's band and the three models, as on a call, and measures

- right answers: of callers' sentences that were never trained on, in voices training heard and in
  voices it did not;
- the agent's speech: the word error rate of an independent recogniser
  (:mod:`agent.evaluation.judge`), on the streamed audio after 8 kHz mu-law, against the text the
  agent says it speaks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agent.evaluation.answering import answers, speak
from agent.evaluation.judge import Judge
from agent.evaluation.text import word_errors, words
from agent.sound import SAMPLE_RATE, phone_band, resampled
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.request import TurnRequest
from agent.training.data import Corpus
from agent.training.phrasings import Line, read_line

SIMILAR = 0.9
# How much more often the judge expects the line's answers than sentences that only cover English.
_ANSWER_WEIGHT = 5
# Quiet before and after the words, in seconds: what a voice activity detector leaves of a call.
_QUIET = (0.2, 0.4)
NANO_CORPUS = Path(__file__).resolve().parents[1] / "nano" / "corpus.yaml"


@dataclass(frozen=True)
class Heard:
    """One caller's sentence and what the model made of it."""

    voice: str
    seen_voice: bool
    said: str
    intent: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Intelligibility:
    """Word errors of the judge over some audio."""

    utterances: int
    words: int
    wideband_errors: int
    phone_errors: int

    @property
    def wideband(self) -> float:
        """Word error rate at 16 kHz."""
        return self.wideband_errors / max(1, self.words)

    @property
    def phone(self) -> float:
        """Word error rate after 8 kHz mu-law."""
        return self.phone_errors / max(1, self.words)


def similarity(text: str, expected: str) -> float:
    """Return 1 less word errors over the words of the longer text; 1 for the same words."""
    longest = max(len(words(text)), len(words(expected)))
    return 1.0 - word_errors(expected, text) / longest if longest else 1.0


def is_right(text: str, expected: str) -> bool:
    """Whether an answer says what is expected, give or take a word in ten.

    Names of days are what some answers differ by, so none of them may differ.
    """
    days = {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
    same_days = days.intersection(words(text)) == days.intersection(words(expected))
    return same_days and similarity(text, expected) >= SIMILAR


def on_the_phone(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return float32 [n] at 16 kHz as a caller's turn: some quiet around it, in a phone's band."""
    before, after = (np.zeros(round(seconds * SAMPLE_RATE), np.float32) for seconds in _QUIET)
    return phone_band(np.concatenate([before, audio, after]), SAMPLE_RATE)


def tokenise(
    tokenizer: SpeechTokenizer, waveforms: Iterable[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.int64]]:
    """Stream each waveform (float32 [n], 16 kHz) into codes, as the phone does."""
    codes = []
    for waveform in waveforms:
        stream = tokenizer.stream()
        codes.append(np.concatenate([stream.push(waveform), stream.finish()]))
    return codes


def intelligibility(
    judge: Judge, spoken: Iterable[tuple[str, npt.NDArray[np.float32], int, int]]
) -> Intelligibility:
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
    """Build the judge of a line: its answers, and the sentences that cover English."""
    texts = [intent.answer for intent in line.intents] * _ANSWER_WEIGHT
    return Judge([*texts, *(corpus.text(index) for index in corpus.indices(role="cover"))])


def evaluate(
    checkpoint: Path, data: Path, line: Line, limit: int | None = None, spoken_limit: int = 60
) -> dict[str, Any]:
    """Measure a checkpoint.

    Args:
        checkpoint: Directory with speech_tokenizer, language_model and speech_decoder.
        data: A rendered corpus.
        line: What its intents and their answers are.
        limit: Use only so many of the held-out recordings; they lie there shuffled.
        spoken_limit: Decode only so many of the answers, the most frequent first.

    Returns:
        The report, ready for JSON.
    """
    corpus = Corpus(data)
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    model = LanguageModel.from_pretrained(checkpoint / "language_model")
    decoder = SpeechDecoder.from_pretrained(checkpoint / "speech_decoder")
    expected = {intent.name: intent.answer for intent in line.intents}

    indices = corpus.indices(role="caller", split="held_out")[:limit]
    codes = tokenise(tokenizer, (on_the_phone(corpus[i].audio) for i in indices))
    request = TurnRequest(temperature=0.0)
    typed = [intent for intent in line.intents if intent.instruction is not None]
    nothing = np.zeros(0, np.int64)
    turns = [(tokens, request) for tokens in codes]
    turns += [(nothing, TurnRequest(temperature=0.0, instruction=i.instruction)) for i in typed]
    given = answers(model, turns)

    heard = []
    for index, answer in zip(indices, given, strict=False):
        caller = corpus[index]
        intent = str(caller.intent)
        heard.append(
            Heard(
                voice=caller.voice,
                seen_voice=caller.seen_voice,
                said=caller.text,
                intent=intent,
                answer=answer.text,
                right=is_right(answer.text, expected[intent]),
            )
        )
    greeted = [
        is_right(answer.text, intent.answer)
        for intent, answer in zip(typed, given[len(indices) :], strict=True)
    ]

    judge = judge_of(line, corpus)
    said = Counter(answer for answer in given if answer.codes and answer.text)
    agent = intelligibility(
        judge,
        (
            (answer.text, speak(decoder, answer.codes), decoder.sample_rate, weight)
            for answer, weight in said.most_common(spoken_limit)
        ),
    )
    canonical = [corpus[i] for i in corpus.indices(role="agent", canonical=True)]
    floor = intelligibility(judge, ((u.text, u.audio, SAMPLE_RATE, 1) for u in canonical))
    return report(heard, greeted, agent, floor, distinct=len(said))


def _share(heard: Iterable[Heard]) -> dict[str, Any]:
    rights = [one.right for one in heard]
    share = round(sum(rights) / len(rights), 4) if rights else None
    return {"recordings": len(rights), "right": sum(rights), "share": share}


def _by(heard: Iterable[Heard], field: str) -> dict[str, dict[str, Any]]:
    groups: defaultdict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        groups[getattr(one, field)].append(one)
    return {name: _share(group) for name, group in sorted(groups.items())}


def report(
    heard: Sequence[Heard],
    greeted: Sequence[bool],
    agent: Intelligibility,
    floor: Intelligibility,
    distinct: int,
) -> dict[str, Any]:
    """Gather the figures."""
    seen = [one for one in heard if one.seen_voice]
    return {
        "right_answers": {
            "seen_voices": _share(seen),
            "unseen_voices": _share(one for one in heard if not one.seen_voice),
            "typed_instructions": {"count": len(greeted), "right": sum(greeted)},
            "by_intent_seen_voices": _by(seen, "intent"),
            "by_voice": _by(heard, "voice"),
        },
        "speech": {
            "agent": asdict(agent) | {"wer": agent.wideband, "wer_phone": agent.phone},
            "source_voice": asdict(floor) | {"wer": floor.wideband, "wer_phone": floor.phone},
            "distinct_answers": distinct,
        },
        "wrong": [asdict(one) for one in heard if not one.right],
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def markdown(figures: dict[str, Any]) -> str:
    """Return the report's figures as Markdown tables."""
    right, speech = figures["right_answers"], figures["speech"]
    rows = ["| held-out sentences, phone band | recordings | right answers |", "|---|---|---|"]
    for name, key in (("seen voices", "seen_voices"), ("unseen voices", "unseen_voices")):
        rows.append(f"| {name} | {right[key]['recordings']} | {_percent(right[key]['share'])} |")
    typed = right["typed_instructions"]
    rows.append(f"| typed instructions | {typed['count']} | {typed['right']} of {typed['count']} |")
    rows += ["", "| judged speech | words | WER 16 kHz | WER 8 kHz mu-law |", "|---|---|---|---|"]
    for name, key in (("the agent's", "agent"), ("its source voice", "source_voice")):
        one = speech[key]
        rates = f"{_percent(one['wer'])} | {_percent(one['wer_phone'])}"
        rows.append(f"| {name} | {one['words']} | {rates} |")
    for title, key in (("intent, seen voices", "by_intent_seen_voices"), ("voice", "by_voice")):
        rows += ["", f"| {title} | recordings | right answers |", "|---|---|---|"]
        for name, share in right[key].items():
            rows.append(f"| {name} | {share['recordings']} | {_percent(share['share'])} |")
    return "\n".join(rows)


def main() -> None:
    """Evaluate a checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a rendered corpus")
    parser.add_argument("--corpus", type=Path, default=NANO_CORPUS, help="YAML file of the line")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--limit", type=int, help="held-out recordings; default all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = evaluate(
        arguments.checkpoint, arguments.data, read_line(arguments.corpus), arguments.limit
    )
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(markdown(figures) + "\n")


if __name__ == "__main__":
    main()
