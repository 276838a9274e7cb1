"""Triton model voice_lm: an AnsweringThread as tensors. Decoupled."""

import json
from typing import Any

import numpy as np

from agent.serving import tensors
from agent.serving.answering import AnsweringThread
from agent.serving.parameters import ModelParameters
from agent.speech import LanguageModel
from agent.speech.answer import AnswerPiece
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest


class _AnswerReply:
    def __init__(self, reply: tensors.Reply) -> None:
        self._reply = reply

    def piece(self, piece: AnswerPiece) -> None:
        self._reply.send(*_outputs(piece), last=piece.last)

    def fail(self, message: str) -> None:
        self._reply.fail(f"voice_lm: {message}")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = ModelParameters.read(json.loads(args["model_config"]))
        parameters.require_torch()
        model = LanguageModel.from_pretrained(parameters.checkpoint / "language_model")
        engine = GenerationEngine(
            model, lead_limit=parameters.lead_limit, time_to_live=parameters.ttl_seconds
        )
        self._gauge = tensors.SessionGauge(args["model_name"])
        self._answering = AnsweringThread(engine, parameters.threads, self._gauge.set)
        self._answering.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = tensors.Reply(request)
            try:
                self._accept(request, reply)
            except ValueError as error:
                reply.fail(f"voice_lm: {error}")

    def finalize(self) -> None:
        self._answering.shutdown()

    def _accept(self, request: Any, reply: tensors.Reply) -> None:
        session = tensors.session(request)
        answer = request.request_id()
        turn_request = TurnRequest.from_json(tensors.text(request, "REQUEST", default=""))
        tokens = tensors.array(request, "TOKENS").astype(np.int64)
        done = _outputs(AnswerPiece(session, np.zeros(0, dtype=np.int64), "", 0, last=True))
        if tensors.flag(request, "STOP"):
            self._answering.stop(
                session, answer, turn_request, lambda: reply.send(*done, last=True)
            )
        elif turn_request.decoded is not None:
            if turn_request.goes_on and not self._answering.holds(session):
                raise ValueError(f"session {session!r} is not held here (any more)")
            self._answering.credit(session, answer, turn_request.decoded)
            reply.send(*done, last=True)
        elif turn_request.listen:
            self._answering.listen(session, tokens, turn_request)
            reply.send(*done, last=True)
        elif turn_request.answered is not None:
            self._answering.recall(session, answer, tokens, turn_request, _AnswerReply(reply))
        elif turn_request.transcribe:
            self._answering.transcribe(session, answer, _AnswerReply(reply))
        else:
            self._answering.submit(session, answer, tokens, turn_request, _AnswerReply(reply))


def _outputs(piece: AnswerPiece) -> list[Any]:
    return [
        tensors.tensor("SESSION", piece.session),
        tensors.tensor("SPEECH_TOKENS", piece.speech_tokens, np.int32),
        tensors.tensor("TEXT", piece.text),
        tensors.tensor("SEQUENCE", piece.sequence, np.int32),
        tensors.tensor("LAST", piece.last, np.bool_),
        tensors.timing(piece.timing),
        tensors.tensor("TOOL_CALL", piece.tool_call),
    ]
