"""Speech language modelling by likelihood: which of two endings does the model think likelier?

An ending's score is the mean log likelihood of its tokens, text or speech, after the context, so
that a short ending has no advantage. A recording that already holds the context is scored whole. In
a dialogue, an ending is an answer as the model gives it: spoken, its text in runs between those of
its speech, all of it scored; written, the run of text that it begins with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.evaluation.answering import Checkpoint
from agent.evaluation.items import ClozeItem, Ending
from agent.evaluation.results import TaskResult, by_set, share
from agent.speech import LanguageModel
from agent.speech.prompt import Interleave, Prompt
from agent.speech.system_prompt import SPEECH_SYSTEM

MODES = {"speech_to_speech": "S→S", "speech_to_text": "S→T"}


def log_likelihood(model: LanguageModel, context: Sequence[int], ending: Sequence[int]) -> float:
    """Mean log likelihood of the ending's tokens after the context, in nats a token.

    Raises:
        ValueError: Either is empty, or both together are longer than the model's sequences.
    """
    if not context or not ending:
        raise ValueError("context and ending must both have tokens")
    # The last token predicts nothing that is asked for.
    ids = [*context, *ending][:-1]
    rows = model.logits(ids)[len(context) - 1 :].astype(np.float64)
    highest = rows.max(axis=1)
    total = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    return float((rows[np.arange(len(ending)), list(ending)] - total).mean())


class _Writer:
    """Writes contexts and endings as ids of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._tokenizer = checkpoint.model.text_tokenizer
        self._prompt = Prompt(self._tokenizer)

    def context(self, item: ClozeItem) -> list[int]:
        special = self._tokenizer.special
        start = [special("[gMASK]"), special("<sop>")]
        if item.context is None:
            return [*start, special("<|begin_of_audio|>")]
        codes = [int(code) for code in self._checkpoint.codes(item.context, item.phone_band)]
        if item.prompt == "dialogue":
            return [*self._prompt.opening(SPEECH_SYSTEM), *self._prompt.spoken(codes)]
        return [*start, special("<|begin_of_audio|>"), *self._tokenizer.speech_ids(codes)]

    def spoken(self, item: ClozeItem, ending: Ending) -> list[int]:
        """A spoken ending; as an answer it has its text in runs between those of its speech.

        Empty where the checkpoint needs more text tokens than that leaves room for.
        """
        assert ending.audio is not None
        codes = self._checkpoint.codes(ending.audio, ending.phone_band)
        speech = self._tokenizer.speech_ids([int(code) for code in codes])
        if item.prompt == "plain":
            return speech
        try:
            return Interleave().arrange(self._tokenizer.encode_plain(str(ending.text)), speech)
        except ValueError:
            return []

    def written(self, item: ClozeItem, text: str) -> list[int]:
        """A written ending; of an answer the run of text that comes before any speech."""
        ids = self._tokenizer.encode_plain(text)
        return ids if item.prompt == "plain" else ids[: Interleave().text]

    def bridge(self, item: ClozeItem) -> list[int]:
        """What stands between a spoken context and a written ending."""
        return [] if item.prompt == "dialogue" else [self._tokenizer.special("<|end_of_audio|>")]


def _scores(writer: _Writer, model: LanguageModel, item: ClozeItem) -> dict[str, list[float]]:
    """Scores of the right and the wrong ending in every mode that the item allows."""
    context = writer.context(item)
    scores: dict[str, list[float]] = {}
    endings = (item.right, item.wrong)
    sounds = [writer.spoken(item, ending) for ending in endings if ending.audio is not None]
    if len(sounds) == 2 and all(sounds):
        scores["speech_to_speech"] = [log_likelihood(model, context, ids) for ids in sounds]
    texts = [writer.written(item, e.text) for e in endings if e.text is not None]
    if len(texts) == 2 and item.context is not None:
        context += writer.bridge(item)
        scores["speech_to_text"] = [log_likelihood(model, context, ids) for ids in texts]
    return scores


_LACKING = {
    "speech_to_speech": "two spoken endings, long enough for their texts in a dialogue",
    "speech_to_text": "the texts of both endings or a context of their own",
}


def run(checkpoint: Checkpoint, items: Sequence[ClozeItem]) -> TaskResult:
    """Score all items; a tie counts half."""
    result = TaskResult("cloze")
    writer = _Writer(checkpoint)
    for part, group in by_set(items).items():
        right: dict[str, list[float]] = {mode: [] for mode in MODES}
        for item in group:
            scores = _scores(writer, checkpoint.model, item)
            for mode, (good, bad) in scores.items():
                right[mode].append(0.5 if good == bad else float(good > bad))
            result.items.append({"id": item.id, "set": part, "log_likelihood": scores})
        for mode, sign in MODES.items():
            if right[mode]:
                result.figures.append(share(f"accuracy_{mode}", part, right[mode]))
            if len(right[mode]) < len(group):
                missing = len(group) - len(right[mode])
                result.notes.append(
                    f"{part}: {sign} not measured for {missing} of {len(group)} items, which lack "
                    f"{_LACKING[mode]}."
                )
    return result
