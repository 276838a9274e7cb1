"""Whom the loopback Twilio calls: addresses, account and signatures."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from twilio.request_validator import RequestValidator


def new_sid(prefix: str) -> str:
    """A fresh Twilio identifier: two letters and 32 hexadecimal digits."""
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True)
class Target:
    """A server that answers phone calls.

    Attributes:
        voice_url: The voice webhook, as the server believes itself to be called: what is signed.
        auth_token: The account's secret, with which requests are signed.
        via: Scheme and authority, such as ``http://127.0.0.1:8080``, to which every request for
            the host of ``voice_url`` goes instead; None connects to the addresses as they are.
        status_url: Told how the call went (Twilio's StatusCallback), or None.
        account_sid: The account that the calls belong to.
    """

    voice_url: str
    auth_token: str = field(repr=False)
    via: str | None = None
    status_url: str | None = None
    account_sid: str = field(default_factory=lambda: new_sid("AC"))

    def __post_init__(self) -> None:
        for name, url in (("voice_url", self.voice_url), ("via", self.via)):
            if url is None:
                continue
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{name}: expected an http:// or https:// address, got {url!r}")
        if not self.auth_token:
            raise ValueError("auth_token: expected the account's auth token, got nothing")

    def reach(self, url: str) -> str:
        """Where to connect for an address that the server gave.

        Args:
            url: http, https, ws or wss.

        Returns:
            The same address, or the one behind ``via`` when the host is the server's public one.
        """
        parts = urlsplit(url)
        if self.via is None or parts.netloc != urlsplit(self.voice_url).netloc:
            return url
        via = urlsplit(self.via)
        secure = via.scheme == "https"
        websocket = parts.scheme in ("ws", "wss")
        scheme = ("wss" if secure else "ws") if websocket else via.scheme
        return urlunsplit((scheme, via.netloc, parts.path, parts.query, ""))

    def signature(self, url: str, parameters: Mapping[str, str] | None = None) -> str:
        """The X-Twilio-Signature header for a request to a public address.

        Args:
            url: The address that the server believes it was called by.
            parameters: The form's fields; a WebSocket upgrade has none.
        """
        return str(RequestValidator(self.auth_token).compute_signature(url, dict(parameters or {})))
