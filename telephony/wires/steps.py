"""What a call shall do, read from the reception's TwiML, so that it can be said in other words."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from telephony.webhooks import TOKEN_PARAMETER


@dataclass(frozen=True)
class Say:
    """Say a sentence in the carrier's voice."""

    text: str
    language: str


@dataclass(frozen=True)
class Wait:
    """Wait some seconds."""

    seconds: int


@dataclass(frozen=True)
class AskAgain:
    """Ask the webhook once more."""


@dataclass(frozen=True)
class Dial:
    """Connect the caller with a number, in E.164."""

    number: str


@dataclass(frozen=True)
class HangUp:
    """End the call."""


@dataclass(frozen=True)
class Connect:
    """Connect the call with the agent; its socket has to bring the token."""

    token: str


Step = Say | Wait | AskAgain | Dial | HangUp | Connect


def steps(twiml: str) -> list[Step]:
    """What a call does, in order.

    Args:
        twiml: As telephony.webhooks writes it.

    Raises:
        ValueError: It says something that is not known here.
    """
    return [_step(verb) for verb in ElementTree.fromstring(twiml)]


def _step(verb: ElementTree.Element) -> Step:
    match verb.tag:
        case "Say":
            return Say(verb.text or "", verb.get("language", "en-US"))
        case "Pause":
            return Wait(int(verb.get("length", "1")))
        case "Redirect":
            return AskAgain()
        case "Dial":
            return Dial("".join(verb.itertext()).strip())
        case "Hangup":
            return HangUp()
        case "Connect":
            parameters = {p.get("name"): p.get("value", "") for p in verb.iter("Parameter")}
            return Connect(parameters.get(TOKEN_PARAMETER, ""))
    raise ValueError(f"TwiML: no other carrier knows <{verb.tag}>")
