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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMServiceMetadataFrame,
    TranscriptionFrame,
    TTSSpeakFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import LLMSettings
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601

from agent.answer_output import AnswerOutput
from agent.conversation import CALLER_RATE, SpeechSession
from agent.early_answer import EarlyAnswer, EarlyAnswers
from agent.events import JSON, CallObserver
from agent.frames import AudioHeardFrame
from agent.history import Answer, AnswerHistory
from agent.settings import AgentSettings
from agent.speech.request import TurnRequest
from agent.tool_service import ToolService
from agent.tools.call import Phone
from agent.tools.tool import Tool
from agent.turn_audio import TurnAudio

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk


class GLMVoiceService(ToolService):
    """Speech in, speech out, one instance a call.

    Takes ``InputAudioRawFrame`` (16 kHz mono), the VAD's and the turn strategy's frames,
    ``InterruptionFrame``, ``AudioHeardFrame``, ``LLMContextFrame`` (a typed message that ends the
    context is an instruction to answer) and ``TTSSpeakFrame`` (words to say as they are).

    Pushes ``LLMFullResponseStartFrame``, ``TTSStartedFrame``, ``LLMTextFrame`` and
    ``TTSTextFrame``, ``TTSAudioRawFrame`` (22.05 kHz mono), ``TTSStoppedFrame``,
    ``LLMFullResponseEndFrame``, ``TranscriptionFrame`` where the checkpoint can tell the caller's
    words, and Pipecat's function call frames. None of the text is for the aggregators: the service
    itself keeps the context's messages at what was said and heard.
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
        clock: Callable[[], float] = time.monotonic,
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
            clock: Monotonic seconds.
            **kwargs: Passed to :class:`LLMService`.
        """
        super().__init__(
            context=context,
            tools=tools,
            phone=phone,
            observer=observer,
            speaks_first=settings.greeting is not None or settings.greeting_text is not None,
            settings=LLMSettings(
                model="glm-4-voice",
                system_instruction=settings.instructions,
                temperature=settings.sampling.temperature,
                max_tokens=settings.sampling.max_new_tokens,
                top_p=settings.sampling.top_p,
                top_k=None,
                frequency_penalty=None,
                presence_penalty=None,
                seed=settings.sampling.seed,
                filter_incomplete_user_turns=False,
                user_turn_completion_config=None,
            ),
            **kwargs,
        )
        self._session = session
        self._observer = observer
        self._history = AnswerHistory(context)
        vad, turn = settings.vad, settings.turn
        # Speech is noticed start_secs after it began, so that much precedes the pre-roll's end.
        pre_roll = round((vad.start_secs + turn.pre_roll_secs) * CALLER_RATE)
        self._audio = TurnAudio(pre_roll, patience=2 * CALLER_RATE)
        # What the VAD adds at the end of speech (stop_secs of silence, to be sure) and leaves out
        # at its beginning, in samples of the time it reports as speech.
        self._vad_surplus = (vad.stop_secs - vad.start_secs) * CALLER_RATE
        self._min_speech = turn.min_speech_secs * CALLER_RATE
        self._answers_early = turn.early_secs is not None
        self._transcribes = settings.transcribe
        self._guards = settings.sampling.repetition_guard
        self._clock = clock
        self._barged_in = False
        self._caller_speaks = False
        # A turn that is answered when a tool has given its result.
        self._held: Answer | None = None
        self._answering: asyncio.Task[None] | None = None
        self._early = EarlyAnswers(session, observer, self.run_beside, clock)
        # What runs beside the answer: stops, early answers, transcripts.
        self._beside: set[asyncio.Task[None]] = set()
        self._instructions: deque[TurnRequest] = deque()
        self._last_instruction: object = None
        self._output = AnswerOutput(self.push_frame, observer, self._sounds)
        self._released = False

    def can_generate_metrics(self) -> bool:
        """Time to first byte and processing time are measured."""
        return True

    def service_metadata_frame(self) -> LLMServiceMetadataFrame:
        """A realtime service whose turns are decided by local strategies."""
        return LLMServiceMetadataFrame(service_name=self.name, is_realtime_service=True)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Handle one frame; all but instructions and heard reports travel on."""
        await super().process_frame(frame, direction)
        match frame:
            case InputAudioRawFrame():
                self._take_audio(frame)
            case VADUserStartedSpeakingFrame():
                self._early.take_back()
                self._caller_speaks = True
                self._push_audio(self._audio.speech_started(frame.timestamp))
                self._observer.event("caller_speech_started")
            case VADUserStoppedSpeakingFrame():
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

    # --- the caller's turn

    def _take_audio(self, frame: InputAudioRawFrame) -> None:
        if frame.sample_rate != CALLER_RATE or frame.num_channels != 1:
            raise ValueError(
                f"caller audio has {frame.sample_rate} Hz and {frame.num_channels} channel(s), "
                f"expected {CALLER_RATE} Hz mono"
            )
        samples = np.frombuffer(frame.audio, dtype="<i2").astype(np.float32) / 32768.0
        self._push_audio(self._audio.take(samples, time.time()))

    def _push_audio(self, pieces: list[NDArray[np.float32]]) -> None:
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
        is_turn = self._is_turn()
        self._audio.end_turn()
        self._caller_speaks = False
        if not is_turn:
            self._early.take_back()
            self._session.discard()
            await self.cancel_ttfb_metrics()  # type: ignore[no-untyped-call]
            self.go_on()
            return
        self._barged_in = False
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

    def say_aside(self, text: str) -> None:
        """Say something that the history does not keep."""
        # Early, so that it can be taken back.
        self._begin(self._history.begin(aside=True), replace(self._request(say=text), early=True))

    # --- the answer

    def _request(
        self,
        instruction: str | None = None,
        say: str | None = None,
        result: str | None = None,
        result_before: str | None = None,
        heard_seconds: float | None = None,
    ) -> TurnRequest:
        settings: Any = self._settings
        return TurnRequest(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_tokens,
            repetition_guard=self._guards,
            seed=settings.seed,
            system=self.system_instruction(),
            instruction=instruction,
            say=say,
            result=result,
            result_before=result_before,
            heard_seconds=heard_seconds,
        )

    def _spoken_request(self) -> TurnRequest:
        """What the turn that is being spoken will be answered with, as far as it is known."""
        return self._request(
            heard_seconds=self._history.edit(), result_before=self._tools.result_text
        )

    def _begin(
        self, answer: Answer, request: TurnRequest, early: EarlyAnswer | None = None
    ) -> None:
        self._answering = self.create_task(
            self._answer(answer, request, early, self._answering), f"{self}::{answer.id}"
        )

    async def _answer(
        self,
        answer: Answer,
        request: TurnRequest,
        early: EarlyAnswer | None,
        previous: asyncio.Task[None] | None,
    ) -> None:
        if previous is not None:
            # A stopped answer ends within one step; two at once the session cannot give.
            await asyncio.wait({previous})
        if answer.cut:
            # The caller went on speaking: the audio so far belongs to the turn that follows.
            if early is not None:
                await self._guarded(self._session.retract())
            return
        heard_seconds = self._history.start(answer)
        if not answer.aside:
            request = self._with_result(replace(request, heard_seconds=heard_seconds), answer)
        started = self._clock()
        ahead = 0.0
        if early is not None:
            ahead = started - early.began
            self._session.confirm()
        self._event("answer_started", answer, ahead=ahead)
        if request.typed:
            await self.start_ttfb_metrics()
        await self.start_processing_metrics()
        called = ""
        try:
            chunks: AsyncIterator[AnswerChunk] | EarlyAnswer = early or self._session.answer(
                request
            )
            async for chunk in chunks:
                called = chunk.tool_call
                if early is not None and early.sounded is not None:
                    answer.saved_seconds = min(early.sounded, started) - early.began
                await self._output.speak(answer, chunk)
            answer.complete = not answer.cut
        except Exception as error:
            # Whatever went wrong in the engine, the call goes on; the next turn may be answered.
            self._event("error", answer, message=str(error))
            await self.cancel_ttfb_metrics()  # type: ignore[no-untyped-call]
            await self.push_error(
                "the model's answer failed", exception=error, category=ErrorCategory.UNKNOWN
            )
        await self.stop_processing_metrics()
        await self._output.finish(answer)
        if answer.aside:
            await self._guarded(self._session.retract())
        if called and not answer.cut:
            self._tools.begin(answer, called)
        if not answer.cut and not answer.audio_seconds:
            # Nothing to hear, so the phone will not report on it.
            if answer.complete and not called:
                self._event("error", answer, message="the model's answer has no sound")
            self._settle(answer)

    def _with_result(self, request: TurnRequest, answer: Answer) -> TurnRequest:
        """A request that gives the model what a tool gave back: as its turn, or before it."""
        result = self._tools.take(answer)
        if request.result is not None:
            return replace(request, result=result)
        return replace(request, result_before=result)

    async def _sounds(self, answer: Answer) -> None:
        """The first sound of an answer is there."""
        await self.stop_ttfb_metrics()
        if answer.spoken and self._transcribes:
            # Not before: the caller waits for the sound.
            self.run_beside(self._transcribe(answer), "transcript")

    # --- what was heard

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        cut = self._history.cut()
        self._instructions.clear()
        self._held = None
        await self._output.interrupt(frame, direction)
        for answer in cut:
            self._barged_in = True
            if not answer.audio_seconds:
                self._settle_cut(answer)
        self._tools.interrupted()
        running = self._answering is not None and not self._answering.done()
        if running and any(answer.started for answer in cut):
            self.run_beside(self._session.stop(), "stop")

    async def _transcribe(self, answer: Answer) -> None:
        """Ask for the caller's words in the turn that an answer is for."""
        text = await self._session.transcribe()
        if not text:
            return
        self._history.caller_said(answer, text)
        self._event("caller_text", answer, text=text)
        await self.push_frame(TranscriptionFrame(text, "", time_now_iso8601()))

    def run_beside(self, work: Awaitable[None], name: str) -> None:
        """Run what an answer can do without; the call goes on if it fails."""
        task = self.create_task(self._guarded(work), f"{self}::{name}")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self._observer.event("error", message=str(error))
            logger.warning("something beside the model's answer failed")

    def _hear(self, frame: AudioHeardFrame) -> None:
        answer = self._history.hear(frame.answer_id, frame.seconds)
        if answer is None:
            return
        if frame.interrupted:
            answer.cut = True
            self._settle_cut(answer)
        elif frame.completed:
            # Even where the caller began to speak just then: all of it was heard.
            answer.cut = answer.cut and not answer.complete
            self._settle(answer)

    def _settle_cut(self, answer: Answer) -> None:
        self._event(
            "interrupted", answer, heard_seconds=answer.heard_seconds, heard_text=answer.heard
        )
        self._settle(answer)

    def _settle(self, answer: Answer) -> None:
        self._history.settle(answer)
        self._event("heard", answer, text=answer.heard)
        self._tools.settled(answer)
        self.go_on()

    def _event(self, name: str, answer: Answer, **fields: JSON) -> None:
        self._observer.event(name, turn=answer.turn, **fields)

    async def _release(self) -> None:
        if self._released:
            return
        self._released = True
        self._instructions.clear()
        self._tools.end()
        for task in [self._answering, *self._beside]:
            if task is not None and not task.done():
                await self.cancel_task(task)
        try:
            await self._session.close()
        except Exception as error:
            self._observer.event("error", message=str(error))
