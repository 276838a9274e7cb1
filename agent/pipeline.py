"""One call's Pipecat pipeline.

    phone in -> user aggregator (VAD, turns) -> GLMVoiceService -> phone out -> assistant aggregator

Everything at the caller's side of the service runs at 16 kHz: smart-turn misjudges audio that was
8 kHz when it got there, silently.
"""

import asyncio
import time
from collections.abc import Sequence

from loguru import logger
from pipecat.frames.frames import Frame, LLMMessagesAppendFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.transports.base_transport import BaseTransport
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from agent.conversation import AGENT_RATE, CALLER_RATE, SpeechSession
from agent.events import CallObserver
from agent.frames import SPEAKING_SECONDS
from agent.interruption import InterruptionStrategy
from agent.service import GLMVoiceService
from agent.settings import AgentSettings
from agent.silence import Silence
from agent.speech.request import TurnRequest
from agent.speech.system_prompt import requested_system
from agent.tools.call import Phone
from agent.tools.tool import Tool
from agent.turn_models import Pauses, SharedModels

__all__ = ["SharedModels", "greeting_request", "run_call"]

# A line on which neither side has said anything for so long is dead.
IDLE_SECONDS = 300.0


async def run_call(
    transport: BaseTransport,
    session: SpeechSession,
    models: SharedModels,
    settings: AgentSettings,
    observer: CallObserver,
    *,
    tools: Sequence[Tool] = (),
    phone: Phone | None = None,
    ending: asyncio.Future[str] | None = None,
    notices: asyncio.Queue[str] | None = None,
    silence: Silence | None = None,
) -> None:
    """Answer one call until it ends.

    Args:
        transport: The phone; its input pushes 16 kHz mono audio and ends the pipeline (with a
            ``CancelWorkerFrame`` or ``EndWorkerFrame``) when the caller hangs up.
        session: The call's conversation with the model; closed before this returns.
        models: The process's turn detection models.
        settings: How the agent greets, samples and takes turns.
        observer: Told what happens, as it happens.
        tools: What the agent may do (``settings.tools``, built).
        phone: The telephone, for tools that need it.
        ending: Gets the words to say before the call is ended from outside.
        notices: Gets words to say in the next gap.
        silence: What is done about a caller who says nothing; None: nothing.
    """
    context = LLMContext()
    service = GLMVoiceService(
        session,
        context=context,
        settings=settings,
        observer=observer,
        tools=tools,
        phone=phone,
        silence=silence,
        passes_audio=False,
    )
    early = settings.turn.early_secs
    pauses = None if early is None else Pauses(early, service.caller_pauses)
    vad = models.vad(settings.vad, pauses)
    aggregators = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            vad_analyzer=vad,
            user_turn_strategies=UserTurnStrategies(
                start=[
                    InterruptionStrategy(
                        settings.turn_taking, vad, settings.vad.start_secs, service
                    )
                ],
                stop=[
                    TurnAnalyzerUserTurnStopStrategy(
                        turn_analyzer=models.turn_analyzer(settings.turn, settings.vad),
                        wait_for_transcript=False,
                    )
                ],
            ),
        ),
        realtime_service_mode=True,
    )
    detection = aggregators.user()._vad_controller
    assert detection is not None, "there is an analyzer"
    detection._speech_activity_period = SPEAKING_SECONDS
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                aggregators.user(),
                service,
                transport.output(),
                aggregators.assistant(),
            ]
        ),
        params=PipelineParams(
            audio_in_sample_rate=CALLER_RATE,
            audio_out_sample_rate=AGENT_RATE,
            enable_metrics=True,
        ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        # Pipecat's own watch queues every frame of every processor for an observer: a fifth of what
        # a call costs. The service knows when something was said.
        idle_timeout_secs=None,
    )

    async def greet(worker: PipelineWorker, _: Frame) -> None:
        greeting = _greeting(settings)
        if greeting is not None:
            await worker.queue_frame(greeting)

    async def say_goodbye(ending: asyncio.Future[str]) -> None:
        await service.end_with(await ending)

    async def pass_on(notices: asyncio.Queue[str]) -> None:
        while True:
            service.quiet.announce(await notices.get())

    worker.add_event_handler("on_pipeline_started", greet)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    beside = [asyncio.create_task(_cancel_when_idle(worker, service))]
    if ending is not None:
        beside.append(asyncio.create_task(say_goodbye(ending)))
    if notices is not None:
        beside.append(asyncio.create_task(pass_on(notices)))
    try:
        await runner.add_workers(worker)
        await runner.run()
    finally:
        for task in beside:
            task.cancel()
        # The service does this too, unless the pipeline never got as far.
        await session.close()
    logger.debug("a call's pipeline has ended")


async def _cancel_when_idle(worker: PipelineWorker, service: GLMVoiceService) -> None:
    while True:
        left = service.last_sound + IDLE_SECONDS - time.monotonic()
        if left <= 0:
            break
        await asyncio.sleep(left)
    logger.warning("Neither side has said anything for long: the call is ended")
    await worker.cancel(reason="idle")


def greeting_request(settings: AgentSettings, tools: Sequence[Tool] = ()) -> TurnRequest | None:
    """What the first turn of a call asks the model for; None where the caller speaks first.

    Args:
        settings: As of :func:`run_call`.
        tools: As of :func:`run_call`.
    """
    words, sampling = settings.greeting_text, settings.sampling
    if words is None and settings.greeting is None:
        return None
    return TurnRequest(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        repetition_guard=sampling.repetition_guard,
        seed=sampling.seed,
        system=requested_system(False, settings.instructions, [one.described for one in tools]),
        instruction=settings.greeting if words is None else None,
        say=words,
    )


def _greeting(settings: AgentSettings) -> Frame | None:
    if settings.greeting_text is not None:
        return TTSSpeakFrame(settings.greeting_text)
    if settings.greeting is not None:
        message: LLMContextMessage = {"role": "developer", "content": settings.greeting}
        return LLMMessagesAppendFrame(messages=[message], run_llm=True)
    return None
