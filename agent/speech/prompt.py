"""How a conversation is written for the model: special ids, chat template, interleave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.speech.system_prompt import SPEECH_SYSTEM, TEXT_SYSTEM
from agent.speech.text_tokenizer import TextTokenizer

TOKENS_PER_SECOND = 12.5
"""Speech tokens in a second of audio."""

TRANSCRIBE_SYSTEM = "User will provide you with a speech instruction. Transcribe it. "
"""Of this project's own checkpoints: the answer is the caller's words, as text alone."""
_SAY = "Say this: {text}"


@dataclass(frozen=True)
class Interleave:
    """An answer alternates runs of text tokens and runs of speech tokens, text first.

    When the text is exhausted its run is shorter and only speech follows.

    Attributes:
        text: Tokens in a text run.
        speech: Tokens in a speech run.
    """

    text: int = 13
    speech: int = 26

    def runs(self, text: Sequence[int]) -> Iterator[tuple[Sequence[int], bool]]:
        """Runs of a text, each with whether it is the last one."""
        for start in range(0, max(len(text), 1), self.text):
            yield text[start : start + self.text], start + self.text >= len(text)

    def arrange(self, text: Sequence[int], speech: Sequence[int]) -> list[int]:
        """One answer of these text and speech ids.

        Raises:
            ValueError: The speech ends before the last text run's turn comes.
        """
        answer: list[int] = []
        position = 0
        for run, last in self.runs(text):
            if run and position and position >= len(speech):
                raise ValueError(
                    f"{len(speech)} speech tokens are too few for {len(text)} text tokens"
                )
            answer += run
            end = len(speech) if last else position + self.speech
            answer += speech[position:end]
            position = end
        return answer


def heard(answer: Sequence[int], is_speech: Iterable[bool], count: int) -> list[int]:
    """The start of an answer of which ``count`` speech tokens were heard.

    Text leads the speech by up to a run, so the text kept is that of every speech run that began
    to be heard; text behind the last speech token heard goes.

    Args:
        answer: Ids in the order of generation.
        is_speech: For each, whether it is a speech token.
        count: Speech tokens heard; may be more than there are.
    """
    end = 0
    for position, speech in enumerate(is_speech):
        if speech and count > 0:
            count -= 1
            end = position + 1
    return list(answer[:end])


class Prompt:
    """Writes turns as ids of one checkpoint.

    Args:
        tokenizer: Where every special id is looked up.

    Raises:
        CheckpointError: The checkpoint lacks one of the special tokens.
    """

    def __init__(self, tokenizer: TextTokenizer):
        self._tokenizer = tokenizer
        self._start = [tokenizer.special("[gMASK]"), tokenizer.special("<sop>")]
        self._system = tokenizer.special("<|system|>")
        self._begin_audio = tokenizer.special("<|begin_of_audio|>")
        self._end_audio = tokenizer.special("<|end_of_audio|>")
        self.user = tokenizer.special("<|user|>")
        self.assistant = tokenizer.special("<|assistant|>")
        self.observation = tokenizer.special("<|observation|>")
        self._reply = [
            self.assistant,
            *tokenizer.encode_plain("streaming_transcription\n"),
        ]

    def opening(self, system: str) -> list[int]:
        """What every conversation starts with."""
        return [*self._start, self._system, *self._tokenizer.encode_plain("\n" + system)]

    def default_system(self, kind: Literal["speech", "text"]) -> str:
        """The system prompt of a conversation whose first turn is spoken or typed."""
        return SPEECH_SYSTEM if kind == "speech" else TEXT_SYSTEM

    def spoken(self, codes: Sequence[int]) -> list[int]:
        """A spoken turn, up to where the answer begins.

        Raises:
            ValueError: A code that the checkpoint has no token for.
        """
        return [*self.speaking(codes), self._end_audio, *self._reply]

    def speaking(self, codes: Sequence[int]) -> list[int]:
        """The beginning of a spoken turn, as far as the caller has got.

        Raises:
            ValueError: A code that the checkpoint has no token for.
        """
        newline = self._tokenizer.encode_plain("\n")
        return [self.user, *newline, self._begin_audio, *self._tokenizer.speech_ids(codes)]

    def typed(self, text: str) -> list[int]:
        """A typed turn, up to where the answer begins; markup in the text is plain text."""
        return [self.user, *self._tokenizer.encode_plain("\n" + text), *self._reply]

    def call(self, name: str, arguments: Mapping[str, Any]) -> list[int]:
        """A tool that the agent calls, up to where `result` goes on."""
        written = json.dumps(arguments, ensure_ascii=False)
        return [self.assistant, *self._tokenizer.encode_plain(f"{name}\n{written}")]

    def result(self, text: str) -> list[int]:
        """What a tool gave back, up to where the answer goes on."""
        return [self.observation, *self._tokenizer.encode_plain("\n" + text), *self._reply]

    def say(self, text: str) -> list[int]:
        """A typed turn that asks for a text to be said as it stands."""
        return self.typed(_SAY.format(text=text))
