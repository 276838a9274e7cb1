r"""Spoken dialogues as examples: what an agent hears, and what it is to answer, say and call.

A sample of a data set of dialogues has ``turns``, in order, and the codes of all its speech. A turn
is one of

    {"role": "caller", "text": ..., "codes": [begin, end]}   without codes: typed
    {"role": "agent", "text": ..., "codes": [begin, end]}
    {"role": "call", "name": ..., "arguments": {...}}        a tool the agent calls
    {"role": "result", "text": ...}                          what the tool gave back

and beside them the sample may have ``instructions`` (text) and ``tools`` (each a name, a
description and parameters as a JSON schema). Everything is written by :mod:`agent.speech.prompt`,
so that training and calls cannot differ, and tools as GLM-4 has them:

    <|system|>\n(prompt)(instructions)(tools)<|user|>\n(question)<|assistant|>streaming_transcription\n
    (answer)<|assistant|>(name)\n(arguments as JSON)<|observation|>\n(result)
    <|assistant|>streaming_transcription\n(answer)<|user|>...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.speech.prompt import Interleave, Prompt
from agent.speech.system_prompt import system_prompt
from agent.speech.text_tokenizer import TextTokenizer
from agent.training.examples import GIVEN, SPEECH, TEXT, Example

ROLES = ("caller", "agent", "call", "result")


class Dialogues:
    """Writes dialogues as ids of one checkpoint.

    Args:
        tokenizer: Of the checkpoint.

    Raises:
        CheckpointError: The checkpoint lacks one of the special tokens.
    """

    def __init__(self, tokenizer: TextTokenizer):
        self._tokenizer = tokenizer
        self._prompt = Prompt(tokenizer)
        self._interleave = Interleave()

    def example(self, entry: Mapping[str, Any], codes: Sequence[int]) -> Example:
        """A whole dialogue; what the agent answers and calls is to be predicted.

        Args:
            entry: The sample's index line.
            codes: All its codes.

        Raises:
            ValueError: A turn is not as it should be, or in the wrong place; names it.
        """
        turns = entry["turns"]
        spoken = "codes" in turns[0]
        opening = system_prompt(spoken, entry.get("instructions"), entry.get("tools", ()))
        ids = self._prompt.opening(opening)
        kinds = [GIVEN] * len(ids)
        before = None
        for number, turn in enumerate(turns, 1):
            role = turn["role"]
            if role not in following(before):
                raise ValueError(f"turn {number}: {role!r} may not follow {before or 'nothing'!r}")
            try:
                new, learnt = self._turn(turn, codes, answered=before == "agent")
            except ValueError as error:
                raise ValueError(f"turn {number}: {error}") from error
            ids += new
            kinds += learnt
            before = role
        if before == "agent":
            # An answer ends with the id that begins the next turn.
            ids.append(self._prompt.user)
            kinds.append(TEXT)
        return Example(ids, kinds)

    def _turn(
        self, turn: Mapping[str, Any], codes: Sequence[int], answered: bool
    ) -> tuple[list[int], list[int]]:
        role = turn["role"]
        speech = codes[slice(*turn["codes"])] if "codes" in turn else None
        if role == "caller":
            ids = (
                self._prompt.typed(turn["text"]) if speech is None else self._prompt.spoken(speech)
            )
            # Its first id is also the end of the answer before.
            return ids, [TEXT if answered else GIVEN] + [GIVEN] * (len(ids) - 1)
        if role == "agent":
            if not speech:
                raise ValueError("the agent's turn has no speech")
            text = self._tokenizer.encode_plain(turn["text"])
            ids = self._interleave.arrange(text, self._tokenizer.speech_ids(speech))
            return ids, [SPEECH if self._tokenizer.is_speech(i) else TEXT for i in ids]
        if role == "call":
            ids = self._prompt.call(turn["name"], turn["arguments"])
            return ids, [TEXT] * len(ids)
        ids = self._prompt.result(turn["text"])
        # Its first id is also the end of the call.
        return ids, [TEXT] + [GIVEN] * (len(ids) - 1)


def following(role: str | None) -> tuple[str, ...]:
    """Which roles may come after one; None is the start of a dialogue."""
    return {
        None: ("caller",),
        "caller": ("agent", "call"),
        "agent": ("caller", "call"),
        "call": ("result",),
        "result": ("agent", "call"),
    }[role]
