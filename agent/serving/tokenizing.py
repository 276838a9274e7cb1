"""The speech tokenizer as a service: each session's turn is tokenised while the caller speaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agent.serving.sessions import SessionTable
from agent.speech.request import TurnRequest
from agent.speech.tokenizer import SpeechTokenizer, TokenizerStream


class Listener(Protocol):
    """Whoever reads along: the language model."""

    def listen(self, session: str, tokens: npt.NDArray[np.int64], request: TurnRequest) -> None:
        """Take the turn so far, int64 [m] from its beginning, without waiting for anything."""


class TokenizingSessions:
    """The turns that are being spoken, one a session.

    Args:
        tokenizer: Does the work.
        listener: Told the turns' tokens as blocks of them become final.
        ttl_seconds: A turn to which nothing is added for so long is forgotten.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        tokenizer: SpeechTokenizer,
        listener: Listener,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokenizer = tokenizer
        self._listener = listener
        self._turns: SessionTable[TokenizerStream] = SessionTable(ttl_seconds, clock)
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
            request: ``close`` forgets the turn so far and tokenises nothing; a typed instruction, a
                tool's result or words to say leave it as it is, and have no tokens. With
                ``listen`` the listener hears of tokens that become final. With ``early`` the turn
                goes on, though it is answered as if it had ended.

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
        if request.typed:
            # Nothing that was spoken is answered: the caller's turn, if there is one, goes on.
            tokens = np.zeros(0, dtype=np.int64)
        else:
            stream = self._turns.obtain(session, self._tokenizer.stream)
            final = stream.push(audio)
            if not end_of_turn:
                if len(final) and request.listen:
                    self._listener.listen(session, stream.revise(), request)
                return final, request
            if request.early:
                tokens = stream.preview()
            else:
                self._turns.drop(session)
                stream.finish()
                tokens = stream.revise()
        timing = {**request.timing, "tokenise": self._clock() - started}
        return tokens, replace(request, timing=timing)
