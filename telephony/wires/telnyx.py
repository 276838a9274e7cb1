"""Telnyx: TeXML, media streaming as mu-law or A-law at 8 kHz, webhooks signed with Ed25519.

Sources: Telnyx's references of TeXML's ``<Stream>``, of the media streaming WebSocket, and of
webhooks.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any, ClassVar

from aiohttp import web
from pipecat.serializers.telnyx import TelnyxFrameSerializer

from telephony.wire_events import SAMPLE_RATE
from telephony.wire_fields import CloseCode, Fields, ProtocolError
from telephony.wires.carrier import (
    OLDEST_SECONDS,
    Addresses,
    Call,
    Carrier,
    Opened,
    Webhook,
    needed,
)
from telephony.wires.steps import Step
from telephony.wires.xml_answer import Verbs, xml_answer

_SIGNATURE = "telnyx-signature-ed25519"
_TIMESTAMP = "telnyx-timestamp"
_ENCODINGS = ("PCMU", "PCMA")


class Telnyx(Carrier):
    """Telnyx's TeXML applications."""

    name: ClassVar[str] = "telnyx"

    def __init__(self, secret: str):
        """Know the account's public key, in base64.

        Raises:
            ValueError: It is none, or PyNaCl is not installed.
        """
        super().__init__(secret)
        try:
            # Only who has this wire needs the library.
            verify_key = importlib.import_module("nacl.signing").VerifyKey
            self._bad = importlib.import_module("nacl.exceptions").CryptoError
        except ImportError:
            raise ValueError("Telnyx's signatures need PyNaCl: pip install PyNaCl") from None
        try:
            self._key = verify_key(base64.b64decode(secret, validate=True))
        except (ValueError, binascii.Error):
            raise ValueError("expected Telnyx's public key, 32 bytes in base64") from None

    def require(self, webhook: Webhook) -> None:
        """Let what Telnyx has signed in the last minutes pass."""
        timestamp = webhook.header(_TIMESTAMP)
        signature = webhook.header(_SIGNATURE)
        signed = timestamp.encode() + b"|" + webhook.body
        try:
            self._key.verify(signed, base64.b64decode(signature, validate=True))
            age = abs(webhook.now - float(timestamp))
        except (self._bad, ValueError):
            raise web.HTTPForbidden(text=f"{_SIGNATURE} does not match the body\n") from None
        if not age <= OLDEST_SECONDS:
            raise web.HTTPForbidden(text=f"{_TIMESTAMP} is too old\n")

    def call(self, webhook: Webhook) -> Call:
        """The call of a TeXML request."""
        form = dict(webhook.form)
        return Call(needed(form, "CallSid"), form.get("To", ""), form.get("From", ""))

    def answer(self, steps: Sequence[Step], addresses: Addresses, call: Call) -> web.Response:
        """TeXML."""
        return xml_answer(steps, _VERBS, addresses)

    def opened(self, message: Fields) -> Opened | None:
        """The stream of a ``start`` message; ``connected`` comes before it."""
        if message.text("event") != "start":
            return None
        start = message.inner("start")
        audio = start.inner("media_format")
        encoding = audio.text("encoding")
        if encoding not in _ENCODINGS or audio.number("sample_rate") != SAMPLE_RATE:
            raise ProtocolError(
                CloseCode.UNSUPPORTED_DATA, "start.media_format: expected PCMU or PCMA at 8000 Hz"
            )
        stream_id = message.text("stream_id")
        params = TelnyxFrameSerializer.InputParams(sample_rate=SAMPLE_RATE, auto_hang_up=False)
        # The serializer names codecs from Telnyx's side: what comes in there is what we send.
        serializer = TelnyxFrameSerializer(stream_id, encoding, "PCMU", params=params)
        return Opened(stream_id, str(start.values.get("user_id", "")), serializer)

    def mark(self, stream_id: str, name: str) -> dict[str, Any]:
        """A ``mark``."""
        return {"event": "mark", "mark": {"name": name}}

    def mark_returned(self, message: Fields) -> str | None:
        """A ``mark`` comes back under its name."""
        return message.inner("mark").text("name") if message.text("event") == "mark" else None


def _connect(address: str) -> ElementTree.Element:
    connect = ElementTree.Element("Connect")
    # Without a mode of RTP Telnyx expects MP3 files.
    ElementTree.SubElement(
        connect,
        "Stream",
        url=address,
        track="inbound_track",
        codec="PCMU",
        bidirectionalMode="rtp",
        bidirectionalCodec="PCMU",
    )
    return connect


_VERBS = Verbs("Say", "Pause", _connect)
