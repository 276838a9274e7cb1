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
    Dial,
    Stream,
    VoiceResponse,
)

SIGNATURE_HEADER = "X-Twilio-Signature"
TOKEN_PARAMETER = "token"

CALL_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""Values of Twilio's CallStatus after which a call does nothing more."""


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


def twiml_response(text: str) -> web.Response:
    """An answer that Twilio executes."""
    return web.Response(text=text, content_type="text/xml")


def websocket_url(public_base_url: str, path: str) -> str:
    """The address of a WebSocket at the public base URL: wss for https, ws for http (loopback)."""
    parts = urlsplit(public_base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def connect_twiml(
    stream_url: str,
    parameters: Mapping[str, str],
    status_url: str,
    next_url: str | None = None,
    consent: str | None = None,
    language: str = "en-US",
) -> str:
    """TwiML that connects the call to a media stream.

    Args:
        stream_url: wss:// address, without a query string (Twilio drops it).
        parameters: come back in the stream's ``start`` event.
        status_url: told when the stream starts, stops or fails.
        next_url: asked what the call does when the stream has been closed from here; None ends it.
        consent: said in Twilio's own voice before.
        language: of that.
    """
    response = VoiceResponse()
    if consent is not None:
        response.say(consent, language=language)
    connect = Connect(action=next_url)
    stream = Stream(url=stream_url, status_callback=status_url)
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    connect.append(stream)
    response.append(connect)
    return str(response)


def hang_up_twiml() -> str:
    """TwiML that hangs up."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def dial_twiml(
    number: str,
    action_url: str,
    *,
    sentence: str | None = None,
    language: str = "en-US",
    caller_id: str | None = None,
    ring_secs: int | None = None,
) -> str:
    """TwiML that connects the caller with another number.

    Args:
        number: whom to call.
        action_url: asked for what comes next when that is over.
        sentence: said before, or None.
        language: of the sentence.
        caller_id: the number that is shown; None: the caller's.
        ring_secs: so long it rings; None: as long as Twilio lets it.
    """
    response = VoiceResponse()
    if sentence is not None:
        response.say(sentence, language=language)
    response.dial(number, caller_id=caller_id, timeout=ring_secs, action=action_url)
    return str(response)


def brief_twiml(sentence: str, language: str, ready_url: str) -> str:
    """TwiML that tells somebody what it is about, and asks then where they go.

    Args:
        sentence: said in Twilio's own voice.
        language: of the sentence.
        ready_url: asked for what comes next by whoever is still there.
    """
    response = VoiceResponse()
    response.say(sentence, language=language)
    response.redirect(ready_url)
    return str(response)


def conference_twiml(name: str, action_url: str | None = None) -> str:
    """TwiML that joins a conference, which ends when one of the two leaves.

    Args:
        name: of the conference.
        action_url: asked for what comes next when that is over.
    """
    response = VoiceResponse()
    dial = Dial(action=action_url)
    dial.conference(name, beep=False, end_conference_on_exit=True)
    response.append(dial)
    return str(response)


def play_twiml(url: str) -> str:
    """TwiML that plays a recording and hangs up."""
    response = VoiceResponse()
    response.play(url)
    response.hangup()
    return str(response)


def refusal_twiml(sentence: str, language: str) -> str:
    """TwiML that says a sentence in Twilio's own voice and hangs up: no caller hears silence."""
    response = VoiceResponse()
    response.say(sentence, language=language)
    response.hangup()
    return str(response)


def wait_twiml(sentence: str | None, language: str, seconds: int, again_url: str) -> str:
    """TwiML that lets the call wait.

    Args:
        sentence: said before, or None.
        language: of the sentence.
        seconds: of silence that follow.
        again_url: asked then.
    """
    response = VoiceResponse()
    if sentence is not None:
        response.say(sentence, language=language)
    response.pause(length=seconds)
    response.redirect(again_url)
    return str(response)
