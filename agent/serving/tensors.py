"""Triton's Python backend tensors and responses, for the model.py files; imports only there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from loguru import logger

from agent.speech.request import TurnRequest

_LANGUAGE_MODEL = "voice_lm"


def array(request: Any, name: str) -> npt.NDArray[Any]:
    """A required input.

    Raises:
        ValueError: if the request lacks it.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise ValueError(f"input {name} is missing")
    value: npt.NDArray[Any] = tensor.as_numpy()
    return value


def text(request: Any, name: str, default: str | None = None) -> str:
    """A string input [1]; required unless there is a default.

    Raises:
        ValueError: if it is missing, not one string, or not UTF-8.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None and default is not None:
        return default
    values = array(request, name).reshape(-1)
    if len(values) != 1:
        raise ValueError(f"input {name} holds {len(values)} strings, expected 1")
    try:
        return bytes(values[0]).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"input {name} is not UTF-8") from None


def session(request: Any) -> str:
    """The SESSION of a request.

    Raises:
        ValueError: if it is missing or empty.
    """
    value = text(request, "SESSION")
    if not value:
        raise ValueError("input SESSION is empty, expected the call's session")
    return value


def flag(request: Any, name: str) -> bool:
    """A boolean input [1]; false when it is not given."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return tensor is not None and bool(np.any(tensor.as_numpy()))


def tensor(name: str, value: Any, dtype: Any = None) -> Any:
    """An output tensor; a string or a number becomes an array [1]."""
    if isinstance(value, str):
        return pb_utils.Tensor(name, np.array([value.encode("utf-8")], dtype=np.object_))
    return pb_utils.Tensor(name, np.atleast_1d(np.asarray(value, dtype=dtype)))


def error(message: str) -> Any:
    """A response that says what went wrong."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))


def timing(value: dict[str, float]) -> Any:
    """The TIMING output: seconds by name, as JSON."""
    return tensor("TIMING", json.dumps({name: round(value[name], 6) for name in value}))


def tell_language_model(
    session: str,
    answer: str,
    request: TurnRequest,
    tokens: npt.ArrayLike = (),
    stop: bool = False,
) -> None:
    """Send voice_lm a message of which only the error, if any, is of interest; waits for it."""
    message = pb_utils.InferenceRequest(
        model_name=_LANGUAGE_MODEL,
        request_id=answer,
        requested_output_names=["LAST"],
        inputs=[
            tensor("SESSION", session),
            tensor("TOKENS", tokens, np.int32),
            tensor("REQUEST", request.to_json()),
            tensor("STOP", stop, np.bool_),
        ],
    )
    for response in message.exec(decoupled=True):
        if response.has_error():
            # It will hear of the next one, or its time to live ends the answer.
            reason = response.error().message()
            logger.bind(error=reason).warning("voice_lm did not take a message")


class Reply:
    """Where a decoupled model's responses to one request go; used from any thread.

    The final flag is always sent, exactly once: without it Triton keeps the request for ever.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._open = True

    def cancelled(self) -> bool:
        """Whether the client no longer wants the answer."""
        return bool(self._sender.is_cancelled())

    def send(self, *outputs: Any, last: bool = False) -> None:
        """Send one response; ``last`` ends the request with it."""
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._open = not last
        self._sender.send(pb_utils.InferenceResponse(outputs), flags=flags)

    def fail(self, message: str) -> None:
        """End the request with an error."""
        if self._open:
            self._open = False
            self._sender.send(error(message), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finish(self) -> None:
        """End the request without another response."""
        if self._open:
            self._open = False
            self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class SessionGauge:
    """One model's Prometheus gauge ``glm_voice_sessions``: Triton counts requests, not calls."""

    def __init__(self, model: str) -> None:
        # The family must live as long as the metric.
        self._family = pb_utils.MetricFamily(
            name="glm_voice_sessions",
            description="Sessions whose state a model holds",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._metric = self._family.Metric(labels={"model": model})

    def set(self, count: int) -> None:
        """Report the number of sessions."""
        self._metric.set(count)
