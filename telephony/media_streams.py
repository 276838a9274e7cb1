"""Twilio Media Streams: the wire's events, typed, and which of them are legal in which state.

Both ends of the wire are here, for the gateway and for a Twilio on loopback alike. Each event is a
frozen dataclass that writes itself with ``to_json`` (wire_events.py); :class:`FromTwilio` reads
what Twilio sends and :class:`ToTwilio` what a server sends, each with the state of one stream.
Source: Twilio's "Media Streams - WebSocket messages" reference.

Decisions where the reference leaves room:

- An event whose name is unknown is ignored (``receive`` returns None): Twilio adds events without
  notice. A known event with a missing or wrong field is an error.
- A ``media`` payload from Twilio is one or more whole frames of 20 ms (160 bytes of mu-law), at
  most a second. To Twilio any length of one byte or more is legal, as Twilio has it; the gateway
  sends single frames.
- Numbers are strings on the wire; JSON integers are read too.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from enum import Enum

from telephony.wire_events import (
    ENCODING,
    FRAME_BYTES,
    FRAME_SECONDS,
    SAMPLE_RATE,
    Clear,
    Connected,
    Dtmf,
    Mark,
    MarkReturned,
    Media,
    Play,
    ServerEvent,
    Start,
    Stop,
    TwilioEvent,
)
from telephony.wire_fields import CloseCode, Fields, ProtocolError

__all__ = [
    "ENCODING",
    "FRAME_BYTES",
    "FRAME_SECONDS",
    "SAMPLE_RATE",
    "Clear",
    "CloseCode",
    "Connected",
    "Dtmf",
    "FromTwilio",
    "Mark",
    "MarkReturned",
    "Media",
    "Play",
    "ProtocolError",
    "ServerEvent",
    "Start",
    "Stop",
    "StreamState",
    "ToTwilio",
    "TwilioEvent",
]

_LONGEST_PAYLOAD = SAMPLE_RATE
_PLAIN_MEDIA = re.compile(
    r'\{"event":"media","sequenceNumber":"(\d{1,19})","media":\{"track":"inbound",'
    r'"chunk":"(\d{1,19})","timestamp":"(\d{1,19})","payload":"([^"\\]+)"\},'
    r'"streamSid":"([^"\\]+)"\}',
    re.ASCII,
)
"""A media message to the letter as Twilio writes it: fifty a second come with every call."""
_DIGITS = frozenset("0123456789*#ABCD")


class StreamState(Enum):
    """How far the stream has come."""

    OPEN = "nothing has come yet"
    CONNECTED = "connected"
    STARTED = "started"
    STOPPED = "stopped"


_LEGAL: Mapping[StreamState, frozenset[str]] = {
    StreamState.OPEN: frozenset({Connected.name}),
    StreamState.CONNECTED: frozenset({Start.name}),
    StreamState.STARTED: frozenset({Media.name, Dtmf.name, MarkReturned.name, Stop.name}),
    StreamState.STOPPED: frozenset(),
}
_NEXT: Mapping[str, StreamState] = {
    Connected.name: StreamState.CONNECTED,
    Start.name: StreamState.STARTED,
    Stop.name: StreamState.STOPPED,
}
_NAMES = frozenset(name for names in _LEGAL.values() for name in names)


class FromTwilio:
    """Reads one stream's messages from Twilio: connected, start, then media, dtmf, mark; stop."""

    def __init__(self) -> None:
        self.state = StreamState.OPEN
        self.stream_sid: str | None = None

    def receive(self, message: str | bytes) -> TwilioEvent | None:
        """One WebSocket message as an event; None for an event of a name that is not known.

        Raises:
            ProtocolError: if the message cannot be read, or is not legal in the stream's state.
        """
        media = self._plain_media(message)
        if media is not None:
            return media
        fields = Fields.of_message(message)
        name = fields.text("event")
        if name not in _NAMES:
            return None
        if name not in _LEGAL[self.state]:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, self._out_of_order(name))
        event = _READERS[name](fields)
        if isinstance(event, Start):
            self.stream_sid = event.stream_sid
        elif not isinstance(event, Connected) and event.stream_sid != self.stream_sid:
            raise ProtocolError(
                CloseCode.PROTOCOL_ERROR, f"{name}: streamSid is not that of the start event"
            )
        self.state = _NEXT.get(name, self.state)
        return event

    def _plain_media(self, message: str | bytes) -> Media | None:
        """A message that is nothing but the caller's sound, as always; None: it is to be read."""
        if self.state is not StreamState.STARTED or not isinstance(message, str):
            return None
        plain = _PLAIN_MEDIA.fullmatch(message)
        if plain is None or plain[5] != self.stream_sid:
            return None
        try:
            payload = binascii.a2b_base64(plain[4], strict_mode=True)
        except ValueError:
            return None
        if not _is_sound(payload):
            return None
        return Media(plain[5], payload, int(plain[3]), int(plain[2]), int(plain[1]))

    def _out_of_order(self, name: str) -> str:
        if self.state is StreamState.STOPPED:
            return f"{name} after stop"
        if name == Connected.name or (name == Start.name and self.state is StreamState.STARTED):
            return f"a second {name}"
        return f"{name} before {Connected.name if name == Start.name else Start.name}"


