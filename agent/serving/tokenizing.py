"""The speech tokenizer as a service: each session's turn is tokenised while the caller speaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from agent.serving.sessions import SessionTable
from agent.speech.request import TurnRequest
from agent.speech.tokenizer import SpeechTokenizer, TokenizerStream


@dataclass
class _Turn:
    stream: TokenizerStream
    tokens: list[npt.NDArray[np.int64]] = field(default_factory=list)


class TokenizingSessions:
    """The turns that are being spoken, one a session.

    Args:
        tokenizer: Does the work.
        ttl_seconds: A turn to which nothing is added for so long is forgotten.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        tokenizer: SpeechTokenizer,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokenizer = tokenizer
        self._turns: SessionTable[_Turn] = SessionTable(ttl_seconds, clock)
        self._clock = clock

    def __len__(self) -> int:
        return len(self._turns)

    def push(
        self,
        session: str,
        audio: npt.NDArray[np.float32],
        end_of_turn: bool,
        request: TurnRequest,
    ) -> tuple[npt.NDArray[np.int64], TurnRequest]:
        """Add audio to the session's turn.

        Args:
            session: Whose turn.
            audio: float32 [n] at 16 kHz in [-1, 1]; n may be 0.
            end_of_turn: Whether the turn ends with this audio.
            request: ``close`` forgets the turn so far and tokenises nothing.

        Returns:
            int64 [m], the tokens that have become final, or with ``end_of_turn`` those of the whole
            turn; and the request, at the end of a turn with the ``tokenise`` seconds that the
            caller waited for them.

        Raises:
            ValueError: if the audio is no audio; the turn is as it was before.
        """
        started = self._clock()
        if request.close:
            self._turns.drop(session)
            return np.zeros(0, dtype=np.int64), request
        turn = self._turns.obtain(session, lambda: _Turn(self._tokenizer.stream()))
        final = turn.stream.push(audio)
        turn.tokens.append(final)
        if not end_of_turn:
            return final, request
        self._turns.drop(session)
        turn.tokens.append(turn.stream.finish())
        timing = {**request.timing, "tokenise": self._clock() - started}
        return np.concatenate(turn.tokens), replace(request, timing=timing)
