"""An answer's text and sound as Pipecat frames."""

import numpy as np
from numpy.typing import NDArray
from pipecat.frames.frames import LLMTextFrame, TextFrame, TTSAudioRawFrame, TTSTextFrame
from pipecat.utils.text.base_text_aggregator import TextType

from agent.conversation import AGENT_RATE


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
