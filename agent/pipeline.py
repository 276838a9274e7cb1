"""One call's Pipecat pipeline.

    phone in -> user aggregator (VAD, turns) -> GLMVoiceService -> phone out -> assistant aggregator

Everything at the caller's side of the service runs at 16 kHz: smart-turn misjudges audio that was
8 kHz when it got there, silently.
"""

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
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from agent.conversation import AGENT_RATE, CALLER_RATE, SpeechSession
from agent.events import CallObserver
from agent.service import GLMVoiceService
from agent.settings import AgentSettings
from agent.tools.call import Phone
from agent.tools.tool import Tool
from agent.turn_models import Pauses, SharedModels

__all__ = ["SharedModels", "run_call"]

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

    worker.add_event_handler("on_pipeline_started", greet)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    try:
        await runner.add_workers(worker)
        await runner.run()
    finally:
        # The service does this too, unless the pipeline never got as far.
        await session.close()
    logger.debug("a call's pipeline has ended")


def _greeting(settings: AgentSettings) -> Frame | None:
    if settings.greeting_text is not None:
        return TTSSpeakFrame(settings.greeting_text)
    if settings.greeting is not None:
        message: LLMContextMessage = {"role": "developer", "content": settings.greeting}
        return LLMMessagesAppendFrame(messages=[message], run_llm=True)
    return None
