"""The part of the Pipecat service that makes answers, and follows what is heard of them.

When there is something to answer, and what comes next, is up to the class that extends it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loguru import logger
from pipecat.frames.frames import InterruptionFrame, TranscriptionFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import LLMSettings
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601

from agent.answer_output import AnswerOutput
from agent.conversation import SpeechSession
from agent.early_answer import EarlyAnswer
from agent.events import JSON, CallObserver
from agent.failure import EngineLost
from agent.frames import AudioHeardFrame
from agent.history import Answer, AnswerHistory
from agent.settings import AgentSettings
from agent.speech.request import TurnRequest
from agent.tool_service import ToolService
from agent.tools.call import Phone
from agent.tools.tool import Tool

if TYPE_CHECKING:
    from agent.voice_session import AnswerChunk


class AnswerService(ToolService):
    """A service that asks a session for answers, one at a time."""

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
        """Prepare to answer.

        Args:
            session: The call's conversation with the model.
            context: Pipecat's context of the call, shared with the context aggregators.
            settings: Sampling and system prompt.
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
        self._transcribes = settings.transcribe
        self._guards = settings.sampling.repetition_guard
        self._clock = clock
        self._spoken: tuple[tuple[object, ...], TurnRequest] | None = None
        self._answering: asyncio.Task[None] | None = None
        # What runs beside the answer: stops, early answers, transcripts.
        self._beside: set[asyncio.Task[None]] = set()
        self._output = AnswerOutput(self.push_frame, observer, self._sounds)

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
        settings: Any = self._settings
        heard, result = self._history.edit(), self._tools.result_text
        known = (
            settings.temperature,
            settings.top_p,
            settings.max_tokens,
            settings.seed,
            self.system_instruction(),
            heard,
            result,
        )
        # Asked with every piece of the caller's audio, and nearly always the same.
        if self._spoken is None or self._spoken[0] != known:
            request = self._request(heard_seconds=heard, result_before=result)
            self._spoken = (known, request)
        return self._spoken[1]

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
        called, lost = "", False
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
            lost = isinstance(error, EngineLost)
            # Its last words are all there.
            answer.complete = lost and not answer.cut
            self._event("error", answer, message=str(error))
            await self.cancel_ttfb_metrics()  # type: ignore[no-untyped-call]
            await self.push_error(
                "the model's answer failed", exception=error, category=ErrorCategory.UNKNOWN
            )
        await self.stop_processing_metrics()
        await self._output.finish(answer)
        if lost:
            await self.end_call()
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

    async def _cut(self, frame: InterruptionFrame, direction: FrameDirection) -> bool:
        """The caller barges in: no answer goes on.

        Returns:
            Whether this cut one off.
        """
        cut = self._history.cut()
        await self._output.interrupt(frame, direction)
        for answer in cut:
            if not answer.audio_seconds:
                self._settle_cut(answer)
        self._tools.interrupted()
        running = self._answering is not None and not self._answering.done()
        if running and any(answer.started for answer in cut):
            self.run_beside(self._session.stop(), "stop")
        return bool(cut)

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

    async def _close(self) -> None:
        """End what runs, and the model's session."""
        for task in [self._answering, *self._beside]:
            if task is not None and not task.done():
                await self.cancel_task(task)
        try:
            await self._session.close()
        except Exception as error:
            self._observer.event("error", message=str(error))
