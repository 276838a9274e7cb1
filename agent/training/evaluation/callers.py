"""Held-out callers, as the phone brings them: recordings to codes, and calls made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.evaluation.text import Language
from agent.speech import SpeechTokenizer
from agent.training.conversations import hear_plainly
from agent.training.data import Corpus
from agent.training.line import Intent, Line


@dataclass(frozen=True)
class Said:
    """A held-out recording.

    Attributes:
        voice: Who speaks.
        seen: Whether training heard this voice.
        language: In which language.
        saying: What it says on the line.
        text: Its words.
        codes: int64 [m], over the phone.
    """

    voice: str
    seen: bool
    language: Language
    saying: str
    text: str
    codes: npt.NDArray[np.int64]


def listen(corpus: Corpus, tokenizer: SpeechTokenizer, limit: int | None = None) -> list[Said]:
    """Tokenise the held-out callers, or so many of them; they lie there shuffled."""
    indices = corpus.indices(role="caller", split="held_out")[:limit]
    return [
        Said(
            voice=utterance.voice,
            seen=utterance.seen_voice,
            language=utterance.language,
            saying=utterance.saying or "",
            text=utterance.text,
            codes=hear_plainly(utterance.audio, tokenizer),
        )
        for _, utterance in corpus.read(indices)
    ]


@dataclass(frozen=True)
class Asked:
    """A call: what is said in it, by one voice, and what each turn should be answered by."""

    turns: tuple[Said, ...]
    intents: tuple[Intent, ...]

    @property
    def last(self) -> Said:
        """Its last turn, which the others only lead to."""
        return self.turns[-1]

    @property
    def intent(self) -> Intent:
        """What the last turn wants."""
        return self.intents[-1]


def calls(line: Line, said: Sequence[Said]) -> list[Asked]:
    """Calls that held-out recordings make: each of them is the last turn of one or more.

    A turn that goes on from an answer comes after turns that lead there, by the same voice: which
    ones goes round, so that every recording is used.
    """
    by: defaultdict[tuple[str, str], list[Said]] = defaultdict(list)
    for one in said:
        if one.language == line.language:
            by[one.voice, one.saying].append(one)
    made: list[Asked] = []
    for (voice, saying), recordings in by.items():
        for number, one in enumerate(recordings):
            wanted = line.asked_by(saying)
            # What is said at many points of a call is judged at two of them, in turn.
            turn = [(2 * number + k) % len(wanted) for k in range(min(2, len(wanted)))]
            for intent in (wanted[place] for place in turn):
                led = _lead(line, by, voice, intent, number)
                if led is not None:
                    turns, intents = led
                    made.append(Asked((*turns, one), (*intents, intent)))
    return made


def _lead(
    line: Line,
    by: dict[tuple[str, str], list[Said]],
    voice: str,
    intent: Intent,
    number: int,
) -> tuple[list[Said], list[Intent]] | None:
    turns: list[Said] = []
    intents: list[Intent] = []
    while intent.after is not None:
        intent = line.intents[intent.after]
        recordings = by.get((voice, intent.says or ""), [])
        if not recordings:
            return None
        turns.insert(0, recordings[number % len(recordings)])
        intents.insert(0, intent)
    return turns, intents
