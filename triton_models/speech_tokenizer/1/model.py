"""Triton model speech_tokenizer: TokenizingSessions as tensors."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton_python_backend_utils as pb_utils

from agent.serving import tensors
from agent.serving.parameters import ModelParameters
from agent.serving.tokenizing import TokenizingSessions
from agent.speech import SpeechTokenizer
from agent.speech.request import TurnRequest


class _LanguageModelLink:
    """Tells voice_lm what is being said, in a thread: tokenising does not wait for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="listening")

    def listen(self, session: str, tokens: npt.NDArray[np.int64], request: TurnRequest) -> None:
        self._thread.submit(tensors.tell_language_model, session, "", request, tokens=tokens)

    def shutdown(self) -> None:
        self._thread.shutdown(cancel_futures=True)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = ModelParameters.read(json.loads(args["model_config"]))
        parameters.require_torch()
        torch.set_num_threads(parameters.threads)
        tokenizer = SpeechTokenizer.from_pretrained(parameters.checkpoint / "speech_tokenizer")
        self._link = _LanguageModelLink()
        self._sessions = TokenizingSessions(tokenizer, self._link, parameters.ttl_seconds)
        self._gauge = tensors.SessionGauge(args["model_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = [self._respond(request) for request in requests]
        self._gauge.set(len(self._sessions))
        return responses

    def finalize(self) -> None:
        self._link.shutdown()

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
