"""Exotel: the Voicebot applet, 16-bit PCM at 8 kHz in JSON, webhooks that nobody signs.

The applet's URL is the webhook: it asks for the address of the call's WebSocket and knows no other
answer. Source: Exotel's guides of the Stream and Voicebot applets and of their WebSocket protocol.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, ClassVar

from aiohttp import web
from pipecat.serializers.exotel import ExotelFrameSerializer

from telephony.wire_events import SAMPLE_RATE
from telephony.wire_fields import CloseCode, Fields, ProtocolError
from telephony.wires.carrier import Addresses, Call, Carrier, Opened, Webhook, e164, needed
from telephony.wires.steps import Connect, Step

_KEY = re.compile(r"[A-Za-z0-9_-]{16,}")


class Exotel(Carrier):
    """Exotel's call flows."""

    name: ClassVar[str] = "exotel"
    method: ClassVar[str] = "GET"
    path: ClassVar[str] = "/{key}"

    def __init__(self, secret: str):
        """Know the key.

        Raises:
            ValueError: It can be guessed, or cannot stand in a path.
        """
        super().__init__(secret)
        if _KEY.fullmatch(secret) is None:
            raise ValueError("expected a key of 16 or more letters, digits, - and _")

    def require(self, webhook: Webhook) -> None:
        """Let whoever knows the key pass."""
        key = webhook.request.match_info["key"]
        if not secrets.compare_digest(key.encode(), self._secret.encode()):
            raise web.HTTPForbidden(text="the key in the path is not ours\n")

    def call(self, webhook: Webhook) -> Call:
        """The call of the applet's request."""
        query = webhook.request.query
        called, caller = (e164(query.get(name, "")) for name in ("CallTo", "CallFrom"))
        return Call(needed(query, "CallSid"), called, caller)

    def answer(
        self, steps: Sequence[Step], addresses: Addresses, call: Call
    ) -> web.Response | None:
        """The address of the socket, if the call is let in."""
        if not any(isinstance(step, Connect) for step in steps):
            return None
        return web.json_response({"url": addresses.stream})

    def opened(self, message: Fields) -> Opened | None:
        """The stream of a ``start`` message; ``connected`` comes before it."""
        if message.text("event") != "start":
            return None
        start = message.inner("start")
        audio = start.inner("media_format")
        if audio.number("sample_rate") != SAMPLE_RATE:
            raise ProtocolError(
                CloseCode.UNSUPPORTED_DATA, "start.media_format.sample_rate: expected 8000"
            )
        stream_id = start.text("stream_sid")
        params = ExotelFrameSerializer.InputParams(sample_rate=SAMPLE_RATE)
        serializer = ExotelFrameSerializer(stream_id, params=params)
        return Opened(stream_id, str(start.values.get("account_sid", "")), serializer)

    def mark(self, stream_id: str, name: str) -> dict[str, Any]:
        """A ``mark``."""
        return {"event": "mark", "stream_sid": stream_id, "mark": {"name": name}}

    def mark_returned(self, message: Fields) -> str | None:
        """A ``mark`` comes back under its name."""
        return message.inner("mark").text("name") if message.text("event") == "mark" else None
