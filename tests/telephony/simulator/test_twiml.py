"""What this Twilio makes of TwiML."""

import pytest

from telephony.simulator.twiml import Hangup, Pause, Reject, Say, Stream, TwiMLError, parse_twiml


def test_a_stream_is_read_with_its_parameters():
    (stream,) = parse_twiml(
        "<?xml version='1.0' encoding='UTF-8'?><Response><Connect>"
        "<Stream url='wss://a.example/media' name='n' statusCallback='https://a.example/s'>"
        "<Parameter name='a' value='1'/></Stream></Connect></Response>"
    )

    assert stream == Stream("wss://a.example/media", {"a": "1"}, "n", "https://a.example/s")


def test_verbs_come_in_order():
    verbs = parse_twiml(
        "<Response><Say> We are \n <break/> closed.</Say><Pause length='2'/><Reject reason='busy'/>"
        "<Hangup/></Response>"
    )

    assert verbs == [Say("We are closed."), Pause(2.0), Reject("busy"), Hangup()]


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
