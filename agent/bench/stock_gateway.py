"""The other side of the gateway's price: Pipecat as its guides put it together for Twilio.

FastAPI's WebSocket, ``FastAPIWebsocketTransport`` with ``TwilioFrameSerializer``, Pipecat's own
Silero analyzer and a service that answers at once. Turn detection decides the same by the same
settings: one Silero model a call, and our smart-turn analyzer, which asks as often here as there.
FastAPI and uvicorn are needed for this alone.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from agent.answer_output import speech_frame, text_frames
from agent.bench.stand_in import StandInSession, answer_audio
from agent.settings import TurnSettings, VADSettings
from agent.turn_models import SharedModels
from agent.voice_activity import SAMPLE_RATE

PHONE_RATE = 8000


class AnswersAtOnce(FrameProcessor):
    """A speech-to-speech service as small as one can be."""

    def __init__(self, session: StandInSession):
        super().__init__()
        self._session = session
        self._answers = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer when the caller's turn is over."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame) and direction is FrameDirection.DOWNSTREAM:
            self._answers += 1
            answer = f"answer-{self._answers}"
            await self.push_frame(LLMFullResponseStartFrame())
            await self.push_frame(TTSStartedFrame(context_id=answer))
            async for chunk in self._session.answer():
                if chunk.text:
                    for piece in text_frames(chunk.text, answer):
                        await self.push_frame(piece)
                await self.push_frame(speech_frame(chunk.audio, answer))
            await self.push_frame(TTSStoppedFrame(context_id=answer))
            await self.push_frame(LLMFullResponseEndFrame())


def create_app(models: SharedModels) -> Any:
    """A FastAPI application that answers calls.

    Args:
        models: Of which smart-turn is used; Silero is loaded for each call, as Pipecat does.

    Raises:
        ImportError: FastAPI is not installed.
    """
    fastapi: Any = importlib.import_module("fastapi")
    responses: Any = importlib.import_module("fastapi.responses")
    audio: np.ndarray[Any, np.dtype[np.int16]] = answer_audio()
    app = fastapi.FastAPI()

    async def voice(request: Any) -> Any:
        url = f"ws://{request.headers['host']}/media"
        twiml = f'<Response><Connect><Stream url="{url}"/></Connect></Response>'
        return responses.Response(twiml, media_type="text/xml")

    async def media(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive_text()
        start = json.loads(await websocket.receive_text())["start"]
        await _run_call(websocket, start["streamSid"], models, StandInSession(audio))

    routing: Any = importlib.import_module("starlette.routing")
    # Added as they are: FastAPI would read the types of their arguments.
    app.router.routes.append(routing.Route("/voice", voice, methods=["POST"]))
    app.router.routes.append(routing.WebSocketRoute("/media", media))
    return app


async def _run_call(
    websocket: Any, stream_sid: str, models: SharedModels, session: StandInSession
) -> None:
    stock: Any = importlib.import_module("pipecat.transports.websocket.fastapi")
    serializer = TwilioFrameSerializer(
        stream_sid, params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    transport = stock.FastAPIWebsocketTransport(
        websocket,
        stock.FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            add_wav_header=False,
            serializer=serializer,
        ),
    )
    vad = VADSettings()
    analyzer = SileroVADAnalyzer(
        params=VADParams(
            confidence=vad.confidence,
            start_secs=vad.start_secs,
            stop_secs=vad.stop_secs,
            min_volume=vad.min_volume,
        )
    )
    aggregators = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=analyzer,
            user_turn_strategies=UserTurnStrategies(
                start=[VADUserTurnStartStrategy()],
                stop=[
                    TurnAnalyzerUserTurnStopStrategy(
                        turn_analyzer=models.turn_analyzer(TurnSettings(), vad),
                        wait_for_transcript=False,
                    )
                ],
            ),
        ),
        realtime_service_mode=True,
    )
    processors = [
        transport.input(),
        aggregators.user(),
        AnswersAtOnce(session),
        transport.output(),
        aggregators.assistant(),
    ]
    worker = PipelineWorker(
        Pipeline(processors),
        params=PipelineParams(
            audio_in_sample_rate=SAMPLE_RATE, audio_out_sample_rate=PHONE_RATE, enable_metrics=True
        ),
        enable_rtvi=False,
        enable_turn_tracking=False,
    )

    async def hang_up(*_: Any) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", hang_up)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    await runner.run()
