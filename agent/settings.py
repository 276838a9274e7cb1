"""Typed settings from one YAML file and the environment.

Every field has a default that serves a CPU-only machine. An environment variable overrides the
file: ``GLM_VOICE_`` and the field's path, joined by double underscores, as in
``GLM_VOICE_GATEWAY__PORT=9000``; values are read as YAML. Twilio's auth token is a secret and is
never in the YAML file: it comes from ``TWILIO_AUTH_TOKEN`` or from ``gateway.auth_token_file``. So
is the operators' token: ``GLM_OPERATOR_TOKEN`` or ``gateway.operator_token_file``.
"""

import difflib
import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, overload

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from agent.failure_settings import FailureSettings
from agent.record_settings import RecordSettings
from agent.section import Section
from agent.tools.settings import ToolSettings
from agent.turn_taking import TurnTakingSettings
from agent.wire_settings import CarrierName, WireSettings
from agent.yaml_document import Document, Location, Mistake, MistakesError

ENVIRONMENT_PREFIX = "GLM_VOICE_"
AUTH_TOKEN_VARIABLE = "TWILIO_AUTH_TOKEN"
OPERATOR_TOKEN_VARIABLE = "GLM_OPERATOR_TOKEN"
SECRETS = {"auth_token": AUTH_TOKEN_VARIABLE, "operator_token": OPERATOR_TOKEN_VARIABLE}
"""Fields of :class:`GatewaySettings`, and the variables that they come from."""
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
        failure: When an engine counts as failed in the middle of a call, and what is done then.
    """

    urls: tuple[str, ...] = ()
    embedded: bool = True
    checkpoint: Path = SHIPPED_CHECKPOINT
    chunk_timeout: float = Field(default=5.0, gt=0)
    failure: FailureSettings = FailureSettings()

    @model_validator(mode="after")
    def _one_source(self) -> "TritonSettings":
        if not self.embedded and not self.urls:
            raise ValueError("urls must name at least one host:port when embedded is false")
        return self


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected an address or a network (10.0.0.0/8): {error}") from None
    return text


class GatewaySettings(Section):
    """The side that faces Twilio.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_base_url: Scheme and host as Twilio sees them, without a trailing slash; signatures
            are checked against it. None while the address is not known before listening (loopback).
        auth_token_file: File that holds Twilio's auth token and nothing else.
        auth_token: The token itself, from the environment.
        operator_token_file: File that holds the token of operators' requests (``/operator/...``)
            and nothing else; without a token nobody can make them.
        operator_token: The token itself, from the environment.
        max_calls: Calls answered at once; None: as many as the engine can carry, which it measures.
        talk_share: Where the engine measures: the share of a call during which the agent speaks.
        drain_secs: At SIGTERM calls may go on for so long before the agent says goodbye.
        connections_per_address: Requests at once from one address that are not calls yet.
        messages_per_second: Messages that a media stream may bring on average; Twilio sends about
            50. Ten seconds' worth may come at once, after the network stood still.
        trusted_proxies: Addresses or networks of the proxies in front, whose ``X-Forwarded-For``
            is believed.
        workers: Processes that answer calls behind the one port, sensibly one a core: a call is
            Python and uses one. The limit of calls is for all of them together.
        transfer: How a call is sent to somebody else: ``twiml`` (Twilio asks when the agent has
            left) or ``rest`` (Twilio is told by its REST API).
        account_sid: The Twilio account that calls are made from.
        rest_url: Twilio's REST API.
        wires: Carriers that bring calls beside Twilio, by name.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_base_url: str | None = None
    auth_token_file: Path | None = None
    auth_token: SecretStr | None = None
    operator_token_file: Path | None = None
    operator_token: SecretStr | None = None
    max_calls: int | None = Field(default=None, ge=1)
    talk_share: float = Field(default=0.5, gt=0, le=1)
    drain_secs: float = Field(default=240.0, ge=0)
    connections_per_address: int = Field(default=64, ge=1)
    messages_per_second: float = Field(default=200.0, ge=60)
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    workers: int = Field(default=1, ge=1, le=256)
    transfer: Literal["twiml", "rest"] = "twiml"
    account_sid: str | None = Field(default=None, pattern=r"^AC[0-9a-fA-F]{32}$")
    rest_url: str = "https://api.twilio.com"
    wires: Mapping[CarrierName, WireSettings] = Field(default_factory=dict)

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
        token = self._secret("auth_token")
        if token is None:
            raise ValueError(
                f"no Twilio auth token: set {AUTH_TOKEN_VARIABLE} or gateway.auth_token_file"
            )
        return token

    def read_operator_token(self) -> str | None:
        """The token of operators' requests; None if there is none.

        Raises:
            ValueError: Its file cannot be read or is empty.
        """
        return self._secret("operator_token")

    def _secret(self, name: str) -> str | None:
        given: SecretStr | None = getattr(self, name)
        if given is not None:
            return given.get_secret_value()
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return None
        try:
            token = path.read_text("utf-8").strip()
        except OSError as error:
            raise ValueError(f"gateway.{name}_file {path}: {error.strerror or error}") from error
        if not token:
            raise ValueError(f"gateway.{name}_file {path} is empty")
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
        turn_taking: What interrupts the agent, and what happens when nobody speaks.
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
    turn_taking: TurnTakingSettings = TurnTakingSettings()
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

    def conflicts(self) -> Iterable[tuple[Location, str]]:
        """What is wrong though every field by itself is right: where, and why."""
        return ()


