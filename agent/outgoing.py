"""What requests of ours to other servers have in common: addresses, secrets, the signature."""

import hashlib
import hmac
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import model_validator

from agent.section import Section

SIGNATURE_HEADER = "X-GLM-Voice-Signature"
IDEMPOTENCY_HEADER = "Idempotency-Key"


class Secret(Section):
    """A value that does not belong in a file of settings.

    Attributes:
        env: Variable of the environment that holds it.
        file: File that holds it and nothing else, in place of ``env``.
        prefix: Stands before it, such as ``"Bearer "``.
    """

    env: str | None = None
    file: Path | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> "Secret":
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret has either env or file")
        return self

    def read(self) -> str:
        """The value, with its prefix.

        Raises:
            ValueError: It is not there, or empty; names the variable or the file.
        """
        if self.env is not None:
            value, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            assert self.file is not None
            place = f"file {self.file}"
            try:
                value = self.file.read_text("utf-8").strip()
            except OSError as error:
                raise ValueError(f"{place}: {error.strerror or error}") from error
        if not value:
            raise ValueError(f"{place} is empty or not set")
        return self.prefix + value


def check_address(url: str) -> None:
    """Let an address pass to which callers' data may be sent.

    Raises:
        ValueError: It is neither https nor http on loopback.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname)):
        raise ValueError(f"url must be https, or http on loopback, got {url!r}")


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of the signature's header.

    Args:
        secret: Shared with the server.
        at: Unix seconds.
        body: Of the request; empty where it has none.
    """
    signed = f"{at}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
