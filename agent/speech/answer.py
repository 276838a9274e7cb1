"""Generated ids to pieces of an answer, as soon as each piece is complete."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agent.speech.prompt import Interleave
from agent.speech.text_tokenizer import TextStream, TextTokenizer

PIECE = 10
"""Speech tokens in a piece: one block of the decoder's encoder, 0.8 s."""


@dataclass(frozen=True)
class AnswerPiece:
    """A part of an answer: a run of text, or speech, or neither with the end.

    Attributes:
        session: Whose answer.
        speech_tokens: int64 [k], codes from 0 (not ids of the language model). Pieces are cut at
            every tenth speech token of the answer; only the last may have fewer.
        text: Whole characters; never in a piece with speech, except in the last.
        sequence: 0 for the answer's first piece, then one more each.
        last: Nothing follows in this answer.
        timing: Seconds known so far, by name: what the request brought and "first_token".
        tool_call: In the last piece: the name of the tool that is called, a line break and its
            arguments, which should be a JSON object; empty where none is.
    """

    session: str
    speech_tokens: npt.NDArray[np.int64]
    text: str
    sequence: int
    last: bool
    timing: dict[str, float] = field(default_factory=dict)
    tool_call: str = ""


class AnswerWriter:
    """Cuts one answer into pieces while its ids arrive.

    Text goes out when its run is complete: at the interleave's length, or when speech follows.
    Speech goes out with every tenth token, without waiting for the next. What follows a second
    ``<|assistant|>`` is a tool call and goes out with the end.

    Attributes:
        spoken: Speech tokens so far.
        timing: Copied into every piece; the owner adds to it.
    """

    def __init__(
        self,
        session: str,
        tokenizer: TextTokenizer,
        interleave: Interleave,
        timing: dict[str, float],
    ):
        self.spoken = 0
        self.timing = timing
        self._session = session
        self._tokenizer = tokenizer
        self._interleave = interleave
        self._characters = TextStream(tokenizer)
        self._text: list[int] = []
        self._speech: list[int] = []
        self._assistant = tokenizer.special("<|assistant|>")
        self._call: list[int] | None = None
        self._sequence = 0

    def push(self, token: int) -> list[AnswerPiece]:
        """Take the next id; return the pieces that it completes."""
        if self._call is not None:
            self._call.append(token)
            return []
        if token == self._assistant:
            self._call = []
            return self._write_text()
        if not self._tokenizer.is_speech(token):
            self._text.append(token)
            return self._write_text() if len(self._text) == self._interleave.text else []
        pieces = self._write_text()
        self.spoken += 1
        self._speech.append(token - self._tokenizer.audio_offset)
        if len(self._speech) == PIECE:
            pieces.append(self._piece("", self._take_speech()))
        return pieces

    def finish(self) -> AnswerPiece:
        """The answer is complete: all that is left, in the last piece."""
        text = self._characters.push(self._text) + self._characters.finish()
        call = self._tokenizer.decode(self._call or [])
        return self._piece(text, self._take_speech(), last=True, tool_call=call)

    def abandon(self) -> AnswerPiece:
        """The answer was stopped: an empty last piece; what was not yet sent is dropped."""
        return self._piece("", [], last=True)

    def _take_speech(self) -> list[int]:
        speech, self._speech = self._speech, []
        return speech

    def _write_text(self) -> list[AnswerPiece]:
        text = self._characters.push(self._text)
        self._text = []
        return [self._piece(text, [])] if text else []

    def _piece(
        self, text: str, speech: list[int], last: bool = False, tool_call: str = ""
    ) -> AnswerPiece:
        piece = AnswerPiece(
            session=self._session,
            speech_tokens=np.array(speech, dtype=np.int64),
            text=text,
            sequence=self._sequence,
            last=last,
            timing=dict(self.timing),
            tool_call=tool_call,
        )
        self._sequence += 1
        return piece
