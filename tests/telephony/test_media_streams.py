"""The wire of Media Streams: what is written is read, and every mistake is named."""

import base64
import json

import pytest

from telephony.media_streams import (
    Clear,
    Connected,
    Dtmf,
    FromTwilio,
    Mark,
    MarkReturned,
    Media,
    Play,
    ProtocolError,
    Start,
    Stop,
    StreamState,
    ToTwilio,
)

SID = "MZ18ad3ab5a668481ce02b83e7395059f0"
START = Start(SID, "CA1", "AC1", parameters={"token": "t"}, sequence=1)
MEDIA = Media(SID, bytes(range(160)), timestamp=20, chunk=1, sequence=2)
DTMF = Dtmf(SID, "#", sequence=3)
MARK = MarkReturned(SID, "m1", sequence=4)
STOP = Stop(SID, "AC1", "CA1", sequence=5)


def stream(*events):
    reads = FromTwilio()
    for event in events:
        reads.receive(event.to_json())
    return reads


def changed(event, path, value):
    """An event's message with one field set, or taken out (...)."""
    message = json.loads(event.to_json())
    *parents, last = path.split(".")
    inner = message
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(message)


def test_a_whole_call_is_read_as_it_was_written():
    reads = FromTwilio()
    call = [Connected(), START, MEDIA, DTMF, MARK, STOP]
    assert [reads.receive(event.to_json()) for event in call] == call
    assert reads.state is StreamState.STOPPED


def test_what_a_server_sends_is_read_as_it_was_written():
    reads = ToTwilio(SID)
    events = [Play(SID, b"\xff" * 7), Mark(SID, "m1"), Clear(SID)]
    assert [reads.receive(event.to_json()) for event in events] == events


def test_a_message_as_twilio_documents_it_is_read():
    # From the reference: numbers are texts, and there are fields we do not use.
    reads = stream(Connected())
    event = reads.receive(
        json.dumps(
            {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": "AC1",
                    "streamSid": SID,
                    "callSid": "CA1",
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": {"FirstName": "Jane"},
                    "future": True,
                },
                "streamSid": SID,
            }
        )
    )
    assert event == Start(SID, "CA1", "AC1", {"FirstName": "Jane"})


@pytest.mark.parametrize(
    ("before", "event", "reason"),
    [
        ([], START, "start before connected"),
        ([], MEDIA, "media before start"),
        ([], STOP, "stop before start"),
        ([Connected()], MEDIA, "media before start"),
        ([Connected()], DTMF, "dtmf before start"),
        ([Connected()], Connected(), "a second connected"),
        ([Connected(), START], Connected(), "a second connected"),
        ([Connected(), START], START, "a second start"),
        ([Connected(), START, STOP], MEDIA, "media after stop"),
        ([Connected(), START, STOP], START, "start after stop"),
    ],
)
def test_an_event_out_of_order_is_refused(before, event, reason):
    reads = stream(*before)
    with pytest.raises(ProtocolError, match=f"^{reason}$") as error:
        reads.receive(event.to_json())
    assert error.value.code == 1002


def test_an_event_of_a_new_kind_is_ignored_in_every_state():
    for events in ([], [Connected()], [Connected(), START], [Connected(), START, STOP]):
        reads = stream(*events)
        state = reads.state
        assert reads.receive('{"event":"weather","streamSid":"MZ1"}') is None
        assert reads.state is state


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("garbage", 1007, "a message that is not JSON"),
        ("", 1007, "a message that is not JSON"),
        ("[" * 100_000, 1007, "a message that is not JSON"),
        ("[]", 1007, "a message that is not a JSON object"),
        ("{}", 1007, "event: expected a text"),
        ('{"event":7}', 1007, "event: expected a text"),
        (b"\x00\x01", 1003, "a binary message"),
    ],
)
@pytest.mark.parametrize("reads", [stream(Connected(), START), ToTwilio(SID)])
def test_garbage_is_refused_with_what_was_expected(reads, message, code, reason):
    with pytest.raises(ProtocolError, match=reason) as error:
        reads.receive(message)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("not base64!", "base64 text"),
        ("AAA", "base64 text"),
        ("ÿÿÿÿ", "base64 text"),
        (5, "base64 text"),
        (..., "base64 text"),
        ("", "whole frames of 160 bytes, at most 8000, got 0 bytes"),
        (base64.b64encode(bytes(159)).decode(), "whole frames of 160 bytes.*, got 159 bytes"),
        (base64.b64encode(bytes(161)).decode(), "whole frames of 160 bytes.*, got 161 bytes"),
        (base64.b64encode(bytes(8160)).decode(), "whole frames of 160 bytes.*, got 8160 bytes"),
    ],
)
def test_a_payload_that_is_not_base64_or_not_whole_frames_is_refused(payload, expected):
    reads = stream(Connected(), START)
    with pytest.raises(ProtocolError, match=f"^media.payload: expected {expected}") as error:
        reads.receive(changed(MEDIA, "media.payload", payload))
    assert error.value.code == 1007


