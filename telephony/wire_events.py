"""The events of a Media Stream as typed values that write themselves as JSON, both directions."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

SAMPLE_RATE = 8000
FRAME_BYTES = 160
"""One frame: 20 ms of mu-law at 8 kHz."""
FRAME_SECONDS = FRAME_BYTES / SAMPLE_RATE
ENCODING = "audio/x-mulaw"


def _dump(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


# ---- from Twilio


@dataclass(frozen=True)
class Connected:
    """The socket is open: the first message, before the stream is known."""

    name: ClassVar[str] = "connected"
    protocol: str = "Call"
    version: str = "1.0.0"

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump({"event": self.name, "protocol": self.protocol, "version": self.version})


@dataclass(frozen=True)
class Start:
    """The stream begins: who calls, and the parameters of the TwiML's ``<Parameter>`` elements."""

    name: ClassVar[str] = "start"
    stream_sid: str
    call_sid: str
    account_sid: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    tracks: tuple[str, ...] = ("inbound",)
    sequence: int = 1

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump(
            {
                "event": self.name,
                "sequenceNumber": str(self.sequence),
                "start": {
                    "accountSid": self.account_sid,
                    "streamSid": self.stream_sid,
                    "callSid": self.call_sid,
                    "tracks": list(self.tracks),
                    "mediaFormat": {
                        "encoding": ENCODING,
                        "sampleRate": SAMPLE_RATE,
                        "channels": 1,
                    },
                    "customParameters": dict(self.parameters),
                },
                "streamSid": self.stream_sid,
            }
        )


@dataclass(frozen=True)
class Media:
    """Sound from the caller.

    Attributes:
        payload: mu-law bytes at 8 kHz, whole frames of 160.
        timestamp: milliseconds since the stream began.
        chunk: number of the message among the track's media, from 1.
    """

    name: ClassVar[str] = "media"
    stream_sid: str
    payload: bytes = field(repr=False)
    timestamp: int
    chunk: int
    sequence: int
    track: str = "inbound"

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump(
            {
                "event": self.name,
                "sequenceNumber": str(self.sequence),
                "media": {
                    "track": self.track,
                    "chunk": str(self.chunk),
                    "timestamp": str(self.timestamp),
                    "payload": base64.b64encode(self.payload).decode(),
                },
                "streamSid": self.stream_sid,
            }
        )


@dataclass(frozen=True)
class Dtmf:
    """The caller pressed a key: one of ``0123456789*#ABCD``."""

    name: ClassVar[str] = "dtmf"
    stream_sid: str
    digit: str = field(repr=False)
    sequence: int
    track: str = "inbound_track"

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump(
            {
                "event": self.name,
                "streamSid": self.stream_sid,
                "sequenceNumber": str(self.sequence),
                "dtmf": {"track": self.track, "digit": self.digit},
            }
        )


@dataclass(frozen=True)
class MarkReturned:
    """What was sent before the mark of this name has been played, or thrown away by a clear."""

    name: ClassVar[str] = "mark"
    stream_sid: str
    mark: str
    sequence: int

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump(
            {
                "event": self.name,
                "sequenceNumber": str(self.sequence),
                "streamSid": self.stream_sid,
                "mark": {"name": self.mark},
            }
        )


@dataclass(frozen=True)
class Stop:
    """The stream is over: the call ended or moved on to other TwiML."""

    name: ClassVar[str] = "stop"
    stream_sid: str
    account_sid: str
    call_sid: str
    sequence: int

    def to_json(self) -> str:
        """The message as Twilio sends it."""
        return _dump(
            {
                "event": self.name,
                "sequenceNumber": str(self.sequence),
                "streamSid": self.stream_sid,
                "stop": {"accountSid": self.account_sid, "callSid": self.call_sid},
            }
        )


TwilioEvent = Connected | Start | Media | Dtmf | MarkReturned | Stop


# ---- to Twilio


@dataclass(frozen=True)
class Play:
    """Sound for the caller: mu-law bytes at 8 kHz, queued behind what was sent before."""

    name: ClassVar[str] = "media"
    stream_sid: str
    payload: bytes = field(repr=False)

    def to_json(self) -> str:
        """The message as a server sends it."""
        # Sent fifty times a second and call: neither text needs JSON's escapes.
        payload = base64.b64encode(self.payload).decode("ascii")
        return (
            f'{{"event":"media","streamSid":{json.dumps(self.stream_sid)},'
            f'"media":{{"payload":"{payload}"}}}}'
        )


@dataclass(frozen=True)
class Mark:
    """Asks for a :class:`MarkReturned` once everything sent before has been played."""

    name: ClassVar[str] = "mark"
    stream_sid: str
    mark: str

    def to_json(self) -> str:
        """The message as a server sends it."""
        return _dump(
            {"event": self.name, "streamSid": self.stream_sid, "mark": {"name": self.mark}}
        )


@dataclass(frozen=True)
class Clear:
    """Throws away what has not been played; the marks among it return at once."""

    name: ClassVar[str] = "clear"
    stream_sid: str

    def to_json(self) -> str:
        """The message as a server sends it."""
        return _dump({"event": self.name, "streamSid": self.stream_sid})


ServerEvent = Play | Mark | Clear
