"""Triton model speech_tokenizer: TokenizingSessions as tensors."""

import json
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from agent.serving import tensors
from agent.serving.parameters import ModelParameters
from agent.serving.tokenizing import TokenizingSessions
from agent.speech import SpeechTokenizer
from agent.speech.request import TurnRequest


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = ModelParameters.read(json.loads(args["model_config"]))
        parameters.require_torch()
        torch.set_num_threads(parameters.threads)
        tokenizer = SpeechTokenizer.from_pretrained(parameters.checkpoint / "speech_tokenizer")
        self._sessions = TokenizingSessions(tokenizer, parameters.ttl_seconds)
        self._gauge = tensors.SessionGauge(args["model_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = [self._respond(request) for request in requests]
        self._gauge.set(len(self._sessions))
        return responses

    def _respond(self, request: Any) -> Any:
        try:
            session = tensors.session(request)
            tokens, turn_request = self._sessions.push(
                session,
                np.array(tensors.array(request, "AUDIO")),
                tensors.flag(request, "END_OF_TURN"),
                TurnRequest.from_json(tensors.text(request, "REQUEST", default="")),
            )
        except ValueError as error:
            return tensors.error(f"speech_tokenizer: {error}")
        return pb_utils.InferenceResponse(
            [
                tensors.tensor("SESSION", session),
                tensors.tensor("TOKENS", tokens, np.int32),
                tensors.tensor("REQUEST", turn_request.to_json()),
            ]
        )
