"""What callers heard of the agent's answers, for Pipecat's context and for the model's session.

An answer is made faster than it is heard, and a caller may cut it off. Only what was heard may be
remembered: in the context (text) this module keeps the assistant's message at what the phone has
confirmed; for the model's session (tokens) it says how many seconds of the last answer count.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import cast

from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage

from agent.heard import heard_text

_RECENT = 8
"""Transcripts that may still be the last message of a context on its way to the service."""


@dataclass
class Answer:
    """One answer of the agent, from the request to its last sound at the caller's ear.

    Attributes:
        turn: Its number in the call.
        text: The text made so far.
        audio_seconds: Seconds of audio made so far.
        spoken: It answers what the caller said, not a typed instruction.
        aside: It fills a silence; neither the context nor the model keeps it.
        started: The model was asked for it.
        opened: Its beginning went down the pipeline.
        token_seen: The engine has reported its first token.
        complete: The model has made all of it.
        cut: The caller cut it off.
        saved_seconds: By so much an early beginning brought its first sound nearer.
        settled: What was heard of it is final.
        heard_seconds: Seconds of its audio that were heard.
        heard: The text that goes with them.
    """

    turn: int
    text: str = ""
    audio_seconds: float = 0.0
    spoken: bool = False
    aside: bool = False
    started: bool = False
    opened: bool = False
    token_seen: bool = False
    complete: bool = False
    cut: bool = False
    saved_seconds: float = 0.0
    settled: bool = False
    heard_seconds: float = 0.0
    heard: str = ""
    message: dict[str, str] | None = field(default=None, repr=False)

    @property
    def unheard_seconds(self) -> float:
        """Seconds of the audio made so far of which nobody has confirmed that it was heard."""
        return self.audio_seconds - self.heard_seconds

    @property
    def id(self) -> str:
        """What its audio frames carry as ``context_id``."""
        return f"answer-{self.turn}"


class AnswerHistory:
    """Follows a call's answers until each is settled."""

    def __init__(self, context: LLMContext):
        """Start with no answers.

        Args:
            context: Gets one assistant message for each answer of which anything was heard; it
                grows while the answer plays. Before it, where they are known, the caller's words.
        """
        self._context = context
        self._turns = 0
        self._open: dict[str, Answer] = {}
        self._last_started: Answer | None = None
        self._transcripts: deque[LLMContextMessage] = deque(maxlen=_RECENT)

    @property
    def open(self) -> list[Answer]:
        """Answers that are still being made or played, oldest first."""
        return list(self._open.values())

    def begin(self, aside: bool = False) -> Answer:
        """Open the next answer; ``aside`` for one that nobody keeps."""
        answer = Answer(self._turns, aside=aside)
        self._turns += 1
        self._open[answer.id] = answer
        return answer

    def edit(self) -> float | None:
        """What the model has to forget before the next answer.

        Returns:
            Seconds of the last answer that the model should remember, where the caller cut it
            off; None where it keeps all of it.
        """
        last = self._last_started
        return last.heard_seconds if last is not None and last.cut else None

    def start(self, answer: Answer) -> float | None:
        """The model is asked for an answer.

        Returns:
            As :meth:`edit`, of the answer before it.
        """
        edit = self.edit()
        if not answer.aside:
            self._last_started = answer
        answer.started = True
        return edit

    def cut(self) -> list[Answer]:
        """The caller barged in: no open answer goes on.

        Returns:
            The answers that were cut off by this.
        """
        cut = [answer for answer in self._open.values() if not answer.cut]
        for answer in cut:
            answer.cut = True
        return cut

    def hear(self, answer_id: str, seconds: float) -> Answer | None:
        """So much of an answer's audio was heard.

        Args:
            answer_id: Which answer.
            seconds: Seconds of its audio, from its first sample; never fewer than before.

        Returns:
            The answer, or None where it is not open (any more).
        """
        answer = self._open.get(answer_id)
        if answer is None:
            return None
        answer.heard_seconds = max(answer.heard_seconds, seconds)
        answer.heard = heard_text(
            answer.text, answer.heard_seconds, answer.audio_seconds, answer.complete
        )
        self._write(answer)
        return answer

    def caller_said(self, answer: Answer, text: str) -> None:
        """These are the words that an answer is for."""
        messages = self._context.get_messages()
        message = cast(LLMContextMessage, {"role": "user", "content": text})
        place = len(messages)
        if answer.message is not None:
            place = next(i for i, other in enumerate(messages) if other is answer.message)
        self._transcripts.append(message)
        self._context.set_messages([*messages[:place], message, *messages[place:]])

    def is_transcript(self, message: object) -> bool:
        """Whether a message of the context is what :meth:`caller_said` wrote."""
        return any(message is transcript for transcript in self._transcripts)

    def settle(self, answer: Answer) -> None:
        """Nothing more of an answer will be heard; what was heard of it is final."""
        if not answer.cut and answer.complete and answer.audio_seconds:
            answer.heard_seconds, answer.heard = answer.audio_seconds, answer.text
            self._write(answer)
        answer.settled = True
        self._open.pop(answer.id, None)

    def _write(self, answer: Answer) -> None:
        if answer.aside:
            return
        if answer.message is not None:
            answer.message["content"] = answer.heard
        elif answer.heard:
            answer.message = {"role": "assistant", "content": answer.heard}
            self._context.add_message(cast(LLMContextMessage, answer.message))
