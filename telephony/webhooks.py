"""What Twilio asks over HTTP: is it really Twilio, and what shall the call do.

Signatures are checked against the configured public base URL: behind a proxy the request's own
scheme and host are not those that Twilio signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import (
    Connect,
    Stream,
    VoiceResponse,
)

SIGNATURE_HEADER = "X-Twilio-Signature"
TOKEN_PARAMETER = "token"
BUSY = "All of our lines are busy right now. Please call again in a few minutes. Goodbye."
APOLOGY = "We are sorry, we cannot take your call right now. Please call again later. Goodbye."


class SignatureCheck:
    """Tells whether a request is signed by the account's auth token.

    Source: Twilio's "Validating requests": base64 of HMAC-SHA1 over the public URL and the sorted
    form parameters; a WebSocket upgrade is signed over its wss:// URL with no parameters.
    """

    def __init__(self, auth_token: str):
        """Check against one account's auth token.

        Raises:
            ValueError: if the token is empty: everything would be let in.
        """
        if not auth_token:
            raise ValueError("auth token: expected Twilio's auth token, got nothing")
        self._validator = RequestValidator(auth_token)

    def require(
        self, request: web.Request, url: str, parameters: Mapping[str, Any] | None = None
    ) -> None:
        """Let a signed request pass.

        Args:
            request: as it came.
            url: the URL as Twilio called it.
            parameters: the form's fields, a multi-dictionary where names repeat; None for a
                WebSocket upgrade.

        Raises:
            web.HTTPForbidden: if the signature is missing or wrong; the body says which.
        """
        signature = request.headers.get(SIGNATURE_HEADER)
        if not signature:
            raise web.HTTPForbidden(text=f"missing {SIGNATURE_HEADER} header\n")
        if not self._validator.validate(url, parameters or {}, signature):
            raise web.HTTPForbidden(
                text=f"{SIGNATURE_HEADER} does not match the request's public URL and parameters\n"
            )


def websocket_url(public_base_url: str, path: str) -> str:
    """The address of a WebSocket at the public base URL: wss for https, ws for http (loopback)."""
    parts = urlsplit(public_base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def connect_twiml(
    stream_url: str, parameters: Mapping[str, str], status_url: str, next_url: str
) -> str:
    """TwiML that connects the call to a media stream.

    Args:
        stream_url: wss:// address, without a query string (Twilio drops it).
        parameters: come back in the stream's ``start`` event.
        status_url: told when the stream starts, stops or fails.
        next_url: asked what the call does when the stream has been closed from here.
    """
    response = VoiceResponse()
    connect = Connect(action=next_url)
    stream = Stream(url=stream_url, status_callback=status_url)
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    connect.append(stream)
    response.append(connect)
    return str(response)


def dial_twiml(number: str) -> str:
    """TwiML that connects the caller with a number."""
    response = VoiceResponse()
    response.dial(number)
    return str(response)


def hang_up_twiml() -> str:
    """TwiML that ends the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def refusal_twiml(sentence: str) -> str:
    """TwiML that says a sentence in Twilio's own voice and hangs up: no caller hears silence."""
    response = VoiceResponse()
    response.say(sentence)
    response.hangup()
    return str(response)
