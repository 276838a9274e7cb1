"""An independent judge of speech: pocketsphinx, alone or with a trigram model of a line's words.

It knows nothing of the models under test. Its acoustic model, its dictionary and a general language
model come with its wheel; the language model of a domain is built here, and then a word error rate
says how well the words can be made out by someone who knows what is being talked about.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pocketsphinx import Decoder, get_model_path

from agent.evaluation.text import words
from agent.sound import SAMPLE_RATE, Audio

_DICTIONARY = "cmudict-en-us.dict"
_DISCOUNT = 0.5
_START, _END = "<s>", "</s>"


def trigram_model(sentences: Iterable[str]) -> str:
    """Build a trigram language model with absolute discounting and back-off.

    Every seen n-gram gives 0.5 of its count to the n-grams not seen after its history (Ney, Essen
    and Kneser, 1994); those take it by the probability of the next shorter history.

    Args:
        sentences: Text; counted once a repetition.

    Returns:
        The model in the ARPA format, logarithms to base 10.

    Raises:
        ValueError: There is no word in the sentences.
    """
    counts: list[Counter[tuple[str, ...]]] = [Counter(), Counter(), Counter()]
    for sentence in sentences:
        tokens = [_START, *words(sentence), _END]
        if len(tokens) == 2:
            continue
        for order in range(3):
            counts[order].update(zip(*(tokens[shift:] for shift in range(order + 1)), strict=False))
    if not counts[0]:
        raise ValueError("no words to build a language model from")
    # A sentence's start is never predicted, only conditioned on.
    counts[0].pop((_START,))
    total = sum(counts[0].values())
    probability: dict[tuple[str, ...], float] = {
        gram: count / total for gram, count in counts[0].items()
    }
    backoff: dict[tuple[str, ...], float] = {}
    for order in (1, 2):
        followers: defaultdict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        for gram in counts[order]:
            followers[gram[:-1]].append(gram)
        for history, grams in followers.items():
            seen = sum(counts[order][gram] for gram in grams)
            freed = _DISCOUNT * len(grams) / seen
            left = 1.0 - sum(probability[gram[1:]] for gram in grams)
            # Where every word that can follow was seen, there is nobody to give anything to.
            discount = _DISCOUNT if left > 1e-9 else 0.0
            backoff[history] = freed / left if discount else 1.0
            for gram in grams:
                probability[gram] = (counts[order][gram] - discount) / seen
    lines = ["\\data\\", f"ngram 1={len(counts[0]) + 1}"]
    lines += [f"ngram {order + 1}={len(counts[order])}" for order in (1, 2)]
    for order in range(3):
        lines += ["", f"\\{order + 1}-grams:"]
        if order == 0:
            lines.append(f"-99.0000\t{_START}\t{math.log10(backoff[(_START,)]):.4f}")
        for gram in sorted(counts[order]):
            entry = f"{math.log10(probability[gram]):.4f}\t{' '.join(gram)}"
            if order < 2 and gram[-1] != _END:
                entry += f"\t{math.log10(max(backoff.get(gram, 1.0), 1e-9)):.4f}"
            lines.append(entry)
    return "\n".join([*lines, "", "\\end\\", ""])


def _folder() -> Path:
    return Path(get_model_path()) / "en-us"


def unknown_words(texts: Iterable[str]) -> list[str]:
    """Words of some texts that the recogniser's dictionary lacks, sorted."""
    dictionary = (_folder() / _DICTIONARY).read_text("utf-8")
    known = set(re.findall(r"^([^\s(]+)", dictionary, flags=re.MULTILINE))
    return sorted({word for text in texts for word in words(text)} - known)


class Judge:
    """Recognises English speech.

    Args:
        sentences: Text of a known domain, from which its language model is built; None takes the
            recogniser's general one.

    Attributes:
        name: What it is, for reports.

    Raises:
        ValueError: A word is not in the recogniser's dictionary; the message names such words.
    """

    def __init__(self, sentences: Iterable[str] | None = None):
        folder = _folder()
        with tempfile.TemporaryDirectory() as name:
            model = folder / "en-us.lm.bin"
            self.name = "pocketsphinx, general language model"
            if sentences is not None:
                texts = list(sentences)
                if missing := unknown_words(texts):
                    raise ValueError(f"not in the recogniser's dictionary: {', '.join(missing)}")
                model = Path(name) / "domain.lm"
                model.write_text(trigram_model(texts), encoding="utf-8")
                self.name = f"pocketsphinx, language model of {len(texts)} sentences"
            self._decoder = Decoder(
                hmm=str(folder / "en-us"),
                dict=str(folder / _DICTIONARY),
                lm=str(model),
                logfn=os.devnull,
            )

    def recognise(self, audio: Audio) -> str:
        """Return the words heard in float32 [n] at 16 kHz, in lower case."""
        peak = float(np.abs(audio).max(initial=0.0))
        if peak == 0.0:
            return ""
        # Some quiet around lets the recogniser settle; it expects int16 at a usual level.
        quiet = np.zeros(SAMPLE_RATE // 4, np.float32)
        samples = np.concatenate([quiet, audio * (0.5 / peak), quiet])
        self._decoder.start_utt()
        self._decoder.process_raw((samples * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr)
