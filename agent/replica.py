"""One Triton server that serves triton_models/: its models as calls, its failures as one error."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Tensors = Mapping[str, npt.NDArray[Any]]

ENSEMBLE = "glm_voice"
TOKENIZER = "speech_tokenizer"
LANGUAGE_MODEL = "voice_lm"
DECODER = "speech_decoder"
NO_AUDIO = np.zeros(0, dtype=np.float32)
NO_TOKENS = np.zeros(0, dtype=np.int32)

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is to be noticed soon; gRPC's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class EngineUnavailable(RuntimeError):
    """A server or a model of it did not answer; the message names both and says why."""


class Replica:
    """A Triton server.

    Must be made and used in one event loop.

    Args:
        url: ``host:port`` of its gRPC endpoint.

    Attributes:
        heard: When each model last answered anything, in monotonic seconds; of the ensemble's
            streams, the models behind its tokenizer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: dict[str, float] = {}
        self._client = grpcclient.InferenceServerClient(url, channel_args=_CHANNEL_OPTIONS)

    async def infer(
        self, model: str, inputs: Tensors, seconds: float, request_id: str = ""
    ) -> Tensors:
        """One response of a model that is not decoupled.

        Raises:
            EngineUnavailable: No answer within ``seconds``, or an error.
        """
        try:
            result = await self._client.infer(
                model,
                _inputs(inputs),
                request_id=request_id,
                client_timeout=seconds,
            )
        except InferenceServerException as error:
            raise self._unavailable(model, _reason(error)) from error
        self.hear(model)
        return _outputs(result)

    async def infer_decoupled(
        self, model: str, inputs: Tensors, seconds: float, request_id: str = ""
    ) -> Tensors:
        """The first response of a decoupled model.

        Raises:
            EngineUnavailable: No answer within ``seconds``, or an error.
        """
        stream = self.stream(model, inputs, request_id)
        try:
            async with asyncio.timeout(seconds):
                async for outputs in stream:
                    return outputs
        except TimeoutError as error:
            raise self._unavailable(model, f"no response within {seconds:g} s") from error
        finally:
            stream.cancel()
        raise self._unavailable(model, "the stream ended without a response")

    def stream(self, model: str, inputs: Tensors, request_id: str = "") -> ResponseStream:
        """All responses of a decoupled model, as they come."""
        return ResponseStream(self, self._client, model, inputs, request_id)

    async def require_model(self, model: str, seconds: float) -> None:
        """Check that a model is loaded.

        Raises:
            EngineUnavailable: It is not, or the server does not say so within ``seconds``.
        """
        try:
            ready = await self._client.is_model_ready(model, client_timeout=seconds)
        except InferenceServerException as error:
            raise self._unavailable(model, _reason(error)) from error
        if not ready:
            raise self._unavailable(model, "not loaded")

    def hear(self, model: str) -> None:
        """Note that a model has answered."""
        models = (ENSEMBLE, LANGUAGE_MODEL, DECODER) if model == ENSEMBLE else (model,)
        self.heard.update(dict.fromkeys(models, time.monotonic()))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _unavailable(self, model: str, reason: str) -> EngineUnavailable:
        return EngineUnavailable(f"{self.url}: model {model}: {reason}")


class ResponseStream:
    """The responses to one request; ends after the last one, or when it is cancelled."""

    def __init__(
        self,
        replica: Replica,
        client: grpcclient.InferenceServerClient,
        model: str,
        inputs: Tensors,
        request_id: str,
    ) -> None:
        self._replica = replica
        self._model = model
        self._cancelled = False
        # Half-closing after the one request makes the server end the call after its final
        # response, whether the final flag comes with data or alone.
        self._call = client.stream_infer(_one_request(model, inputs, request_id))

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> Tensors:
        """The next response.

        Raises:
            EngineUnavailable: The model or the connection failed.
        """
        try:
            result, error = await anext(self._call)
        except grpc.RpcError as failure:
            raise self._failed(f"{failure.details()} ({failure.code().name})") from failure
        except asyncio.CancelledError:
            # gRPC reports our own cancel() the way asyncio reports a task's.
            task = asyncio.current_task()
            if self._cancelled and not (task and task.cancelling()):
                raise StopAsyncIteration from None
            raise
        if error is not None:
            raise self._failed(_reason(error)) from error
        self._replica.hear(self._model)
        return _outputs(result)

    def cancel(self) -> None:
        """Give up the rest; whoever waits for a response sees the end. May be called again."""
        self._cancelled = True
        with contextlib.suppress(asyncio.InvalidStateError):
            self._call.cancel()

    def _failed(self, reason: str) -> EngineUnavailable:
        return self._replica._unavailable(self._model, reason)


def stop_inputs(model: str, session: str, request: str) -> Tensors:
    """What stops an answer: of the language model, or of the decoder what it has queued."""
    inputs: dict[str, npt.NDArray[Any]] = {"SESSION": string(session), "STOP": flag(True)}
    if model == DECODER:
        nothing = {"SPEECH_TOKENS": NO_TOKENS, "TEXT": string(""), "LAST": flag(True)}
        return {**inputs, **nothing, "SEQUENCE": np.zeros(1, dtype=np.int32)}
    return {**inputs, "TOKENS": NO_TOKENS, "REQUEST": string(request)}


def string(value: str) -> npt.NDArray[np.object_]:
    """A string as a tensor [1]."""
    return np.array([value.encode("utf-8")], dtype=np.object_)


def flag(value: bool) -> npt.NDArray[np.bool_]:
    """A boolean as a tensor [1]."""
    return np.array([value], dtype=np.bool_)


async def _one_request(
    model: str, inputs: Tensors, request_id: str
) -> AsyncIterator[dict[str, Any]]:
    yield {"model_name": model, "inputs": _inputs(inputs), "request_id": request_id}


def _inputs(tensors: Tensors) -> list[grpcclient.InferInput]:
    inputs = []
    for name, value in tensors.items():
        tensor = grpcclient.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    return inputs


def _outputs(result: grpcclient.InferResult) -> Tensors:
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def _reason(error: InferenceServerException) -> str:
    status = f" ({error.status()})" if error.status() else ""
    return f"{error.message()}{status}"
