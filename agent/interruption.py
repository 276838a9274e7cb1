"""What interrupts the agent, and what does not: a turn start strategy for Pipecat.

A speech-to-speech model has no words in which to find an "mm-hm". What it has is time: as soon as
the caller is heard over the agent, the agent is held, so the phone is as silent as at an
interruption. If the caller goes on for long enough, it was one. If not (a word of assent, a cough,
a noise), the agent goes on where it stopped, and what was heard of the caller belongs to no turn.

All durations are counted in the caller's audio, so a stalled network decides nothing.
"""

from typing import Any, Protocol

import numpy as np
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start import BaseUserTurnStartStrategy

from agent.noise_floor import NoiseFloor
from agent.turn_taking import TurnTakingSettings

_LONGEST_DOUBT_SECS = 1.0
"""Beyond what an interruption takes: after so long it is noise that does not end."""
_AGAIN_SECS = 1.0
"""Who is heard again so soon after a false interruption means it: both count together."""


class Speaker(Protocol):
    """Who may be interrupted."""

    def is_leaving(self) -> bool:
        """Whether the call ends after what is being said: nobody interrupts that."""

    async def hold(self) -> bool:
        """Fall silent for a moment; False where there is nothing to be silent about."""

    async def resume(self, spoken: float, paused: float) -> None:
        """It was no interruption: go on.

        Args:
            spoken: Seconds of speech that there were.
            paused: Seconds of the caller's audio since :meth:`hold`.
        """


class Detector(Protocol):
    """The voice activity detector of the call."""

    @property
    def state(self) -> VADState:
        """What it has made of the audio so far."""


class InterruptionStrategy(BaseUserTurnStartStrategy):  # type: ignore[no-untyped-call]
    """Starts the caller's turn when they speak; over the agent, when they go on speaking."""

    def __init__(
        self,
        settings: TurnTakingSettings,
        detector: Detector,
        start_secs: float,
        speaker: Speaker,
        **kwargs: Any,
    ):
        """Listen.

        Args:
            settings: How long is long enough.
            detector: Has judged every audio frame before this gets it.
            start_secs: Speech that it hears before it says so.
            speaker: The agent.
            **kwargs: Passed to :class:`BaseUserTurnStartStrategy`.
        """
        super().__init__(**kwargs)
        self._settings = settings
        self._detector = detector
        self._start_secs = start_secs
        self._speaker = speaker
        self._noise = NoiseFloor()
        self._in_turn = False
        self._in_speech = False
        self._doubting = False
        self._spoken = self._paused = 0.0
        # What was spoken at the last false interruption, and how long ago that was.
        self._spoken_before, self._since = 0.0, _AGAIN_SECS

    async def handle_user_turn_started(self) -> None:
        """Nothing is in doubt any more."""
        self._in_turn = True
        self._doubting = False

    async def handle_user_turn_stopped(self) -> None:
        """The next speech may be an interruption."""
        self._in_turn = False

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Take audio and what the detector says of it.

        Returns:
            STOP where the caller's turn has started.
        """
        match frame:
            case InputAudioRawFrame():
                return await self._hear(frame)
            case VADUserStartedSpeakingFrame():
                if not (self._doubting or self._in_turn or self._speaker.is_leaving()):
                    return await self._start()
            case VADUserStoppedSpeakingFrame() if self._doubting:
                await self._acquit()
            case _:
                pass
        return ProcessFrameResult.CONTINUE

    async def _hear(self, frame: InputAudioRawFrame) -> ProcessFrameResult:
        samples = np.frombuffer(frame.audio, "<i2")
        seconds = len(samples) / frame.sample_rate
        margin = self._noise.margin(samples, seconds) if len(samples) else 0.0
        state = self._detector.state
        began = not self._in_speech and state is VADState.SPEAKING
        self._in_speech = state in (VADState.SPEAKING, VADState.STOPPING)
        self._since += seconds
        if began:
            # Here, before anybody else hears from the detector that the caller speaks.
            await self._consider()
        elif self._doubting and not self._speaker.is_leaving():
            self._paused += seconds
            if state is VADState.SPEAKING and margin >= self._settings.noise_margin_db:
                self._spoken += seconds
            if self._spoken >= self._settings.interrupt_after_secs:
                return await self._start()
            longest = self._settings.interrupt_after_secs + _LONGEST_DOUBT_SECS
            if self._paused >= longest:
                await self._acquit()
        return ProcessFrameResult.CONTINUE

    async def _acquit(self) -> None:
        """It was no interruption."""
        self._doubting = False
        self._spoken_before, self._since = self._spoken, 0.0
        await self._speaker.resume(self._spoken, self._paused)

    async def _consider(self) -> None:
        """The caller has begun to speak."""
        before = self._spoken_before if self._since <= _AGAIN_SECS else 0.0
        self._spoken, self._paused = before + self._start_secs, 0.0
        enough = self._spoken >= self._settings.interrupt_after_secs
        if not (enough or self._in_turn or self._speaker.is_leaving()):
            self._doubting = await self._speaker.hold()

    async def _start(self) -> ProcessFrameResult:
        await self.trigger_user_turn_started()
        return ProcessFrameResult.STOP
