"""Typed settings from one YAML file and the environment.

Every field has a default that serves a CPU-only machine. An environment variable overrides the
file: ``GLM_VOICE_`` and the field's path, joined by double underscores, as in
``GLM_VOICE_GATEWAY__PORT=9000``; values are read as YAML. Twilio's auth token is a secret and is
never in the YAML file: it comes from ``TWILIO_AUTH_TOKEN`` or from ``gateway.auth_token_file``.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, model_validator

from agent.record_settings import RecordSettings
from agent.section import Section
from agent.tools.settings import ToolSettings

ENVIRONMENT_PREFIX = "GLM_VOICE_"
AUTH_TOKEN_VARIABLE = "TWILIO_AUTH_TOKEN"
SHIPPED_CHECKPOINT = Path(__file__).parent / "nano" / "checkpoint"


class TritonSettings(Section):
    """Where the model runs.

    Attributes:
        urls: gRPC addresses, ``host:port``, of servers that serve triton_models/. More than one are
            replicas.
        embedded: Start the server inside the nvidia-pytriton wheel instead of using ``urls``.
        checkpoint: Directory with speech_tokenizer/, language_model/ and speech_decoder/, for the
            embedded server.
        chunk_timeout: Seconds to wait for the next piece of an answer before it has failed.
    """

    urls: tuple[str, ...] = ()
    embedded: bool = True
    checkpoint: Path = SHIPPED_CHECKPOINT
    chunk_timeout: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> "TritonSettings":
        if not self.embedded and not self.urls:
            raise ValueError("urls must name at least one host:port when embedded is false")
        return self


class GatewaySettings(Section):
    """The side that faces Twilio.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_base_url: Scheme and host as Twilio sees them, without a trailing slash; signatures
            are checked against it. None while the address is not known before listening (loopback).
        auth_token_file: File that holds Twilio's auth token and nothing else.
        auth_token: The token itself, from the environment.
        max_calls: Calls answered at once; further ones are told the line is busy.
        transfer: How a call is sent to somebody else: ``twiml`` (Twilio asks when the agent has
            left) or ``rest`` (Twilio is told by its REST API).
        rest_url: Twilio's REST API.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_base_url: str | None = None
    auth_token_file: Path | None = None
    auth_token: SecretStr | None = None
    max_calls: int = Field(default=8, ge=1)
    transfer: Literal["twiml", "rest"] = "twiml"
    rest_url: str = "https://api.twilio.com"

    @model_validator(mode="after")
    def _base_url(self) -> "GatewaySettings":
        url = self.public_base_url
        if url is not None and (not url.startswith(("https://", "http://")) or url.endswith("/")):
            raise ValueError(
                "public_base_url must start with https:// (or http:// on loopback) "
                f"and not end with a slash, got {url!r}"
            )
        return self

    def read_auth_token(self) -> str:
        """Twilio's auth token.

        Raises:
            ValueError: There is none, or its file cannot be read or is empty.
        """
        if self.auth_token is not None:
            return self.auth_token.get_secret_value()
        if self.auth_token_file is None:
            raise ValueError(
                f"no Twilio auth token: set {AUTH_TOKEN_VARIABLE} or gateway.auth_token_file"
            )
        try:
            token = self.auth_token_file.read_text("utf-8").strip()
        except OSError as error:
            raise ValueError(
                f"gateway.auth_token_file {self.auth_token_file}: {error.strerror or error}"
            ) from error
        if not token:
            raise ValueError(f"gateway.auth_token_file {self.auth_token_file} is empty")
        return token


class SamplingSettings(Section):
    """How the language model samples.

    Attributes:
        temperature: 0 is greedy.
        top_p: Probability mass that is kept.
        max_new_tokens: Longest answer, text and speech tokens together.
        repetition_guard: Keep long answers from going round in circles.
        seed: Makes answers repeatable; None draws afresh every turn.
    """

    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=0.8, gt=0, le=1)
    max_new_tokens: int = Field(default=2000, ge=1)
    repetition_guard: bool = True
    seed: int | None = None


