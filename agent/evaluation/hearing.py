"""What an independent recogniser hears of the answers, where there is one that can."""

from __future__ import annotations

from agent.evaluation.answering import Answer, Checkpoint
from agent.evaluation.services import Recogniser
from agent.evaluation.text import Language
from agent.sound import resampled


class Hearing:
    """Listens to a checkpoint's answers.

    Args:
        checkpoint: Whose voice.
        recogniser: Who listens; None if there is nobody.
        languages: What it understands.
        missing: Why there is nobody.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        recogniser: Recogniser | None,
        languages: tuple[Language, ...] = ("en", "zh"),
        missing: str = "",
    ):
        self._checkpoint = checkpoint
        self._recogniser = recogniser
        self._languages = languages
        self._missing = missing

    def hears(self, language: Language) -> bool:
        """Whether answers in a language can be judged."""
        return self._recogniser is not None and language in self._languages

    def note(self, language: Language) -> str:
        """Who listens, or why nobody does, as a sentence."""
        if self._recogniser is None:
            return f"No recogniser: {self._missing}."
        if language not in self._languages:
            return (
                f"The recogniser ({self._recogniser.name}) does not know the language {language}."
            )
        return f"Speech was judged by {self._recogniser.name}."

    def of(self, answer: Answer) -> str:
        """The words heard in an answer.

        Raises:
            RuntimeError: There is nobody to listen, or a service fails.
        """
        if self._recogniser is None:
            raise RuntimeError(self._missing)
        audio = self._checkpoint.speech(answer)
        if not len(audio):
            return ""
        return self._recogniser.recognise(resampled(audio, self._checkpoint.decoder.sample_rate))
