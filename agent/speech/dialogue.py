"""One call's conversation as ids: its turns, edits of them, and what of it fits the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from agent.speech.language_model import LanguageModel
from agent.speech.prompt import TOKENS_PER_SECOND, Interleave, Prompt, heard
from agent.speech.request import KnownAnswer, TurnRequest


@dataclass
class Turn:
    """One exchange.

    Attributes:
        user: Ids of what the caller said, template included.
        answer: Ids of the answer, without its end.
        name: The answer's, so that one can be taken back.
    """

    user: list[int]
    answer: list[int] = field(default_factory=list)
    name: str = ""


@dataclass(frozen=True)
class Dialogue:
    """A conversation so far.

    Attributes:
        system: Its system prompt; empty before the first turn.
        turns: Oldest first.
    """

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def without_last(self) -> Dialogue:
        """The conversation as if its last turn had not been."""
        # The first turn also sets the system prompt.
        return replace(self, turns=self.turns[:-1]) if len(self.turns) > 1 else Dialogue()


class DialogueWriter:
    """Writes turns as ids of one checkpoint and keeps conversations within its positions.

    Args:
        model: Whose tokenizer and sizes count.
        interleave: How answers alternate.

    Raises:
        CheckpointError: The checkpoint lacks one of the special tokens.
    """

    def __init__(self, model: LanguageModel, interleave: Interleave):
        self._tokenizer = model.text_tokenizer
        self._longest = model.config.seq_length
        self._interleave = interleave
        self.prompt = Prompt(model.text_tokenizer)

    def ids(self, dialogue: Dialogue) -> list[int]:
        """All of a conversation, as a fresh prompt would have it."""
        ids = self.prompt.opening(dialogue.system)
        for turn in dialogue.turns:
            ids += turn.user
            ids += turn.answer
        return ids

    def user(self, tokens: npt.ArrayLike, request: TurnRequest) -> list[int]:
        """A turn of the caller, up to where the answer begins.

        With ``request.listen`` the caller is still speaking: the turn stays open behind its last
        token.

        Raises:
            ValueError: Codes out of range, of another shape or kind, or an empty turn.
        """
        codes = np.asarray(tokens)
        if codes.ndim != 1 or (codes.size and codes.dtype.kind not in "iu"):
            raise ValueError(
                f"speech tokens have shape {codes.shape} and dtype {codes.dtype}, "
                "expected one row of whole numbers"
            )
        if request.result_before is not None:
            # What the agent would have answered, had the caller waited, is nothing.
            rest = self.user(tokens, replace(request, result_before=None))
            return [*self.prompt.result(request.result_before), *rest]
        if request.listen:
            return self.prompt.speaking(codes.tolist())
        if request.instruction is not None:
            return self.prompt.typed(request.instruction)
        if request.result is not None:
            return self.prompt.result(request.result)
        if codes.size:
            return self.prompt.spoken(codes.tolist())
        if request.say is not None:
            return self.prompt.say(request.say)
        raise ValueError(
            "an empty turn: no speech tokens, no instruction, no result, nothing to say"
        )

    def answer(self, known: KnownAnswer) -> list[int]:
        """The ids of an answer that was given before.

        Text leads the speech by one run, as where an answer is cut off while it is made.

        Raises:
            ValueError: A code that the checkpoint has no token for.
        """
        codes = self._tokenizer.speech_ids(known.speech)
        ids: list[int] = []
        begin = 0
        for run, last in self._interleave.runs(self._tokenizer.encode_plain(known.text)):
            if begin > len(codes):
                break
            end = len(codes) if last else begin + self._interleave.speech
            ids += [*run, *codes[begin:end]]
            begin = end
        if known.tool_call:
            ids += [self.prompt.assistant, *self._tokenizer.encode_plain(known.tool_call)]
        return ids

    def continued(self, dialogue: Dialogue, turn: Turn, request: TurnRequest) -> Dialogue:
        """A conversation with its next turn, after the history edit that the request asks for.

        The oldest turns go where there is no room for an answer, half of all positions at most.

        Raises:
            ValueError: The turn alone is too long for the model.
        """
        turns = list(dialogue.turns)
        if turns and request.heard_seconds is not None:
            count = int(request.heard_seconds * TOKENS_PER_SECOND + 0.5)
            before = turns[-1]
            flags = map(self._tokenizer.is_speech, before.answer)
            answer = heard(before.answer, flags, count)
            if request.result is not None or request.result_before is not None:
                answer += self._call(before.answer)
            turns[-1] = replace(before, answer=answer)
        system = request.system or dialogue.system
        if not system:
            system = self.prompt.default_system("text" if request.typed else "speech")
        turns.append(turn)
        room = min(max(request.max_new_tokens, self._interleave.text), self._longest // 2)
        if turn.answer:
            # It needs no room any more.
            room = 0
        for first in range(len(turns)):
            fitting = Dialogue(system, tuple(turns[first:]))
            if len(self.ids(fitting)) + room <= self._longest:
                return fitting
        raise ValueError(
            f"a turn of {len(turn.user)} tokens is too long for a model of {self._longest} "
            "positions"
        )

    def _call(self, answer: list[int]) -> list[int]:
        """The call of a tool that ends an answer, if one does."""
        assistant = self.prompt.assistant
        return answer[answer.index(assistant) :] if assistant in answer else []

    def spoken_codes(self, turn: Turn) -> list[int]:
        """The codes of what the caller said in a turn."""
        offset = self._tokenizer.audio_offset
        return [i - offset for i in turn.user if self._tokenizer.is_speech(i)]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return position
    return min(len(first), len(second))
