"""An answer's text and sound as Pipecat frames, pushed in order until the caller cuts it off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.utils.text.base_text_aggregator import TextType

from agent.conversation import AGENT_RATE
from agent.events import JSON, CallObserver
from agent.history import Answer

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk


class AnswerOutput:
    """Pushes the answers of one call."""

    def __init__(
        self,
        push: Callable[[Frame, FrameDirection], Awaitable[None]],
        observer: CallObserver,
        sounds: Callable[[Answer], Awaitable[None]],
    ):
        """Push nothing yet.

        Args:
            push: Pushes a frame into the pipeline.
            observer: Told what is said.
            sounds: Called before an answer's first sound is pushed.
        """
        self._push = push
        self._observer = observer
        self._sounds = sounds
        # Held while frames of an answer, or the interruption that ends them, are pushed, so that
        # no audio of an answer can follow the interruption down the pipeline.
        self._lock = asyncio.Lock()

    async def speak(self, answer: Answer, chunk: "AnswerChunk") -> None:
        """Push one chunk of an answer, unless the caller has cut it off."""
        async with self._lock:
            if answer.cut:
                return
            if not answer.opened:
                answer.opened = True
                await self._down(LLMFullResponseStartFrame())
            if not answer.token_seen and "first_token" in chunk.timing:
                answer.token_seen = True
                names = ("tokenise", "first_token")
                timing: dict[str, JSON] = {
                    name: chunk.timing[name] for name in names if name in chunk.timing
                }
                self._observer.event("first_token", turn=answer.turn, **timing)
            if chunk.text:
                answer.text += chunk.text
                self._observer.event("agent_text", turn=answer.turn, text=chunk.text)
                for frame in text_frames(chunk.text, answer.id):
                    await self._down(frame)
            if chunk.audio.size:
                await self._speech(answer, chunk)

    async def finish(self, answer: Answer) -> None:
        """The model has made what it will of an answer."""
        async with self._lock:
            if answer.cut:
                return
            if answer.complete:
                self._observer.event("answer_finished", turn=answer.turn, text=answer.text)
            if answer.audio_seconds:
                await self._down(TTSStoppedFrame(context_id=answer.id))
            if answer.opened:
                await self._down(LLMFullResponseEndFrame())

    async def interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        """Pass an interruption on; nothing of the answers that are cut follows it."""
        async with self._lock:
            await self._push(frame, direction)

    async def _speech(self, answer: Answer, chunk: "AnswerChunk") -> None:
        if not answer.audio_seconds:
            self._observer.event(
                "first_audio",
                turn=answer.turn,
                first_audio=chunk.timing.get("first_audio"),
                saved=answer.saved_seconds,
            )
            await self._sounds(answer)
            await self._down(TTSStartedFrame(context_id=answer.id, append_to_context=False))
        answer.audio_seconds += chunk.audio.size / AGENT_RATE
        await self._down(speech_frame(chunk.audio, answer.id))

    async def _down(self, frame: Frame) -> None:
        await self._push(frame, FrameDirection.DOWNSTREAM)


def text_frames(text: str, answer_id: str) -> list[TextFrame]:
    """The frames of a piece of an answer's text.

    They stay out of the context: what is made is not yet heard, and agent.history keeps the context
    at what was.

    Args:
        text: With the spaces that belong to it.
        answer_id: Its answer's ``context_id``.
    """
    generated = LLMTextFrame(text)
    spoken = TTSTextFrame(text, text_type=TextType.TOKEN, context_id=answer_id)
    spoken.includes_inter_frame_spaces = True
    frames: list[TextFrame] = [generated, spoken]
    for frame in frames:
        frame.append_to_context = False
    return frames


def speech_frame(audio: NDArray[np.int16], answer_id: str) -> TTSAudioRawFrame:
    """The frame of a piece of an answer's sound.

    Args:
        audio: int16 [n], 22.05 kHz mono.
        answer_id: Its answer's ``context_id``.
    """
    return TTSAudioRawFrame(
        audio=audio.astype("<i2").tobytes(),
        sample_rate=AGENT_RATE,
        num_channels=1,
        context_id=answer_id,
    )
