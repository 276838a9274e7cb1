"""Triton model speech_decoder: a DecodingThread as tensors. Decoupled."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.serving import tensors
from agent.serving.decoding import DecodingThread
from agent.serving.parameters import ModelParameters
from agent.serving.schedule import create_schedule
from agent.speech import SpeechDecoder
from agent.speech.answer import AnswerPiece
from agent.speech.request import TurnRequest


class _PieceReply(tensors.Reply):
    def audio(self, piece: AnswerPiece, audio: npt.NDArray[np.int16]) -> None:
        self.send(
            tensors.tensor("SESSION", piece.session),
            tensors.tensor("AUDIO", audio, np.int16),
            tensors.tensor("SPEECH_TOKENS", piece.speech_tokens, np.int32),
            tensors.tensor("TEXT", piece.text),
            tensors.tensor("SEQUENCE", piece.sequence, np.int32),
            tensors.tensor("LAST", piece.last, np.bool_),
            tensors.timing(piece.timing),
            tensors.tensor("TOOL_CALL", piece.tool_call),
            last=True,
        )

    def fail(self, message: str) -> None:
        super().fail(f"speech_decoder: {message}")


class _LanguageModelLink:
    def credit(self, session: str, answer: str, decoded: int) -> None:
        tensors.tell_language_model(session, answer, TurnRequest(decoded=decoded))

    def stop(self, session: str, answer: str) -> None:
        tensors.tell_language_model(session, answer, TurnRequest(), stop=True)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = ModelParameters.read(json.loads(args["model_config"]))
        parameters.require_torch()
        decoder = SpeechDecoder.from_pretrained(parameters.checkpoint / "speech_decoder")
        self._gauge = tensors.SessionGauge(args["model_name"])
        self._decoding = DecodingThread(
            decoder,
            _LanguageModelLink(),
            create_schedule(parameters.schedule, parameters.lead_seconds, parameters.max_batch),
            parameters.ttl_seconds,
            parameters.threads,
            self._gauge.set,
        )
        self._decoding.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = _PieceReply(request)
            try:
                piece = _piece(request)
            except ValueError as error:
                reply.fail(str(error))
                continue
            if tensors.flag(request, "STOP"):
                self._decoding.stop(piece.session, request.request_id())
                reply.audio(piece, np.zeros(0, dtype=np.int16))
            else:
                self._decoding.submit(request.request_id(), piece, reply)

    def finalize(self) -> None:
        self._decoding.shutdown()


def _piece(request: Any) -> AnswerPiece:
    return AnswerPiece(
        session=tensors.session(request),
        speech_tokens=tensors.array(request, "SPEECH_TOKENS").astype(np.int64),
        text=tensors.text(request, "TEXT"),
        sequence=int(tensors.array(request, "SEQUENCE")[0]),
        last=tensors.flag(request, "LAST"),
        timing=json.loads(tensors.text(request, "TIMING", default="{}")),
        tool_call=tensors.text(request, "TOOL_CALL", default=""),
    )
