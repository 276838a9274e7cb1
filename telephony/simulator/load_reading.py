"""Reading what a server sends without parsing each message: the sound of one stream.

A server writes its media messages all in one way, so from one to the next only the payload differs.
What stands around it is learnt from a message that was read as JSON; whatever does not look so is
read as JSON again, and judged as in any other call.
"""

from __future__ import annotations

import json
from binascii import a2b_base64

from telephony.media_streams import Clear, Mark, Play, ToTwilio


class ServerReader:
    """Reads one stream's messages from a server."""

    def __init__(self, stream_sid: str) -> None:
        """Read messages for this stream."""
        self._reader = ToTwilio(stream_sid)
        self._before = b""
        self._after = b""

    def read(self, message: bytes) -> bytes | Mark | Clear:
        """One text message: sound in mu-law, or another event.

        Raises:
            ProtocolError: As :meth:`telephony.media_streams.ToTwilio.receive`.
            UnicodeDecodeError: It is not UTF-8.
        """
        before, after = self._before, self._after
        if before and message.startswith(before) and message.endswith(after):
            try:
                # Strict: nothing that would end a JSON text passes for base64.
                sound = a2b_base64(message[len(before) : -len(after)], strict_mode=True)
            except ValueError:
                sound = b""
            if sound:
                return sound
        event = self._reader.receive(message.decode())
        if isinstance(event, Play):
            self._learn(message)
            return event.payload
        return event

    def _learn(self, message: bytes) -> None:
        """Remember what stands around the payload, if there is no doubt about which text that is.

        Without escapes every text of the message stands in it as it is: one that is there once is
        the payload, and another one in its place changes nothing else.
        """
        payload = b'"%b"' % json.loads(message)["media"]["payload"].encode()
        if b"\\" not in message and message.count(payload) == 1:
            before, after = message.split(payload)
            self._before, self._after = before + b'"', b'"' + after
