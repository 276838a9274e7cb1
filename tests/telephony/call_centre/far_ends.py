"""Carriers as their documentation describes them: the other end of each wire, for the tests."""

import base64
import hashlib
import hmac
import json
import xml.etree.ElementTree as ElementTree

import jwt
import numpy as np
from pipecat.audio.utils import audioop

PUBLIC = "https://voice.example"
CALLED = "+15550100002"


def ulaw(pcm):
    return audioop.lin2ulaw(pcm.tobytes(), 2)


def from_ulaw(payload):
    return np.frombuffer(audioop.ulaw2lin(payload, 2), np.int16)


def text64(payload):
    return base64.b64encode(payload).decode()


class FarEnd:
    """One carrier.

    ``request`` gives method, path, headers and body of the webhook of a call; ``address`` finds
    the WebSocket in the answer; ``begin``, ``sound``, ``digit``, ``returned`` and ``end`` are the
    messages from the carrier, and ``heard`` reads one to it: ("sound", pcm), ("mark", name),
    ("clear", None).
    """

    method = "POST"
    packet = 160
    """Samples of a message from the caller."""
    tells_of_end = True
    call_id = "call-1"

    def sid(self):
        return f"{self.name}-{self.call_id}"


class Telnyx(FarEnd):
    name = "telnyx"
    call_id = "v3:MdI91X_4-pqg"

    def __init__(self, signing_key, encoding="PCMU"):
        self.key = signing_key
        self.secret = text64(bytes(signing_key.verify_key))
        self.encoding = encoding

    def sid(self):
        return "telnyx-v3_MdI91X_4-pqg"

    def request(self, now):
        body = f"CallSid={self.call_id.replace(':', '%3A')}&To=%2B15550100002".encode()
        signature = self.key.sign(f"{int(now)}|".encode() + body).signature
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "telnyx-timestamp": str(int(now)),
            "telnyx-signature-ed25519": text64(signature),
        }
        return "POST", "/wire/telnyx", headers, body

    def address(self, text):
        (stream,) = ElementTree.fromstring(text).findall("Connect/Stream")
        assert stream.get("bidirectionalMode") == "rtp"
        assert stream.get("bidirectionalCodec") == "PCMU"
        return stream.get("url")

    def begin(self):
        form = {"encoding": self.encoding, "sample_rate": 8000, "channels": 1}
        start = {"call_control_id": self.call_id, "user_id": "U1", "media_format": form}
        return [
            {"event": "connected", "version": "1.0.0"},
            {"event": "start", "sequence_number": "1", "stream_id": "S1", "start": start},
        ]

    def sound(self, pcm):
        encode = ulaw if self.encoding == "PCMU" else lambda p: audioop.lin2alaw(p.tobytes(), 2)
        media = {"track": "inbound", "payload": text64(encode(pcm))}
        return {"event": "media", "stream_id": "S1", "media": media}

    def digit(self, digit):
        return {"event": "dtmf", "stream_id": "S1", "dtmf": {"digit": digit}}

    def returned(self, name):
        return {"event": "mark", "stream_id": "S1", "mark": {"name": name}}

    def end(self):
        return {"event": "stop", "stream_id": "S1", "stop": {"call_control_id": self.call_id}}

    def heard(self, message):
        message = json.loads(message)
        if message["event"] == "media":
            return "sound", from_ulaw(base64.b64decode(message["media"]["payload"]))
        return message["event"], message.get("mark", {}).get("name")


