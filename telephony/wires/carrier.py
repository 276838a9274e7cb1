"""What the gateway has to know about a carrier, whichever it is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aiohttp import web
from pipecat.serializers.base_serializer import FrameSerializer

from telephony.wire_fields import Fields
from telephony.wires.steps import Step

OLDEST_SECONDS = 300.0
"""A signature with a time is good for so long."""
_LONGEST_SID = 64
_NOT_OF_A_SID = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class Webhook:
    """A request of a carrier.

    Attributes:
        request: As it came.
        url: As the carrier called it.
        body: Its bytes.
        form: The fields of its form, with names that repeat; empty where it is none.
        now: Unix time.
    """

    request: web.Request
    url: str
    body: bytes
    form: Sequence[tuple[str, str]]
    now: float

    def header(self, name: str) -> str:
        """A header that has to be there.

        Raises:
            web.HTTPForbidden: It is not.
        """
        value = self.request.headers.get(name)
        if not value:
            raise web.HTTPForbidden(text=f"missing {name} header\n")
        return value


@dataclass(frozen=True)
class Call:
    """A call as its webhook tells of it.

    Attributes:
        id: The carrier's name of it.
        called: The number that was called, in E.164 if the carrier says so much.
        caller: The number that calls; empty where it is not known.
    """

    id: str
    called: str
    caller: str


@dataclass(frozen=True)
class Addresses:
    """Where a carrier finds the gateway.

    Attributes:
        webhook: Asked again by a call that waits.
        forwarded: Asked when a call comes back from another number.
        stream: The WebSocket of this call, if it is let in.
    """

    webhook: str
    forwarded: str
    stream: str


@dataclass(frozen=True)
class Opened:
    """A stream has begun.

    Attributes:
        stream_id: The carrier's name of it; empty where it has none.
        account_id: The account that it belongs to; empty where the carrier does not say.
        serializer: Reads and writes its messages, with PCM at 8 kHz on this side.
    """

    stream_id: str
    account_id: str
    serializer: FrameSerializer


class Carrier(ABC):
    """One carrier.

    Attributes:
        name: As in the settings, and in the paths.
        method: How its webhook comes.
        path: What its webhook's path ends with, where that is not just the carrier's name.
        message_samples: Samples at 8 kHz of one message to the phone; 0: any number.
        tells_of_end: A message says that the caller hung up; without, a closed socket does.
    """

    name: ClassVar[str]
    method: ClassVar[str] = "POST"
    path: ClassVar[str] = ""
    message_samples: ClassVar[int] = 0
    tells_of_end: ClassVar[bool] = True

    def __init__(self, secret: str):
        """Know what the carrier's webhooks are checked with.

        Raises:
            ValueError: It is of no use.
        """
        self._secret = secret

    def call_sid(self, call_id: str) -> str:
        """The gateway's name of a call, also that of its record."""
        own = f"{self.name}-"
        return own + file_name(call_id)[-(_LONGEST_SID - len(own)) :]

    # ---- webhooks

    @abstractmethod
    def require(self, webhook: Webhook) -> None:
        """Let a request of the carrier pass.

        Raises:
            web.HTTPForbidden: It is not the carrier's; the text says why.
        """

    @abstractmethod
    def call(self, webhook: Webhook) -> Call:
        """The call that a request is about.

        Raises:
            web.HTTPBadRequest: It is about none.
        """

    def dial_status(self, webhook: Webhook) -> str:
        """How it went that a call was connected with another number, in Twilio's words."""
        return dict(webhook.form).get("DialCallStatus", "")

    @abstractmethod
    def answer(
        self, steps: Sequence[Step], addresses: Addresses, call: Call
    ) -> web.Response | None:
        """The document that tells the carrier what the call does; None: it cannot be told."""

    # ---- the stream

    @abstractmethod
    def opened(self, message: Fields) -> Opened | None:
        """The stream that a first message begins; None: the next one may.

        Raises:
            ProtocolError: The message is not as it should be.
        """

    @abstractmethod
    def mark(self, stream_id: str, name: str) -> dict[str, Any]:
        """The message that asks to be told when what was sent before it has been played."""

    @abstractmethod
    def mark_returned(self, message: Fields) -> str | None:
        """The name of the mark that a message returns; None: it returns none."""

    def ended(self, message: Fields) -> bool:
        """Whether a message says that the call is over."""
        return message.values.get("event") == "stop"


def file_name(name: str) -> str:
    """A carrier's name of something, as it can stand in a file's."""
    return _NOT_OF_A_SID.sub("_", name)


def needed(fields: Mapping[str, Any], name: str) -> str:
    """A field of a webhook that has to be there, as a text.

    Raises:
        web.HTTPBadRequest: It is not.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise web.HTTPBadRequest(text=f"{name}: expected a text\n")
    return value


def e164(number: str) -> str:
    """A number with the plus sign that some carriers leave out; others stay as they are."""
    bare = number.isascii() and number.isdigit() and not number.startswith("0")
    return f"+{number}" if bare else number
