"""One call's Pipecat pipeline.

    phone in -> user aggregator (VAD, turns) -> GLMVoiceService -> phone out -> assistant aggregator

Everything at the caller's side of the service runs at 16 kHz: smart-turn misjudges audio that was
8 kHz when it got there, silently.
"""

import asyncio
from collections.abc import Sequence

from loguru import logger
from pipecat.frames.frames import EndFrame, Frame, LLMMessagesAppendFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.transports.base_transport import BaseTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from agent.conversation import AGENT_RATE, CALLER_RATE, SpeechSession
from agent.events import CallObserver
from agent.service import GLMVoiceService
from agent.settings import AgentSettings
from agent.speech.request import TurnRequest
from agent.speech.system_prompt import system_prompt
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
    tools: Sequence[Tool] = (),
    phone: Phone | None = None,
    ending: asyncio.Future[str] | None = None,
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
    """
    context = LLMContext()
    service = GLMVoiceService(
        session, context=context, settings=settings, observer=observer, tools=tools, phone=phone
    )
    early = settings.turn.early_secs
    pauses = None if early is None else Pauses(early, service.caller_pauses)
    aggregators = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            vad_analyzer=models.vad(settings.vad, pauses),
            user_turn_strategies=UserTurnStrategies(
                start=[VADUserTurnStartStrategy()],
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
        idle_timeout_secs=IDLE_SECONDS,
    )

    async def greet(worker: PipelineWorker, _: Frame) -> None:
        greeting = _greeting(settings)
        if greeting is not None:
            await worker.queue_frame(greeting)

    async def say_goodbye(ending: asyncio.Future[str]) -> None:
        words = await ending
        await service.say_last(words)
        await worker.queue_frame(EndFrame())

    worker.add_event_handler("on_pipeline_started", greet)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    goodbye = None if ending is None else asyncio.create_task(say_goodbye(ending))
    try:
        await runner.add_workers(worker)
        await runner.run()
    finally:
        if goodbye is not None:
            goodbye.cancel()
        # The service does this too, unless the pipeline never got as far.
        await session.close()
    logger.debug("a call's pipeline has ended")


def greeting_request(settings: AgentSettings, tools: Sequence[Tool] = ()) -> TurnRequest | None:
    """What the first turn of a call asks the model for; None where the caller speaks first."""
    told, described = settings.instructions, [tool.described for tool in tools]
    words, sampling = settings.greeting_text, settings.sampling
    if words is None and settings.greeting is None:
        return None
    return TurnRequest(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        repetition_guard=sampling.repetition_guard,
        seed=sampling.seed,
        system=system_prompt(False, told, described) if told or described else None,
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