class Plivo(FarEnd):
    name = "plivo"
    secret = "the account's token"
    tells_of_end = False

    def request(self, now, path="/wire/plivo", **more):
        fields = {"CallUUID": self.call_id, "Event": "StartApp", "To": CALLED[1:], **more}
        values = "".join(name + fields[name] for name in sorted(fields))
        signed = f"{PUBLIC}{path}?{values}.77"
        digest = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).digest()
        headers = {"X-Plivo-Signature-V3-Nonce": "77", "X-Plivo-Signature-V3": text64(digest)}
        return "POST", path, headers, fields

    def address(self, text):
        (stream,) = ElementTree.fromstring(text).findall("Stream")
        assert stream.get("bidirectional") == stream.get("keepCallAlive") == "true"
        assert stream.get("contentType") == "audio/x-mulaw;rate=8000"
        return stream.text

    def begin(self):
        form = {"encoding": "audio/x-mulaw", "sampleRate": 8000}
        start = {"callId": self.call_id, "streamId": "S1", "accountId": "MA1", "mediaFormat": form}
        return [{"event": "start", "sequenceNumber": 1, "start": start, "extra_headers": "{}"}]

    def sound(self, pcm):
        media = {"track": "inbound", "chunk": 1, "payload": text64(ulaw(pcm))}
        return {"event": "media", "streamId": "S1", "media": media}

    def digit(self, digit):
        return {"event": "dtmf", "streamId": "S1", "dtmf": {"track": "inbound", "digit": digit}}

    def returned(self, name):
        return {"event": "playedStream", "streamId": "S1", "name": name}

    def heard(self, message):
        message = json.loads(message)
        assert message["streamId"] == "S1"
        if message["event"] == "playAudio":
            media = message["media"]
            assert (media["contentType"], media["sampleRate"]) == ("audio/x-mulaw", 8000)
            return "sound", from_ulaw(base64.b64decode(media["payload"]))
        kinds = {"checkpoint": "mark", "clearAudio": "clear"}
        return kinds[message["event"]], message.get("name")


class Vonage(FarEnd):
    name = "vonage"
    secret = "the account's signature secret, which is long"
    tells_of_end = False

    def __init__(self):
        fields = {"uuid": self.call_id, "to": CALLED[1:], "from": "15550109999"}
        self.body = json.dumps(fields).encode()

    def request(self, now, **claims):
        body = self.body
        digest = hashlib.sha256(body).hexdigest()
        claims = {"iat": int(now), "iss": "Vonage", "payload_hash": digest} | claims
        token = jwt.encode(claims, self.secret, "HS256")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return "POST", "/wire/vonage", headers, body

    def address(self, text):
        (action,) = json.loads(text)
        (endpoint,) = action["endpoint"]
        assert (action["action"], endpoint["type"]) == ("connect", "websocket")
        assert endpoint["content-type"] == "audio/l16;rate=8000"
        return endpoint["uri"]

    def begin(self):
        return [{"event": "websocket:connected", "content-type": "audio/l16;rate=8000"}]

    def sound(self, pcm):
        return pcm.tobytes()

    def digit(self, digit):
        return {"event": "websocket:dtmf", "digit": digit, "duration": 260}

    def returned(self, name):
        return {"event": "websocket:notify", "payload": {"mark": name}}

    def heard(self, message):
        if isinstance(message, bytes):
            assert len(message) == 320
            return "sound", np.frombuffer(message, np.int16)
        message = json.loads(message)
        kinds = {"notify": "mark", "clear": "clear"}
        return kinds[message["action"]], message.get("payload", {}).get("mark")


class Exotel(FarEnd):
    name = "exotel"
    secret = "a-key-of-our-own"
    packet = 800

    def request(self, now):
        query = f"?CallSid={self.call_id}&CallFrom=0155501099&CallTo={CALLED[1:]}"
        return "GET", f"/wire/exotel/{self.secret}{query}", {}, None

    def address(self, text):
        return json.loads(text)["url"]

    def begin(self):
        form = {"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"}
        start = {
            "stream_sid": "S1",
            "call_sid": self.call_id,
            "account_sid": "A1",
            "media_format": form,
        }
        return [
            {"event": "connected"},
            {"event": "start", "sequence_number": "1", "stream_sid": "S1", "start": start},
        ]

    def sound(self, pcm):
        media = {"chunk": "2", "timestamp": "200", "payload": text64(pcm.tobytes())}
        return {"event": "media", "stream_sid": "S1", "media": media}

    def digit(self, digit):
        return {"event": "dtmf", "stream_sid": "S1", "dtmf": {"digit": digit, "duration": "100"}}

    def returned(self, name):
        return {"event": "mark", "stream_sid": "S1", "mark": {"name": name}}

    def end(self):
        stop = {"call_sid": self.call_id, "account_sid": "A1", "reason": "callended"}
        return {"event": "stop", "stream_sid": "S1", "stop": stop}

    def heard(self, message):
        message = json.loads(message)
        assert message["stream_sid"] == "S1"
        if message["event"] == "media":
            payload = base64.b64decode(message["media"]["payload"])
            assert len(payload) % 320 == 0
            return "sound", np.frombuffer(payload, np.int16)
        return message["event"], message.get("mark", {}).get("name")