class VADSettings(Section):
    """When the caller counts as speaking (Silero on 16 kHz audio).

    Attributes:
        confidence: Silero's probability from which a window counts as speech.
        start_secs: Seconds of speech before a turn (or a barge-in) starts.
        stop_secs: Seconds of silence before the turn detector is asked. This is latency on
            every turn.
        min_volume: Loudness from 0 to 1 below which a window is no speech. Phone lines are
            quieter than Pipecat's default of 0.6 assumes: with it speech is noticed late.
    """

    confidence: float = Field(default=0.7, gt=0, lt=1)
    start_secs: float = Field(default=0.2, gt=0)
    stop_secs: float = Field(default=0.2, gt=0)
    min_volume: float = Field(default=0.3, ge=0, le=1)


class TurnSettings(Section):
    """When the caller's turn is over.

    Attributes:
        max_wait_secs: Silence after which the turn is over even though smart-turn finds it
            unfinished.
        ask_again_secs: How often smart-turn is asked again while the silence lasts. It is sure
            of more turns after 0.4 s of silence than after 0.2 s.
        pre_roll_secs: Audio from before the speech began that still belongs to the turn.
        min_speech_secs: Speech shorter than this is no turn, but a cough or a click.
        early_secs: Silence after which an answer is begun, to be thrown away if the caller goes on
            before the turn is over; None begins when it is.
    """

    max_wait_secs: float = Field(default=1.2, gt=0)
    ask_again_secs: float = Field(default=0.1, gt=0)
    pre_roll_secs: float = Field(default=0.4, ge=0)
    min_speech_secs: float = Field(default=0.25, ge=0)
    early_secs: float | None = Field(default=0.1, gt=0)


class AgentSettings(Section):
    """The agent of one call.

    Attributes:
        greeting: Typed instruction that the agent follows when the call starts; None waits for the
            caller.
        greeting_text: Words to say when the call starts, word for word; wins over ``greeting``.
        instructions: What the agent is told beyond the model's own system prompt.
        sampling: How answers are sampled.
        vad: When the caller counts as speaking.
        turn: When the caller's turn is over.
        transcribe: Ask the model for the caller's words too, where the checkpoint can tell them.
        redact: What is masked in the record before it is written: runs of digits, card numbers,
            identity numbers (docs/records.md).
        private_arguments: Arguments of tools, such as ``name`` or ``who.name``, whose values are
            masked wherever the record has them.
        tools: What the agent may do on a call (docs/tools.md).
    """

    greeting: str | None = "Greet the caller."
    greeting_text: str | None = None
    instructions: str | None = None
    sampling: SamplingSettings = SamplingSettings()
    vad: VADSettings = VADSettings()
    turn: TurnSettings = TurnSettings()
    transcribe: bool = True
    redact: tuple[Literal["digits", "cards", "ids"], ...] = ()
    private_arguments: tuple[str, ...] = ()
    tools: tuple[ToolSettings, ...] = ()


class Settings(Section):
    """All settings of ``glm-voice serve``."""

    triton: TritonSettings = TritonSettings()
    gateway: GatewaySettings = GatewaySettings()
    records: RecordSettings = RecordSettings()
    agent: AgentSettings = AgentSettings()


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from a YAML file and the environment.

    Args:
        path: The YAML file; None takes defaults and the environment alone.
        environ: Environment variables; None takes the process's own.

    Returns:
        The settings, checked.

    Raises:
        ValueError: The file cannot be read or is no YAML mapping, or a field is unknown or has a
            wrong value; the message names the file and the field.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _read_mapping(path)
        gateway = values.get("gateway")
        if isinstance(gateway, dict) and "auth_token" in gateway:
            raise ValueError(
                f"{path}: gateway.auth_token does not belong in a file of settings; "
                f"set {AUTH_TOKEN_VARIABLE} or gateway.auth_token_file"
            )
    source = str(path) if path is not None else "settings"
    _apply_environment(values, os.environ if environ is None else environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {_explain(error)}") from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(content).__name__}")
    return content


def _apply_environment(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, field = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        try:
            value = yaml.safe_load(environ[name])
        except yaml.YAMLError as error:
            raise ValueError(f"{name}: not a YAML value: {error}") from error
        section = values
        for key in sections:
            inner = section.get(key)
            section[key] = inner = dict(inner) if isinstance(inner, dict) else {}
            section = inner
        section[field] = value
    token = environ.get(AUTH_TOKEN_VARIABLE)
    if token:
        gateway = values.get("gateway")
        values["gateway"] = {**(gateway if isinstance(gateway, dict) else {}), "auth_token": token}


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown field {field}")
        else:
            problems.append(f"{field}: {problem['msg']}")
    return "; ".join(problems)