_Settings = TypeVar("_Settings", bound=Settings)


@overload
def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings: ...
@overload
def load_settings(
    path: Path | None, environ: Mapping[str, str] | None, model: type[_Settings]
) -> _Settings: ...
def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    model: type[Settings] = Settings,
) -> Settings:
    """Read settings from a YAML file and the environment.

    Args:
        path: The YAML file; None takes defaults and the environment alone.
        environ: Environment variables; None takes the process's own.
        model: What is read.

    Returns:
        The settings, checked.

    Raises:
        MistakesError: The file cannot be read or is no YAML mapping, or fields are unknown or have
            wrong values; names every one of them, and its line in the file.
    """
    document = None if path is None else Document(path)
    values = {} if document is None else document.values
    mistakes: list[Mistake] = [] if document is None else document.mistakes

    gateway = values.get("gateway")
    for name, variable in SECRETS.items():
        if document is not None and isinstance(gateway, dict) and name in gateway:
            del gateway[name]
            message = (
                f"gateway.{name} does not belong in a file of settings; "
                f"set {variable} or gateway.{name}_file"
            )
            mistakes.append(document.mistake(("gateway", name), message))
    variables = _apply_environment(values, os.environ if environ is None else environ)

    def note(location: Location, message: str) -> None:
        for length in range(len(location), 0, -1):
            if location[:length] in variables:
                mistakes.append(Mistake(variables[location[:length]], None, message))
                return
        mistake = Mistake("settings", None, message)
        mistakes.append(mistake if document is None else document.mistake(location, message))

    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            note(problem["loc"], _explain(problem["type"], problem["loc"], problem["msg"], model))
    else:
        for location, message in settings.conflicts():
            note(location, message)
    if mistakes:
        raise MistakesError(mistakes)
    return settings


def _apply_environment(values: dict[str, Any], environ: Mapping[str, str]) -> dict[Location, str]:
    """Write variables over the values of a file; the variable's name by the field's location."""
    variables: dict[Location, str] = {}

    def put(location: tuple[str, ...], name: str, value: Any) -> None:
        section = values
        for key in location[:-1]:
            inner = section.get(key)
            section[key] = inner = dict(inner) if isinstance(inner, dict) else {}
            section = inner
        section[location[-1]] = value
        variables[location] = name

    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        try:
            value = yaml.safe_load(environ[name])
        except yaml.YAMLError as error:
            raise MistakesError([Mistake(name, None, f"not a YAML value: {error}")]) from error
        put(tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")), name, value)
    for secret, name in SECRETS.items():
        if environ.get(name):
            put(("gateway", secret), name, environ[name])
    return variables


def _explain(kind: str, location: Location, message: str, model: type[BaseModel]) -> str:
    field = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), _fields(model, location[:-1]), 1)
        return f"unknown field {field}" + (f"; is {close[0]} meant?" if close else "")
    message = message.removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The names of the fields that the section at a location has."""
    sections = [model]
    for key in location:
        # Where sections are told apart by their kind, that is part of the location.
        of_kind = [section for section in sections if key in _kinds(section)]
        kinds: list[Any] = [
            section.model_fields[str(key)].annotation
            for section in sections
            if str(key) in section.model_fields
        ]
        if of_kind:
            sections = of_kind
        elif kinds:
            sections = []
            while kinds:
                kind = kinds.pop()
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    sections.append(kind)
                kinds += getattr(kind, "__args__", ())
    return [name for section in sections for name in section.model_fields]


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)
