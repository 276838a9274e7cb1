"""Vonage: NCCO, 16-bit PCM in binary messages, webhooks signed with a JWT.

Sources: Vonage's guides of the Voice API's WebSockets and of signed webhooks, its NCCO reference.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, ClassVar
from xml.sax.saxutils import escape

import jwt
from aiohttp import web
from pipecat.serializers.vonage import VonageFrameSerializer

from telephony.wire_events import SAMPLE_RATE
from telephony.wire_fields import CloseCode, Fields, ProtocolError
from telephony.wires.carrier import (
    OLDEST_SECONDS,
    Addresses,
    Call,
    Carrier,
    Opened,
    Webhook,
    e164,
    needed,
)
from telephony.wires.steps import AskAgain, Connect, Dial, HangUp, Say, Step, Wait

_CONTENT_TYPE = f"audio/l16;rate={SAMPLE_RATE}"


class Vonage(Carrier):
    """Vonage's voice applications; their answer method has to be POST."""

    name: ClassVar[str] = "vonage"
    # Vonage wants 20 ms in a message.
    message_samples: ClassVar[int] = SAMPLE_RATE // 50
    tells_of_end: ClassVar[bool] = False

    def require(self, webhook: Webhook) -> None:
        """Let what is signed with the account's signature secret pass."""
        kind, _, token = webhook.header("Authorization").partition(" ")
        try:
            claims = jwt.decode(
                token if kind.lower() == "bearer" else "",
                self._secret,
                algorithms=["HS256"],
                options={"verify_iat": False, "verify_aud": False, "require": ["iat"]},
            )
            age = abs(webhook.now - float(claims["iat"]))
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise web.HTTPForbidden(text="Authorization: not a token of Vonage\n") from None
        if not age <= OLDEST_SECONDS:
            raise web.HTTPForbidden(text="Authorization: the token is too old\n")
        wanted = hashlib.sha256(webhook.body).hexdigest()
        if not hmac.compare_digest(str(claims.get("payload_hash", "")).encode(), wanted.encode()):
            raise web.HTTPForbidden(text="Authorization: the token is for another body\n")

    def call(self, webhook: Webhook) -> Call:
        """The call of an answer webhook, or of one that waits."""
        fields = _object(webhook.body)
        # What the action that asks again was given comes back in here.
        given = fields.get("payload")
        fields = given if isinstance(given, dict) else fields
        called, caller = (e164(str(fields.get(name, ""))) for name in ("to", "from"))
        return Call(needed(fields, "uuid"), called, caller)

    def answer(self, steps: Sequence[Step], addresses: Addresses, call: Call) -> web.Response:
        """An NCCO. It has no word for hanging up: a call ends with it."""
        actions = [_action(step, addresses, call) for step in steps if not isinstance(step, HangUp)]
        return web.json_response(actions)

    def opened(self, message: Fields) -> Opened | None:
        """The stream, which begins with ``websocket:connected``."""
        if message.text("event") != "websocket:connected":
            return None
        if message.text("content-type").replace(" ", "").lower() != _CONTENT_TYPE:
            raise ProtocolError(
                CloseCode.UNSUPPORTED_DATA, f"content-type: expected {_CONTENT_TYPE}"
            )
        params = VonageFrameSerializer.InputParams(
            vonage_sample_rate=SAMPLE_RATE, sample_rate=SAMPLE_RATE
        )
        return Opened("", "", VonageFrameSerializer(params))

    def mark(self, stream_id: str, name: str) -> dict[str, Any]:
        """A ``notify`` command."""
        return {"action": "notify", "payload": {"mark": name}}

    def mark_returned(self, message: Fields) -> str | None:
        """What a command gave comes back in ``websocket:notify``."""
        if message.text("event") != "websocket:notify":
            return None
        return message.inner("payload").text("mark")

    def ended(self, message: Fields) -> bool:
        """Not told."""
        return False


def _action(step: Step, addresses: Addresses, call: Call) -> dict[str, Any]:
    match step:
        case Say(text, language):
            return {"action": "talk", "text": escape(text), "language": language}
        case Wait(seconds):
            return {"action": "talk", "text": f"<speak><break time='{seconds}s'/></speak>"}
        case AskAgain():
            return {
                "action": "notify",
                "payload": {"uuid": call.id, "to": call.called, "from": call.caller},
                "eventUrl": [addresses.webhook],
                "eventMethod": "POST",
            }
        case Dial(number):
            phone = {"type": "phone", "number": number.lstrip("+")}
            return {"action": "connect", "from": call.called.lstrip("+"), "endpoint": [phone]}
        case Connect():
            socket = {"type": "websocket", "uri": addresses.stream, "content-type": _CONTENT_TYPE}
            return {"action": "connect", "endpoint": [socket]}
    raise ValueError(f"no action for {step}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise web.HTTPBadRequest(text="expected a JSON object\n")
    return fields
