"""How text and speech that belong together are written for pre-training.

The published tokenizer has a pair of marks for audio and one for its transcription. Here speech is
always between the first and, where it is spoken word for word, the words are between the second:

    recognition   [gMASK]<sop> audio transcription
    reading       [gMASK]<sop> transcription audio
    interleaved   [gMASK]<sop> text audio text audio ... <|endoftext|>
    speech alone  [gMASK]<sop> audio <|endoftext|>
    text alone    [gMASK]<sop> text <|endoftext|>

Reading is also what the text-to-token model learns. The papers do not say how their sequences are
marked.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.speech.text_tokenizer import TextTokenizer
from agent.training.examples import GIVEN, SPEECH, TEXT, Example


class Sequences:
    """Writes pre-training examples as ids of one checkpoint.

    Args:
        tokenizer: Where every special id is looked up.
        longest: Most ids of an example.

    Attributes:
        end_of_audio: The id that ends speech.

    Raises:
        CheckpointError: The checkpoint lacks one of the special tokens.
    """

    def __init__(self, tokenizer: TextTokenizer, longest: int):
        self._tokenizer, self._longest = tokenizer, longest
        self._start = [tokenizer.special("[gMASK]"), tokenizer.special("<sop>")]
        self._system = tokenizer.special("<|system|>")
        self._begin_audio = tokenizer.special("<|begin_of_audio|>")
        self.end_of_audio = tokenizer.special("<|end_of_audio|>")
        self._begin_words = tokenizer.special("<|begin_of_transcription|>")
        self._end_words = tokenizer.special("<|end_of_transcription|>")
        self._end = tokenizer.special("<|endoftext|>")

    def recognition(self, text: str, codes: Sequence[int]) -> Example | None:
        """Speech and its words; None if too long."""
        return self._whole([*self._audio(codes), *self._words(text)])

    def reading(self, text: str, codes: Sequence[int], style: str | None = None) -> Example | None:
        """Words and their speech, of which only the speech is to be predicted; None if too long."""
        asked = self.to_read(text, style)
        spoken = self._audio(codes)[1:]
        if len(asked) + len(spoken) > self._longest:
            return None
        return Example(asked + spoken, [GIVEN] * len(asked) + [SPEECH] * len(spoken))

    def to_read(self, text: str, style: str | None = None) -> list[int]:
        """Ids that ask for the speech of a text, up to where it begins.

        Args:
            text: What is to be said.
            style: How, in the words of the training data's field of that name.
        """
        manner = (
            [] if style is None else [self._system, *self._tokenizer.encode_plain("\n" + style)]
        )
        return [*self._start, *manner, *self._words(text), self._begin_audio]

    def interleaved(self, parts: Sequence[str | Sequence[int]]) -> Example | None:
        """Text, and codes of text, in the order of the text; cut where it gets too long."""
        ids: list[int] = []
        for part in parts:
            ids += (
                self._tokenizer.encode_plain(part) if isinstance(part, str) else self._audio(part)
            )
        return self._cut([*ids, self._end])

    def speech(self, codes: Sequence[int]) -> Example | None:
        """Speech alone; cut where it gets too long."""
        return self._cut([*self._audio(codes), self._end])

    def text(self, text: str) -> Example | None:
        """Text alone; cut where it gets too long."""
        return self._cut([*self._tokenizer.encode_plain(text), self._end])

    def _audio(self, codes: Sequence[int]) -> list[int]:
        return [self._begin_audio, *self._tokenizer.speech_ids(codes), self.end_of_audio]

    def _words(self, text: str) -> list[int]:
        return [self._begin_words, *self._tokenizer.encode_plain(text), self._end_words]

    def _whole(self, ids: list[int]) -> Example | None:
        return self._cut(ids) if len(ids) + len(self._start) <= self._longest else None

    def _cut(self, ids: list[int]) -> Example:
        ids = ids[: self._longest - len(self._start)]
        kinds = [SPEECH if self._is_spoken(i) else TEXT for i in ids]
        return Example([*self._start, *ids], [GIVEN] * len(self._start) + kinds)

    def _is_spoken(self, token: int) -> bool:
        # Where speech ends is learnt with the speech.
        return self._tokenizer.is_speech(token) or token == self.end_of_audio
