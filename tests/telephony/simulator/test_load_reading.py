"""What is read without JSON is what JSON would have been read as."""

import base64
import json

import pytest

from telephony.media_streams import Clear, Mark, Play, ProtocolError, ToTwilio
from telephony.simulator import load_reading
from telephony.simulator.load_reading import ServerReader


def media(payload, spaces=True, **more):
    message = {"event": "media", "streamSid": "MZ1", "media": {"payload": payload}, **more}
    separators = None if spaces else (",", ":")
    return json.dumps(message, separators=separators, ensure_ascii=False).encode()


def sound(number, length=160):
    return bytes((number + i) % 256 for i in range(length))


def encoded(sound):
    return base64.b64encode(sound).decode()


def outcome(read, message):
    try:
        return read(message)
    except ProtocolError as error:
        return error.code, error.reason


def as_json(message):
    event = ToTwilio("MZ1").receive(message.decode())
    return event.payload if isinstance(event, Play) else event


@pytest.mark.parametrize("spaces", [True, False])
def test_messages_like_one_that_was_understood_are_read_without_json(spaces, monkeypatch):
    reader = ServerReader("MZ1")
    assert reader.read(media(encoded(sound(1)), spaces, name="Zoë")) == sound(1)
    monkeypatch.delattr(load_reading.ToTwilio, "receive")
    for number, length in ((2, 160), (3, 159), (4, 161), (5, 3200), (6, 1)):
        message = media(encoded(sound(number, length)), spaces, name="Zoë")
        assert reader.read(message) == sound(number, length)


@pytest.mark.parametrize(
    "message",
    [
        media(""),
        media("AAA"),
        media("AAAA===="),
        media("AA=A"),
        media("AA!AAA=="),
        media("AAAA\nAAAA"),
        media('AAAA"AAAA'),
        media("AAAA").replace(b"AAAA", b'AAAA", "track": "x'),
        media("AAAA").replace(b"AAAA", b'AAAA", "payload": "BBBB'),
        media("AAAA").replace(b"AAAA", b"AAAA\\/AA"),
        media("AAAA").replace(b"AAAA", "AAÄA".encode()),
        media("AAAA", track="outbound"),
        media("AAAA").replace(b"MZ1", b"MZ2"),
        media("AAAA")[:-1],
        media("AAAA")[:-4],
        media("AAAA") + b"}",
        media(None),
        json.dumps({"event": "clear", "streamSid": "MZ1"}).encode(),
        json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": "a"}}).encode(),
        json.dumps({"event": "media", "streamSid": "MZ1"}).encode(),
        b"[]",
        b"",
    ],
)
def test_whatever_differs_is_judged_as_json_before_and_after(message):
    reader = ServerReader("MZ1")
    expected = outcome(as_json, message)
    for before in (b"", media(encoded(sound(1))), media(encoded(sound(2)))):
        if before:
            reader.read(before)
        assert outcome(reader.read, message) == expected


def test_marks_and_clears_are_told_from_sound():
    reader = ServerReader("MZ1")
    mark = {"event": "mark", "streamSid": "MZ1", "mark": {"name": "a"}}
    assert reader.read(json.dumps(mark).encode()) == Mark("MZ1", "a")
    assert reader.read(b'{"event": "clear", "streamSid": "MZ1"}') == Clear("MZ1")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        # The payload is there twice: which of them is it?
        ('{"x":"AAAA","media":{"payload":"AAAA"}', '{"x":"BBBB","media":{"payload":"AAAA"}'),
        # The payload is there once, but written with an escape; what looks like it is another.
        ('{"x":"AA/A","media":{"payload":"AA\\/A"}', '{"x":"BBBB","media":{"payload":"AA\\/A"}'),
        # Other bytes, the same sound.
        ('{"x":"AAA=","media":{"payload":"AAB="}', '{"x":"BBB=","media":{"payload":"AAB="}'),
    ],
)
def test_another_text_is_not_taken_for_the_payload(first, then):
    reader = ServerReader("MZ1")
    for text in (first, then):
        message = f'{text},"event":"media","streamSid":"MZ1"}}'.encode()
        assert reader.read(message) == as_json(message)