def test_several_frames_in_one_message_are_taken():
    reads = stream(Connected(), START)
    event = reads.receive(Media(SID, bytes(480), 60, 3, 2).to_json())
    assert len(event.payload) == 480


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoding", "audio/x-alaw"), ("sampleRate", 16000), ("channels", 2)],
)
def test_another_audio_format_is_refused(field, value):
    reads = stream(Connected())
    message = changed(START, f"start.mediaFormat.{field}", value)
    with pytest.raises(ProtocolError, match="expected audio/x-mulaw at 8000 Hz in 1") as error:
        reads.receive(message)
    assert error.value.code == 1003


@pytest.mark.parametrize(
    ("event", "path", "value", "reason"),
    [
        (MEDIA, "sequenceNumber", "one", "sequenceNumber: expected a whole number"),
        (MEDIA, "sequenceNumber", "9" * 5000, "sequenceNumber: expected a whole number"),
        (MEDIA, "sequenceNumber", True, "sequenceNumber: expected a whole number"),
        (MEDIA, "media", "sound", "media: expected an object"),
        (MEDIA, "media.timestamp", -1, "media.timestamp: expected a whole number"),
        (MEDIA, "media.chunk", ..., "media.chunk: expected a whole number"),
        (MEDIA, "media.track", "outbound", "media.track: expected inbound"),
        (MEDIA, "streamSid", ..., "streamSid: expected a text"),
        (DTMF, "dtmf.digit", "x", "dtmf.digit: expected one of"),
        (DTMF, "dtmf.digit", "12", "dtmf.digit: expected one of"),
        (MARK, "mark.name", "", "mark.name: expected a text"),
        (STOP, "stop.callSid", None, "stop.callSid: expected a text"),
    ],
)
def test_a_wrong_field_is_named(event, path, value, reason):
    reads = stream(Connected(), START)
    with pytest.raises(ProtocolError, match=f"^{reason}"):
        reads.receive(changed(event, path, value))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("start.tracks", "inbound", "start.tracks: expected a list of texts"),
        ("start.customParameters", {"a": 1}, "start.customParameters: expected an object of texts"),
        ("start.callSid", ..., "start.callSid: expected a text"),
    ],
)
def test_a_wrong_field_of_start_is_named(path, value, reason):
    with pytest.raises(ProtocolError, match=f"^{reason}"):
        stream(Connected()).receive(changed(START, path, value))


@pytest.mark.parametrize("event", [MEDIA, DTMF, MARK, STOP])
def test_an_event_of_another_stream_is_refused(event):
    reads = stream(Connected(), START)
    with pytest.raises(ProtocolError, match="streamSid is not that of the start event"):
        reads.receive(changed(event, "streamSid", "MZ2"))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Clear("MZ2").to_json(), "streamSid is not that"),
        (Play(SID, b"").to_json(), "media.payload: empty"),
        (START.to_json(), "event: expected media, mark or clear"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_refused(message, reason):
    with pytest.raises(ProtocolError, match=reason):
        ToTwilio(SID).receive(message)


def test_a_reason_fits_a_close_frame_and_tells_nothing_of_the_caller():
    error = ProtocolError(1007, "ü" * 200)
    assert len(error.reason.encode()) <= 123
    with pytest.raises(ProtocolError) as refused:
        stream(Connected(), START).receive(changed(DTMF, "dtmf.digit", "4711"))
    assert "4711" not in refused.value.reason
    assert "4711" not in repr(Dtmf(SID, "4711", 1))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"chunk":"1"', '"chunk":"-1"'),
        ('"sequenceNumber":"2"', '"sequenceNumber":"' + "2" * 20 + '"'),
        ('"track":"inbound"', '"track":"outbound"'),
        ('"payload":"AAEC', '"payload":"A*EC'),
        ('"payload":"AAEC', '"payload":"'),
        (SID, "MZ2"),
    ],
)
def test_sound_in_twilios_own_spelling_is_refused_for_the_same_mistakes(right, wrong):
    compact = MEDIA.to_json()
    assert compact.count(right) == 1
    broken = compact.replace(right, wrong)
    spaced = json.dumps(json.loads(broken))
    errors = []
    for message in (broken, spaced):
        with pytest.raises(ProtocolError) as caught:
            stream(Connected(), START).receive(message)
        errors.append((caught.value.code, caught.value.reason))
    assert errors[0] == errors[1]


def test_sound_is_read_the_same_however_it_is_spelt():
    spaced = json.dumps(json.loads(MEDIA.to_json()))
    assert stream(Connected(), START).receive(spaced) == MEDIA
