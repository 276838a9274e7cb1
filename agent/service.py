"""GLM-4-Voice as a Pipecat speech-to-speech service.

The service streams the caller's audio to the model's session while the caller speaks, asks for an
answer when the caller pauses, and pushes the answer's audio and text as they come, once the turn
strategy has decided that the turn is over; if the caller goes on instead, nobody hears of that
answer. On a barge-in it stops the model and remembers only what was heard. An answer may end with a
call of a tool (agent.tool_calls).

The turn strategies run in the user aggregator (Silero and smart-turn on the same audio), so the
pipeline needs a VAD analyzer there. The transport confirms what was heard with
:class:`agent.frames.AudioHeardFrame`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipecat.frames.frames import (
    BotSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMServiceMetadataFrame,
    SystemFrame,
    TTSSpeakFrame,
    UserSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameCallback, FrameDirection
from pipecat.services.settings import LLMSettings

from agent.answer_service import AnswerService
from agent.conversation import CALLER_RATE, SpeechSession
from agent.early_answer import EarlyAnswers
from agent.events import CallObserver
from agent.frames import AudioHeardFrame, HoldSpeechFrame, ResumeSpeechFrame
from agent.history import Answer
from agent.settings import AgentSettings
from agent.silence import Quiet, Silence
from agent.speech.request import TurnRequest
from agent.tools.call import Phone
from agent.tools.tool import Tool
from agent.turn_audio import TurnAudio

_LAST_WORDS_SECS = 1.0
"""Who speaks when so much of an answer is left to be heard answers it."""


class GLMVoiceService(AnswerService):
    """Speech in, speech out, one instance a call.

    Takes ``InputAudioRawFrame`` (16 kHz mono), the VAD's and the turn strategy's frames,
    ``InterruptionFrame``, ``AudioHeardFrame``, ``LLMContextFrame`` (a typed message that ends the
    context is an instruction to answer) and ``TTSSpeakFrame`` (words to say as they are).

    Pushes ``LLMFullResponseStartFrame``, ``TTSStartedFrame``, ``LLMTextFrame`` and
    ``TTSTextFrame``, ``TTSAudioRawFrame`` (22.05 kHz mono), ``TTSStoppedFrame``,
    ``LLMFullResponseEndFrame``, ``TranscriptionFrame`` where the checkpoint can tell the caller's
    words, and Pipecat's function call frames. None of the text is for the aggregators: the service
    itself keeps the context's messages at what was said and heard.

    Attributes:
        last_sound: When one of the two was last heard to speak, in seconds of the clock.
        quiet: Follows silences, and says what has to be said in one.
    """

    Settings = LLMSettings

    def __init__(
        self,
        session: SpeechSession,
        *,
        context: LLMContext,
        settings: AgentSettings,
        observer: CallObserver,
        tools: Sequence[Tool] = (),
        phone: Phone | None = None,
        silence: Silence | None = None,
        clock: Callable[[], float] = time.monotonic,
        passes_audio: bool = True,
        **kwargs: Any,
    ):
        """Prepare a service for one call.

        Args:
            session: The call's conversation with the model; closed by :meth:`cleanup`.
            context: Pipecat's context of the call, shared with the context aggregators.
            settings: Sampling, system prompt and turn settings.
            observer: Told what happens, as it happens.
            tools: What the agent may do, beside the functions that are registered.
            phone: The telephone, for tools that need it.
            silence: What is done about a caller who says nothing; None: nothing.
            clock: Monotonic seconds.
            passes_audio: Whether the caller's audio travels on. Every processor behind costs a
                call as much for it as the service does.
            **kwargs: Passed to :class:`LLMService`.
        """
        super().__init__(
            session,
            context=context,
            settings=settings,
            observer=observer,
            tools=tools,
            phone=phone,
            clock=clock,
            **kwargs,
        )
        vad, turn = settings.vad, settings.turn
        # Speech is noticed start_secs after it began, so that much precedes the pre-roll's end.
        pre_roll = round((vad.start_secs + turn.pre_roll_secs) * CALLER_RATE)
        self._audio = TurnAudio(pre_roll, patience=2 * CALLER_RATE)
        # What the VAD adds at the end of speech (stop_secs of silence, to be sure) and leaves out
        # at its beginning, in samples of the time it reports as speech.
        self._vad_surplus = (vad.stop_secs - vad.start_secs) * CALLER_RATE
        self._min_speech = turn.min_speech_secs * CALLER_RATE
        self._answers_early = turn.early_secs is not None
        self._passes_audio = passes_audio
        # System frames that are queued or in hand: what comes next must not overtake them.
        self._waiting = 0
        self.last_sound = clock()
        self._barged_in = False
        self._caller_speaks = False
        # While the agent is held: what the caller says, which may be no turn.
        self._doubted: list[NDArray[np.float32]] | None = None
        self._leaving = False
        self.quiet = Quiet(settings.turn_taking, silence, self, observer)
        # A turn that is answered when a tool has given its result.
        self._held: Answer | None = None
        self._early = EarlyAnswers(session, observer, self.run_beside, clock)
        self._instructions: deque[TurnRequest] = deque()
        self._last_instruction: object = None
        # Something typed is being answered, or is not to be answered any more.
        self._changed = asyncio.Event()
        self._released = False

    def can_generate_metrics(self) -> bool:
        """Time to first byte and processing time are measured."""
        return True

    def service_metadata_frame(self) -> LLMServiceMetadataFrame:
        """A realtime service whose turns are decided by local strategies."""
        return LLMServiceMetadataFrame(service_name=self.name, is_realtime_service=True)

    async def queue_frame(
        self,
        frame: Frame,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        callback: FrameCallback | None = None,
    ) -> None:
        """Queue a frame; the caller's audio is taken at once where nothing waits before it."""
        # Taking it is nothing to wait for, and thirty times a second Pipecat's queue, its task and
        # its events are dearer than what is done here.
        if isinstance(frame, InputAudioRawFrame) and not (self._passes_audio or self._waiting):
            if not self._cancelling:
                self._take_audio(frame)
            return
        if isinstance(frame, SystemFrame):
            self._waiting += 1
        await super().queue_frame(frame, direction, callback)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Handle one frame; all but instructions and heard reports travel on."""
        try:
            await self._take(frame, direction)
        finally:
            if isinstance(frame, SystemFrame):
                self._waiting -= 1

    async def _take(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case InputAudioRawFrame():
                self._take_audio(frame)
                if not self._passes_audio:
                    return
            case BotSpeakingFrame() | BotStoppedSpeakingFrame() | UserSpeakingFrame():
                self.last_sound = self._clock()
            case InputDTMFFrame():
                self.quiet.caller_acted()
            case VADUserStartedSpeakingFrame():
                self._early.take_back()
                self._caller_speaks = True
                self._push_audio(self._audio.speech_started(frame.timestamp))
                self._observer.event("caller_speech_started")
            case VADUserStoppedSpeakingFrame():
                self.last_sound = self._clock()
                self._audio.speech_stopped(frame.timestamp)
                self._observer.event("caller_speech_stopped")
                self._answer_early()
                await self.start_ttfb_metrics(start_time=frame.timestamp - frame.stop_secs)
            case InterruptionFrame():
                await self._interrupt(frame, direction)
                return
            case UserStoppedSpeakingFrame():
                await self._end_turn()
            case AudioHeardFrame():
                self._hear(frame)
                return
            case LLMContextFrame():
                await self._take_context(frame.context)
                return
            case TTSSpeakFrame():
                self._instruct(self._request(say=frame.text))
                return
            case _:
                pass
        await self.push_frame(frame, direction)

    async def stop(self, frame: EndFrame) -> None:
        """End gracefully: an answer that is being made is made to its end first."""
        await super().stop(frame)
        if self._answering is not None:
            await asyncio.wait({self._answering})

    async def cancel(self, frame: CancelFrame) -> None:
        """End at once."""
        await super().cancel(frame)
        await self._release()

    async def cleanup(self) -> None:
        """Free everything, the model's session included; idempotent."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._release()

    def caller_pauses(self, silent: bool) -> None:
        """Hear of a pause before the VAD is sure of it, and of its end.

        Args:
            silent: Whether the caller has fallen silent or goes on.
        """
        if silent:
            self._answer_early()
        else:
            self._early.take_back()

    async def end_with(self, words: str) -> None:
        """End the call with words in the place of all that is said, waits to be said or is done.

        If the caller cuts in before they are begun, the call ends without them. Where the agent
        itself is ending the call already, nothing is added to that.
        """
        if self.is_leaving():
            return
        self._leaving = True
        self._tools.end()
        await self._interrupt(InterruptionFrame(), FrameDirection.DOWNSTREAM)
        self._instruct(self._request(say=words))
        while self._instructions:
            self._changed.clear()
            await self._changed.wait()
        # Their answer has been begun, which a graceful end lets be heard.
        await self.end_call()

    # --- the caller's turn

    def _take_audio(self, frame: InputAudioRawFrame) -> None:
        if frame.sample_rate != CALLER_RATE or frame.num_channels != 1:
            raise ValueError(
                f"caller audio has {frame.sample_rate} Hz and {frame.num_channels} channel(s), "
                f"expected {CALLER_RATE} Hz mono"
            )
        samples = np.frombuffer(frame.audio, dtype="<i2").astype(np.float32) / 32768.0
        self._push_audio(self._audio.take(samples, time.time()))
        self.quiet.pass_time(len(samples) / CALLER_RATE)

    def _push_audio(self, pieces: list[NDArray[np.float32]]) -> None:
        if self._doubted is not None:
            self._doubted += pieces
            return
        for piece in pieces:
            self._session.push(piece, self._spoken_request())

    def _is_turn(self) -> bool:
        """Whether what was said so far is worth an answer.

        A cough is not, except where it made the agent fall silent: then silence would be the worse
        answer.
        """
        return self._barged_in or self._audio.spoken - self._vad_surplus >= self._min_speech

    def _answer_early(self) -> None:
        """The caller pauses: begin to answer, in case that was all."""
        waits = self._instructions or self._tools.running
        busy = self._history.open or waits or self._released
        ending = self._answering is not None and not self._answering.done()
        if self._answers_early and not busy and not ending and self._is_turn():
            self._early.begin(self._spoken_request())

    async def _end_turn(self) -> None:
        """The turn strategy decided that the caller's turn is over."""
        is_turn = self._is_turn() and not self.is_leaving()
        self._audio.end_turn()
        self._caller_speaks = False
        if not is_turn:
            self._early.take_back()
            self._session.discard()
            await self.cancel_ttfb_metrics()  # type: ignore[no-untyped-call]
            self.go_on()
            return
        self._barged_in = False
        self.quiet.caller_acted()
        for answer in self._history.open:
            # No word from the phone about a cut answer: what it last confirmed has to do.
            if answer.cut:
                self._settle_cut(answer)
        answer = self._history.begin()
        answer.spoken = True
        self._event("turn_decided", answer)
        self._tools.caller_said()
        if self._tools.running is not None:
            self._held = answer
            self.go_on()
        else:
            self._begin(answer, self._request(), self._early.hand_over())

    # --- typed turns

    async def _take_context(self, context: LLMContext) -> None:
        """Answer the typed message at the end of the context, once."""
        asked = await self._adapter.get_llm_invocation_params(context)
        message = asked["message"]
        known = message is self._last_instruction or self._history.is_transcript(message)
        if asked["instruction"] and not known:
            self._last_instruction = message
            self._instruct(self._request(instruction=asked["instruction"]))

    def _instruct(self, request: TurnRequest) -> None:
        self._instructions.append(request)
        self.go_on()

    # --- what comes next

    def is_leaving(self) -> bool:
        """Whether the call ends after what is still being said."""
        return self.ending or self._leaving

    def is_idle(self) -> bool:
        """Whether only the caller could say something now, and does not."""
        said = self._history.open or self._instructions or self._held or self._tools.running
        return not (said or self._caller_speaks or self._released or self.is_leaving())

    def say(self, words: str) -> None:
        """Say words as they are, after what is being said, unless the call ends anyway."""
        if not self.is_leaving():
            self._instruct(self._request(say=words))

    def is_quiet(self) -> bool:
        """Whether nobody says anything or is about to."""
        open_answers = [answer for answer in self._history.open if answer is not self._held]
        return not (open_answers or self._caller_speaks or self._released)

    def go_on(self) -> None:
        """Begin what comes next, unless an answer is still being made or heard."""
        if self._tools.running is not None:
            if self.is_quiet():
                self._tools.quiet()
            return
        if self._held is not None:
            if self.is_quiet():
                held, self._held = self._held, None
                self._begin(held, self._request())
            return
        if self._history.open or self._released:
            return
        result = self._tools.result
        if result is not None and (result.answer or self._caller_speaks):
            # While the caller speaks, it waits for what the caller has to say.
            if not self._caller_speaks:
                self._begin(self._history.begin(), self._request(result=result.text))
        elif self._instructions:
            self._early.take_back()
            self._begin(self._history.begin(), self._instructions.popleft())
            self._changed.set()

    def say_aside(self, text: str) -> None:
        """Say something that the history does not keep."""
        # Early, so that it can be taken back.
        self._begin(self._history.begin(aside=True), replace(self._request(say=text), early=True))

    # --- interruptions and the end

    async def hold(self) -> bool:
        """Fall silent, because the caller may be interrupting.

        Returns:
            Whether there is anything to be silent about. Then what the caller says belongs to no
            turn, unless an interruption follows.
        """
        heard = [answer for answer in self._history.open if answer.audio_seconds and not answer.cut]
        if all(one.complete and one.unheard_seconds < _LAST_WORDS_SECS for one in heard):
            return False
        self._doubted = []
        await self.push_frame(HoldSpeechFrame())
        return True

    async def resume(self, spoken: float, paused: float) -> None:
        """Go on: it was no interruption.

        Args:
            spoken: Seconds that the caller spoke.
            paused: Seconds since :meth:`hold`.
        """
        if self._doubted is None:
            return  # something else has interrupted the agent meanwhile
        self._doubted = None
        self._audio.end_turn()
        self._caller_speaks = False
        self._observer.event("false_interruption", spoken=spoken, paused=paused)
        await self.push_frame(ResumeSpeechFrame())
        self.go_on()

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        self._instructions.clear()
        self._held = None
        self._changed.set()
        if await self._cut(frame, direction):
            self._barged_in = True
        doubted, self._doubted = self._doubted, None
        self._push_audio(doubted or [])

    async def _release(self) -> None:
        if self._released:
            return
        self._released = True
        self._instructions.clear()
        self._tools.end()
        self._changed.set()
        await self._close()
