"""Reading a message of the wire: an error names the field and what was expected of it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST_CLOSE_REASON = 123


class CloseCode:
    """WebSocket close codes (RFC 6455, 7.4.1) a stream ends with."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011


class ProtocolError(Exception):
    """The other end broke the protocol of Media Streams.

    Attributes:
        code: the WebSocket close code to answer with: 1002 for an event out of order, 1003 for
            data of a kind that is not spoken here (binary messages, another audio format), 1007
            for a message that cannot be read.
        reason: what was wrong, without anything the caller said or dialled; fits a close frame.
    """

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_LONGEST_CLOSE_REASON].decode(errors="ignore")


@dataclass(frozen=True)
class Fields:
    """A JSON object of a message, and where in the message it is: errors name the field.

    Every method that reads a field raises a ProtocolError (1007) if it is missing or of another
    type.
    """

    values: Mapping[str, Any]
    path: str = ""

    @classmethod
    def of_message(cls, message: str | bytes) -> Fields:
        """The object that a WebSocket message is; binary messages are refused (1003)."""
        if isinstance(message, bytes):
            raise ProtocolError(
                CloseCode.UNSUPPORTED_DATA, "a binary message: expected JSON in a text message"
            )
        try:
            values = json.loads(message)
        except (ValueError, RecursionError):
            raise ProtocolError(CloseCode.INVALID_PAYLOAD, "a message that is not JSON") from None
        if not isinstance(values, dict):
            raise ProtocolError(CloseCode.INVALID_PAYLOAD, "a message that is not a JSON object")
        return cls(values)

    def _wrong(self, name: str, expected: str) -> ProtocolError:
        return ProtocolError(CloseCode.INVALID_PAYLOAD, f"{self.path}{name}: expected {expected}")

    def inner(self, name: str) -> Fields:
        """The object in a field."""
        values = self.values.get(name)
        if not isinstance(values, dict):
            raise self._wrong(name, "an object")
        return Fields(values, f"{self.path}{name}.")

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise self._wrong(name, "a text")
        return value

    def number(self, name: str) -> int:
        """A whole number of zero or more, as a text of digits or as an integer."""
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
        raise self._wrong(name, "a whole number")

    def payload(self, name: str) -> bytes:
        """The bytes that base64 text stands for."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "base64 text")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(name, "base64 text") from None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> dict[str, str]:
        """An object of texts; none where the field is missing."""
        value = self.values.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self._wrong(name, "an object of texts")
        return dict(value)
