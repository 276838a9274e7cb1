"""What a Triton model is told: config.pbtxt's ``parameters``, overridden by the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT_PREFIX = "GLM_MODEL_"
ENGINES = ("torch", "tensorrt")
SCHEDULES = ("deadline", "turns")
SHIPPED_CHECKPOINT = Path(__file__).resolve().parent.parent / "nano" / "checkpoint"
# Not ours: Triton's own parameters for the Python backend, which it hands to the model as well.
_TRITON_PARAMETERS = ("EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS")


@dataclass(frozen=True)
class ModelParameters:
    """Parameters of one model of triton_models/.

    Each stands in the model's config.pbtxt under its lower-case name. A variable ``GLM_MODEL_`` and
    the upper-case name in the server's environment (``GLM_MODEL_CHECKPOINT=/models/9b``) wins over
    it, for every model that has the parameter.

    Attributes:
        checkpoint: Directory with speech_tokenizer/, language_model/ and speech_decoder/; empty
            means the one that is shipped.
        engine: What computes: ``torch`` on the CPU.
        threads: Threads to compute with, at least 1.
        ttl_seconds: A session that has not been heard of for so long is forgotten.
        lead_limit: Speech tokens that the language model may be ahead of the decoder.
        schedule: How the decoder divides its time (agent/serving/schedule.py): ``deadline``, or
            ``turns`` to compare with.
        lead_seconds: Audio that ``deadline`` lets an answer be ahead of its playback; more than the
            gateway and the phone line buffer.
        max_batch: Most pieces of different answers that are decoded together.
    """

    checkpoint: Path = SHIPPED_CHECKPOINT
    engine: str = "torch"
    threads: int = 1
    ttl_seconds: float = 600.0
    lead_limit: int = 100
    schedule: str = "deadline"
    lead_seconds: float = 3.0
    max_batch: int = 1

    @classmethod
    def read(
        cls, config: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> ModelParameters:
        """Read the parameters of a model.

        Args:
            config: The model's configuration as Triton passes it to ``initialize``, parsed.
            environment: Environment variables; the process's own when not given.

        Raises:
            ValueError: A parameter is unknown or has a wrong value; names where it stands.
        """
        environment = os.environ if environment is None else environment
        model = config.get("name", "model")
        values: dict[str, Any] = {}
        for name, value in config.get("parameters", {}).items():
            if name in _TRITON_PARAMETERS:
                continue
            if name not in _READERS:
                known = ", ".join(_READERS)
                raise ValueError(
                    f"{model}/config.pbtxt: parameter {name!r} is unknown, expected {known}"
                )
            source = f"{model}/config.pbtxt: parameter {name!r}"
            text = value["string_value"]
            variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
            if variable in environment:
                source, text = variable, environment[variable]
            try:
                values[name] = _READERS[name](text)
            except ValueError as error:
                raise ValueError(f"{source} is {text!r}, expected {error}") from None
        return cls(**values)

    def require_torch(self) -> None:
        """Refuse an engine that does not exist yet.

        Raises:
            NotImplementedError: The engine is TensorRT, for which this version builds nothing.
        """
        if self.engine != "torch":
            raise NotImplementedError(
                f"engine {self.engine!r}: not built. No TensorRT engines exist for this checkpoint "
                "and this version cannot build them; set the parameter 'engine' to 'torch'"
            )


def _checkpoint(text: str) -> Path:
    return Path(text) if text else SHIPPED_CHECKPOINT


def _engine(text: str) -> str:
    if text not in ENGINES:
        raise ValueError(" or ".join(ENGINES))
    return text


def _schedule(text: str) -> str:
    if text not in SCHEDULES:
        raise ValueError(" or ".join(SCHEDULES))
    return text


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ValueError("a number of seconds above 0")
    return value


_READERS = {
    "checkpoint": _checkpoint,
    "engine": _engine,
    "threads": _whole,
    "ttl_seconds": _seconds,
    "lead_limit": _whole,
    "schedule": _schedule,
    "lead_seconds": _seconds,
    "max_batch": _whole,
}