class ToTwilio:
    """Reads what a server sends on the stream ``stream_sid`` once Twilio has sent its start."""

    def __init__(self, stream_sid: str):
        self.stream_sid = stream_sid

    def receive(self, message: str | bytes) -> ServerEvent:
        """One WebSocket message as an event.

        Raises:
            ProtocolError: if the message cannot be read, names an event that Twilio does not know,
                or is for another stream.
        """
        fields = Fields.of_message(message)
        name = fields.text("event")
        stream_sid = fields.text("streamSid")
        if stream_sid != self.stream_sid:
            raise ProtocolError(
                CloseCode.PROTOCOL_ERROR, f"{name}: streamSid is not that of the start event"
            )
        if name == Play.name:
            payload = fields.inner("media").payload("payload")
            if not payload:
                raise ProtocolError(CloseCode.INVALID_PAYLOAD, "media.payload: empty")
            return Play(stream_sid, payload)
        if name == Mark.name:
            return Mark(stream_sid, fields.inner("mark").text("name"))
        if name == Clear.name:
            return Clear(stream_sid)
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "event: expected media, mark or clear")


def _read_connected(fields: Fields) -> Connected:
    return Connected(fields.text("protocol"), fields.text("version"))


def _read_start(fields: Fields) -> Start:
    start = fields.inner("start")
    media_format = start.inner("mediaFormat")
    found = (
        media_format.text("encoding"),
        media_format.number("sampleRate"),
        media_format.number("channels"),
    )
    if found != (ENCODING, SAMPLE_RATE, 1):
        raise ProtocolError(
            CloseCode.UNSUPPORTED_DATA,
            f"start.mediaFormat: expected {ENCODING} at {SAMPLE_RATE} Hz in 1 channel",
        )
    return Start(
        stream_sid=start.text("streamSid"),
        call_sid=start.text("callSid"),
        account_sid=start.text("accountSid"),
        parameters=start.mapping("customParameters"),
        tracks=start.texts("tracks"),
        sequence=fields.number("sequenceNumber"),
    )


def _is_sound(payload: bytes) -> bool:
    return 0 < len(payload) <= _LONGEST_PAYLOAD and len(payload) % FRAME_BYTES == 0


def _read_media(fields: Fields) -> Media:
    media = fields.inner("media")
    track = media.text("track")
    if track != "inbound":
        raise ProtocolError(CloseCode.INVALID_PAYLOAD, "media.track: expected inbound")
    payload = media.payload("payload")
    if not _is_sound(payload):
        raise ProtocolError(
            CloseCode.INVALID_PAYLOAD,
            f"media.payload: expected whole frames of {FRAME_BYTES} bytes, at most"
            f" {_LONGEST_PAYLOAD}, got {len(payload)} bytes",
        )
    return Media(
        stream_sid=fields.text("streamSid"),
        payload=payload,
        timestamp=media.number("timestamp"),
        chunk=media.number("chunk"),
        sequence=fields.number("sequenceNumber"),
        track=track,
    )


def _read_dtmf(fields: Fields) -> Dtmf:
    dtmf = fields.inner("dtmf")
    digit = dtmf.text("digit")
    if digit not in _DIGITS:
        raise ProtocolError(CloseCode.INVALID_PAYLOAD, "dtmf.digit: expected one of 0-9 * # A-D")
    return Dtmf(
        stream_sid=fields.text("streamSid"),
        digit=digit,
        sequence=fields.number("sequenceNumber"),
        track=dtmf.text("track"),
    )


def _read_mark(fields: Fields) -> MarkReturned:
    return MarkReturned(
        stream_sid=fields.text("streamSid"),
        mark=fields.inner("mark").text("name"),
        sequence=fields.number("sequenceNumber"),
    )


def _read_stop(fields: Fields) -> Stop:
    stop = fields.inner("stop")
    return Stop(
        stream_sid=fields.text("streamSid"),
        account_sid=stop.text("accountSid"),
        call_sid=stop.text("callSid"),
        sequence=fields.number("sequenceNumber"),
    )


_READERS: Mapping[str, Callable[[Fields], TwilioEvent]] = {
    Connected.name: _read_connected,
    Start.name: _read_start,
    Media.name: _read_media,
    Dtmf.name: _read_dtmf,
    MarkReturned.name: _read_mark,
    Stop.name: _read_stop,
}
