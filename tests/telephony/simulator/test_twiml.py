"""What this Twilio makes of TwiML."""

import pytest
from twilio.twiml.voice_response import Dial as BuildDial
from twilio.twiml.voice_response import VoiceResponse

from telephony.simulator.twiml import TwiMLError, parse_twiml
from telephony.simulator.verbs import (
    Callback,
    Conference,
    Dial,
    Hangup,
    Number,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    Stream,
)


def test_a_stream_is_read_with_its_parameters():
    (stream,) = parse_twiml(
        "<?xml version='1.0' encoding='UTF-8'?><Response><Connect>"
        "<Stream url='wss://a.example/media' name='n' statusCallback='https://a.example/s'>"
        "<Parameter name='a' value='1'/></Stream></Connect></Response>"
    )

    told = Callback("https://a.example/s")
    assert stream == Stream("wss://a.example/media", {"a": "1"}, "n", told)


def test_verbs_come_in_order():
    verbs = parse_twiml(
        "<Response><Say> We are \n <break/> closed.</Say><Pause length='2'/><Reject reason='busy'/>"
        "<Hangup/></Response>"
    )

    assert verbs == [Say("We are closed."), Pause(2.0), Reject("busy"), Hangup()]


def test_what_twilios_library_writes_is_read():
    response = VoiceResponse()
    response.say("Hold on.", voice="Polly.Joanna", language="en-US", loop=2)
    response.play("hold.wav", loop=0)
    response.play("", digits="1w2")
    dial = BuildDial(action="/after", method="GET", timeout=12, caller_id="+15550100009")
    dial.number(
        "+15550100003",
        send_digits="99",
        status_callback="/leg",
        status_callback_event="ringing answered",
    )
    response.append(dial)
    room = BuildDial()
    room.conference("room 1", end_conference_on_exit=True, muted=True, status_callback="/room")
    response.append(room)
    response.dial("555-010-0004", record="record-from-answer-dual")
    response.record(action="/recorded", timeout=3, max_length=60, finish_on_key="#", play_beep=True)
    response.redirect("/next", method="GET")

    assert parse_twiml(str(response)) == [
        Say("Hold on.", 2),
        Play("hold.wav", None, 0),
        Play(None, "1w2"),
        Dial(
            numbers=(
                Number("+15550100003", "99", Callback("/leg", "POST", ("ringing", "answered"))),
            ),
            action=Callback("/after", "GET"),
            timeout=12,
            caller_id="+15550100009",
        ),
        Dial(
            conference=Conference(
                "room 1", end_on_exit=True, muted=True, status_callback=Callback("/room")
            )
        ),
        Dial(numbers=(Number("555-010-0004"),), record="record-from-answer-dual"),
        Record(Callback("/recorded"), 3, 60, "#"),
        Redirect("/next", "GET"),
    ]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("<Reply/>", 12102),
        ("<Response><Say voise='x'>Hello.</Say></Response>", 12200),
        ("<Response><Stream url='wss://a/m'/></Response>", 12200),
        ("<Response><Say/></Response>", 13520),
        ("<Response><Play loop='-1'>a.wav</Play></Response>", 13410),
        ("<Response><Play/></Response>", 12200),
        ("<Response><Dial/></Response>", 13215),
        ("<Response><Dial><Sip>sip:a@b.example</Sip></Dial></Response>", 13215),
        ("<Response><Dial>reception</Dial></Response>", 13223),
        ("<Response><Dial timeout='soon'>+15550100003</Dial></Response>", 13212),
        ("<Response><Dial><Conference muted='1'>a</Conference></Dial></Response>", 13230),
        ("<Response><Record maxLength='x'/></Response>", 13612),
        ("<Response><Redirect method='PUT'>/a</Redirect></Response>", 13710),
        ("<Response><Pause length='x'/></Response>", 13910),
    ],
)
def test_what_is_wrong_has_twilios_code(document, code):
    with pytest.raises(TwiMLError) as caught:
        parse_twiml(document)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("not xml", "not well-formed"),
        ("<Reply/>", "<Response>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", "document type"),
        ("<Response><Connect/></Response>", "exactly one <Stream>"),
        ("<Response><Connect><Stream/></Connect></Response>", "wss://"),
        ("<Response><Connect><Stream url='wss://a/m?q=1'/></Connect></Response>", "query string"),
        (
            "<Response><Connect><Stream url='wss://a/m'><Parameter name='a'/></Stream></Connect>"
            "</Response>",
            "<Parameter name value>",
        ),
        ("<Response><Pause length='-1'/></Response>", "length"),
        ("<Response><Gather/></Response>", "<Gather>"),
    ],
)
def test_what_is_wrong_is_named(document, complaint):
    with pytest.raises(TwiMLError, match=complaint):
        parse_twiml(document)
