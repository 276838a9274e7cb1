"""How tools are declared in the settings: ``agent.tools``."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from agent.outgoing import Secret, check_address
from agent.phone_number import PhoneNumber
from agent.section import Section

_NAME = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"


class _Tool(Section):
    """What every tool has.

    Attributes:
        name: By which the model calls it.
        description: What it does, for the model.
        parameters: JSON schema of its arguments, where the model is to see another one than the
            tool's own.
        timeout: Seconds that it may take, retries included.
        on_failure: What the model is told when it fails, in place of the reason.
        filler: What the agent says while it runs.
        filler_after: Seconds of silence before that.
    """

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    timeout: float = Field(default=10.0, gt=0)
    on_failure: str | None = Field(default=None, min_length=1)
    filler: str | None = Field(default=None, min_length=1)
    filler_after: float = Field(default=1.0, ge=0)


class FunctionSettings(_Tool):
    """A Python function.

    Attributes:
        function: ``package.module:function``. Its annotations are the types of the arguments; its
            docstring describes it and them.
    """

    kind: Literal["function"]
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")


class WebhookSettings(_Tool):
    """An HTTP request.

    Attributes:
        description: Required.
        parameters: JSON schema of the arguments; required.
        url: https, or http on loopback.
        method: GET and DELETE put the arguments in the query, the others in a JSON body.
        headers: By name; a value may be a secret.
        signing_secret: Signs the request (docs/tools.md says how).
        idempotent: Making it twice does no more than making it once.
        retries: How often it is made again when it fails; only of one that is idempotent.
        backoff: Seconds before the first retry; doubled before each further one.
        longest_result: Most characters of its answer; a model remembers every one.
    """

    kind: Literal["webhook"]
    description: str = Field(min_length=1)
    parameters: dict[str, Any]
    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str | Secret] = {}  # noqa: RUF012
    signing_secret: Secret | None = None
    idempotent: bool = False
    retries: int = Field(default=0, ge=0, le=10)
    backoff: float = Field(default=0.2, gt=0)
    longest_result: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _safe(self) -> "WebhookSettings":
        check_address(self.url)
        if self.retries and not self.idempotent:
            raise ValueError("retries need idempotent: true; a request that is not is made once")
        return self


class HangUpSettings(_Tool):
    """Ends the call, when the caller has heard the agent's last words.

    Attributes:
        timeout: As elsewhere, the last words included.
    """

    kind: Literal["hang_up"]
    name: str = Field(default="hang_up", pattern=_NAME)
    timeout: float = Field(default=60.0, gt=0)


class TransferSettings(_Tool):
    """Connects the caller with somebody else, when the caller has heard the agent's last words.

    Attributes:
        destinations: Telephone numbers (E.164) by what the model calls them; it never sees a
            number.
        timeout: As elsewhere, the last words included, and where it is warm the ringing and what
            is said to whoever answers.
        warm: The agent stays with the caller until somebody has answered and been told what it is
            about, and goes on if nobody does.
        asks_summary: Have the model say what it is about, for whoever takes the call.
    """

    kind: Literal["transfer"]
    name: str = Field(default="transfer", pattern=_NAME)
    timeout: float = Field(default=90.0, gt=0)
    warm: bool = False
    asks_summary: bool = False
    destinations: dict[str, PhoneNumber] = Field(min_length=1)


class SendDigitsSettings(_Tool):
    """Presses keys: for menus and extensions at the other end."""

    kind: Literal["send_digits"]
    name: str = Field(default="send_digits", pattern=_NAME)


class TakeDigitsSettings(_Tool):
    """Waits for what the caller types; nothing is recorded meanwhile.

    Attributes:
        wait_secs: So long for the first key, once the agent has asked.
        longest: So many keys are enough; None: as ``phone.keypad`` says.
        secret: The model is told only how many keys there were; a Python function that is a tool
            gets them (``Call.typed``).
        timeout: As elsewhere, the agent's words and all keys included.
    """

    kind: Literal["take_digits"]
    name: str = Field(default="take_digits", pattern=_NAME)
    wait_secs: float = Field(default=15.0, gt=0)
    longest: int | None = Field(default=None, ge=1, le=64)
    secret: bool = False
    timeout: float = Field(default=90.0, gt=0)


class TakeMessageSettings(_Tool):
    """Keeps a message in the call's record (event ``message_taken``)."""

    kind: Literal["take_message"]
    name: str = Field(default="take_message", pattern=_NAME)


class LookUpSettings(_Tool):
    """Finds a fact in a table.

    Attributes:
        description: Required: the model must know what can be looked up.
        parameter: What the argument is called.
        facts: Facts by key.
        file: A YAML file with such a mapping, in place of ``facts``.
        unknown: What the model is told where nothing is found; without it, which keys there are.
    """

    kind: Literal["look_up"]
    name: str = Field(default="look_up", pattern=_NAME)
    description: str = Field(min_length=1)
    parameter: str = Field(default="key", pattern=_NAME)
    facts: dict[str, str] | None = None
    file: Path | None = None
    unknown: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "LookUpSettings":
        if (self.facts is None) == (self.file is None):
            raise ValueError("a table has either facts or file")
        return self


ToolSettings: TypeAlias = Annotated[
    FunctionSettings
    | WebhookSettings
    | HangUpSettings
    | TransferSettings
    | SendDigitsSettings
    | TakeDigitsSettings
    | TakeMessageSettings
    | LookUpSettings,
    Field(discriminator="kind"),
]
"""One tool, told apart by ``kind``."""
