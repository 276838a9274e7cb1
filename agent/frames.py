"""Frames of our own that travel through a call's Pipecat pipeline."""

from dataclasses import dataclass

from pipecat.frames.frames import SystemFrame

SPEAKING_SECONDS = 5.0
"""How often the pipeline is told that somebody still speaks. Pipecat tells every processor in both
directions five times a second, which is a third of all frames; who waits for a line that is dead
needs no more than this."""


@dataclass
class AudioHeardFrame(SystemFrame):
    """How much of an answer the caller has heard, confirmed by the phone.

    Pushed upstream by the phone transport's output: whenever a mark returns, once with
    ``completed`` when the answer's last mark does, and once with ``interrupted`` when the caller
    barges in.

    Attributes:
        answer_id: The ``context_id`` of the answer's ``TTSAudioRawFrame``s.
        seconds: Seconds of the answer's audio heard so far, from its first sample.
        interrupted: The answer was cut off here; nothing after ``seconds`` will be heard.
        completed: The whole answer was heard.
    """

    answer_id: str
    seconds: float
    interrupted: bool
    completed: bool

    def __str__(self) -> str:
        return (
            f"{self.name}(answer_id: {self.answer_id}, seconds: {self.seconds:.3f}, "
            f"interrupted: {self.interrupted}, completed: {self.completed})"
        )


@dataclass
class HoldSpeechFrame(SystemFrame):
    """The agent falls silent at once; what the caller has not heard yet may still be wanted.

    Pushed downstream. An ``InterruptionFrame`` after it means that it is not.
    """


@dataclass
class ResumeSpeechFrame(SystemFrame):
    """The agent goes on where the caller stopped hearing it."""
