"""Documents of the carriers whose documents are XML in the manner of Twilio's."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from telephony.wires.carrier import Addresses
from telephony.wires.steps import AskAgain, Connect, Dial, HangUp, Say, Step, Wait


@dataclass(frozen=True)
class Verbs:
    """What a carrier calls things.

    Attributes:
        say: Say a sentence.
        wait: Wait.
        connect: The element that connects a call with the WebSocket of an address.
        number: The element within Dial that holds a number; None: Dial holds it itself.
    """

    say: str
    wait: str
    connect: Callable[[str], ElementTree.Element]
    number: str | None = None


def xml_answer(steps: Sequence[Step], verbs: Verbs, addresses: Addresses) -> web.Response:
    """The document of a call."""
    response = ElementTree.Element("Response")
    for step in steps:
        match step:
            case Say(text, language):
                _add(response, verbs.say, text, language=language)
            case Wait(seconds):
                _add(response, verbs.wait, length=str(seconds))
            case AskAgain():
                _add(response, "Redirect", addresses.webhook, method="POST")
            case Dial(number):
                to = verbs.number
                within = None if to else number
                dial = _add(response, "Dial", within, action=addresses.forwarded, method="POST")
                if to:
                    _add(dial, to, number)
            case HangUp():
                _add(response, "Hangup")
            case Connect():
                response.append(verbs.connect(addresses.stream))
    text = ElementTree.tostring(response, encoding="unicode")
    return web.Response(text=text, content_type="application/xml")


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element
