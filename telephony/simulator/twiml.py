"""Reads TwiML, what a voice webhook answers, as far as this Twilio executes it."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit


class TwiMLError(ValueError):
    """The answer cannot be executed; ``code`` is the error that Twilio logs."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Stream:
    """``<Connect><Stream>``: media to and from a WebSocket, until one side ends it.

    Attributes:
        url: Where to connect.
        parameters: Handed to the server in its ``start`` event.
        name: The stream's name in callbacks.
        status_callback: URL that is told when the stream starts, stops or fails, or None.
    """

    url: str
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    name: str | None = None
    status_callback: str | None = None


@dataclass(frozen=True)
class Say:
    """``<Say>``: Twilio's own voice."""

    text: str


@dataclass(frozen=True)
class Pause:
    """``<Pause>``: silence for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hangup:
    """``<Hangup>``: the end of the call."""


@dataclass(frozen=True)
class Reject:
    """``<Reject>``: the call is not answered; ``reason`` is ``rejected`` or ``busy``."""

    reason: str


Verb = Stream | Say | Pause | Hangup | Reject


def parse_twiml(document: str) -> list[Verb]:
    """Read a TwiML document.

    Args:
        document: What the webhook answered.

    Returns:
        Its verbs in order.

    Raises:
        TwiMLError: It is no TwiML (12100), or has a verb, a noun or an attribute that is missing,
            wrong or not executed here (12200).
    """
    if "<!DOCTYPE" in document:
        raise TwiMLError(12100, "TwiML has no document type")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise TwiMLError(12100, f"TwiML is not well-formed XML: {error}") from None
    if root.tag != "Response":
        raise TwiMLError(12100, f"TwiML's root is <Response>, got <{root.tag}>")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Verb:
    match element.tag:
        case "Connect":
            return _stream(element)
        case "Say":
            return Say(" ".join("".join(element.itertext()).split()))
        case "Pause":
            length = element.get("length", "1")
            if not length.isdigit():
                raise TwiMLError(12200, f"<Pause length> is whole seconds, got {length!r}")
            return Pause(float(length))
        case "Hangup":
            return Hangup()
        case "Reject":
            return Reject(element.get("reason", "rejected"))
    raise TwiMLError(12200, f"TwiML verb <{element.tag}> is not one that this Twilio executes")


def _stream(connect: ElementTree.Element) -> Stream:
    nouns = [noun for noun in connect if noun.tag == "Stream"]
    if len(nouns) != 1 or len(connect) != 1:
        raise TwiMLError(12200, "<Connect> holds exactly one <Stream>")
    noun = nouns[0]
    url = noun.get("url", "")
    parts = urlsplit(url)
    loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "wss" and not (parts.scheme == "ws" and loopback):
        raise TwiMLError(12200, f"<Stream url> is a wss:// address, got {url!r}")
    if parts.query:
        raise TwiMLError(12200, f"<Stream url> has no query string, got {url!r}")
    parameters: dict[str, str] = {}
    for parameter in noun:
        name, value = parameter.get("name"), parameter.get("value")
        if parameter.tag != "Parameter" or name is None or value is None:
            raise TwiMLError(12200, "<Stream> holds <Parameter name value> and nothing else")
        parameters[name] = value
    return Stream(
        url, MappingProxyType(parameters), noun.get("name"), noun.get("statusCallback") or None
    )
