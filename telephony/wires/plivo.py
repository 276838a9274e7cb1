"""Plivo: Plivo XML, audio streaming as mu-law at 8 kHz, webhooks signed with HMAC-SHA256 (V3).

Sources: Plivo's references of ``<Stream>``, of the audio streaming protocol, and of signature V3.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any, ClassVar

from aiohttp import web
from pipecat.serializers.plivo import PlivoFrameSerializer

from telephony.wire_events import ENCODING, SAMPLE_RATE
from telephony.wire_fields import CloseCode, Fields, ProtocolError
from telephony.wires.carrier import Addresses, Call, Carrier, Opened, Webhook, e164, needed
from telephony.wires.steps import Step
from telephony.wires.xml_answer import Verbs, xml_answer

_SIGNATURE = "X-Plivo-Signature-V3"
_NONCE = "X-Plivo-Signature-V3-Nonce"


class Plivo(Carrier):
    """Plivo's voice applications."""

    name: ClassVar[str] = "plivo"
    tells_of_end: ClassVar[bool] = False

    def require(self, webhook: Webhook) -> None:
        """Let what is signed with the account's auth token pass."""
        nonce = webhook.header(_NONCE)
        offered = webhook.header(_SIGNATURE)
        # The address, then every value behind its name in order, then the nonce. A question mark
        # stands where a query would be, unless there are no fields.
        fields = "".join(name + value for name, value in sorted(webhook.form))
        signed = f"{webhook.url}{'?' if fields else ''}{fields}.{nonce}"
        digest = hmac.new(self._secret.encode(), signed.encode(), hashlib.sha256).digest()
        wanted = base64.b64encode(digest)
        # While an auth token is being replaced, both sign.
        if not any(hmac.compare_digest(one.strip().encode(), wanted) for one in offered.split(",")):
            raise web.HTTPForbidden(
                text=f"{_SIGNATURE} does not match the request's public URL and parameters\n"
            )

    def call(self, webhook: Webhook) -> Call:
        """The call of a request for Plivo XML."""
        form = dict(webhook.form)
        return Call(needed(form, "CallUUID"), e164(form.get("To", "")), e164(form.get("From", "")))

    def dial_status(self, webhook: Webhook) -> str:
        """Plivo's words are those of Twilio where they matter."""
        return dict(webhook.form).get("DialStatus", "")

    def answer(self, steps: Sequence[Step], addresses: Addresses, call: Call) -> web.Response:
        """Plivo XML."""
        return xml_answer(steps, _VERBS, addresses)

    def opened(self, message: Fields) -> Opened | None:
        """The stream of a ``start`` message."""
        if message.text("event") != "start":
            return None
        start = message.inner("start")
        audio = start.inner("mediaFormat")
        if (audio.text("encoding"), audio.number("sampleRate")) != (ENCODING, SAMPLE_RATE):
            raise ProtocolError(
                CloseCode.UNSUPPORTED_DATA, f"start.mediaFormat: expected {ENCODING} at 8000 Hz"
            )
        stream_id = start.text("streamId")
        params = PlivoFrameSerializer.InputParams(sample_rate=SAMPLE_RATE, auto_hang_up=False)
        serializer = PlivoFrameSerializer(stream_id, params=params)
        return Opened(stream_id, str(start.values.get("accountId", "")), serializer)

    def mark(self, stream_id: str, name: str) -> dict[str, Any]:
        """A ``checkpoint``."""
        return {"event": "checkpoint", "streamId": stream_id, "name": name}

    def mark_returned(self, message: Fields) -> str | None:
        """A checkpoint comes back as ``playedStream``."""
        return message.text("name") if message.text("event") == "playedStream" else None


def _connect(address: str) -> ElementTree.Element:
    stream = ElementTree.Element(
        "Stream",
        bidirectional="true",
        keepCallAlive="true",
        contentType=f"{ENCODING};rate={SAMPLE_RATE}",
    )
    stream.text = address
    return stream


_VERBS = Verbs("Speak", "Wait", _connect, number="Number")
