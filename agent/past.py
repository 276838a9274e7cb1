"""What was said on a call, kept so that another engine can be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agent.conversation import CALLER_RATE
from agent.speech.request import KnownAnswer, TurnRequest
from agent.voice_session import AnswerChunk


@dataclass
class PastTurn:
    """One turn of a call.

    Attributes:
        audio: int16 [n] at 16 kHz, what the caller said; None where the turn was typed.
        asked: What the turn asked for.
        text: The answer's words so far.
        codes: Its speech tokens so far, int32 arrays.
        tool_call: As of :class:`AnswerChunk`.
    """

    audio: NDArray[np.int16] | None
    asked: TurnRequest
    text: str = ""
    codes: list[NDArray[np.int32]] = field(default_factory=list)
    tool_call: str = ""

    def add(self, chunk: AnswerChunk) -> None:
        """Keep another piece of the answer."""
        self.text += chunk.text
        if chunk.tokens.size:
            self.codes.append(chunk.tokens)
        self.tool_call = chunk.tool_call

    def forget_answer(self) -> None:
        """It is answered anew."""
        self.text, self.codes, self.tool_call = "", [], ""

    @property
    def seconds(self) -> float:
        """Of the caller's voice."""
        return 0.0 if self.audio is None else len(self.audio) / CALLER_RATE

    @property
    def request(self) -> TurnRequest:
        """What tells an engine of this turn and its answer."""
        codes = tuple(int(code) for piece in self.codes for code in piece)
        answer = KnownAnswer(self.text, codes, self.tool_call)
        return replace(self.asked, answered=answer, goes_on=False, early=False)

    @property
    def samples(self) -> NDArray[np.float32]:
        """The caller's voice as it was pushed, float32 [n] in [-1, 1]."""
        audio = np.zeros(0, np.int16) if self.audio is None else self.audio
        return audio.astype(np.float32) / np.float32(32768)


def pcm(pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.int16]:
    """Samples in [-1, 1] as int16 [n]: half the memory, and exact where they came from a phone."""
    audio = np.concatenate([np.zeros(0, np.float32), *pieces]) * 32768
    whole: NDArray[np.int16] = np.clip(np.rint(audio), -32768, 32767).astype(np.int16)
    return whole


class Past:
    """The latest turns of a call.

    Attributes:
        turns: Oldest first.
    """

    def __init__(self, seconds: float):
        """Begin with none.

        Args:
            seconds: Most of the caller's voice to keep; the last turn is kept in any case.
        """
        self.turns: deque[PastTurn] = deque()
        self._most = seconds

    def append(self, turn: PastTurn) -> None:
        """Keep a turn; the oldest go where there is too much."""
        self.turns.append(turn)
        while len(self.turns) > 1 and sum(kept.seconds for kept in self.turns) > self._most:
            self.turns.popleft()
            # What a tool gave back says nothing without the call of it.
            while len(self.turns) > 1 and self.turns[0].asked.result is not None:
                self.turns.popleft()
