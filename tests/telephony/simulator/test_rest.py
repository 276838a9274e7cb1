"""Calls that the agent makes and steers, with Twilio's own client, in virtual time."""

import base64
import json

import aiohttp
import numpy as np
import pytest
import soundfile
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from telephony.simulator.callee import Callee
from telephony.simulator.live_call import Document
from telephony.simulator.loopback import running_twilio
from telephony.simulator.openapi import Description
from telephony.simulator.trace import Cause

AGENT, OTHER = "+15550100002", "+15550100003"
PUBLIC = "https://phone.example"
# Twilio's client has not moved on yet.
pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning"),
]
STREAM = "<Response><Connect><Stream url='wss://phone.example/media'/></Connect></Response>"


@pytest.fixture
async def twilio(agent, outside, clock):
    async with running_twilio(agent.target, clock=clock) as running:
        yield running
    assert agent.forged == outside.forged == []


@pytest.fixture
async def client(twilio):
    """Twilio's client, and every answer held against Twilio's description."""
    wrong = []

    class Checked(AsyncTwilioHttpClient):
        async def request(self, method, url, *args, **kwargs):
            response = await super().request(method, url, *args, **kwargs)
            description = Description.shipped()
            operation = description.operation(
                method, url.removeprefix(twilio.url).partition("?")[0]
            )
            if operation is not None and response.status_code < 400:
                body = json.loads(response.text) if response.text else None
                wrong.extend(description.response_problems(operation, response.status_code, body))
            return response

    target = twilio.twilio.target
    client = Client(target.account_sid, target.auth_token, http_client=Checked())
    client.api.base_url = twilio.url
    yield client
    await client.http_client.close()
    assert wrong == []


@pytest.fixture
async def ask(twilio):
    """Sends a request that Twilio's client would not send; its status, and its content."""

    async def send(method, path, form=None, password=None):
        target = twilio.twilio.target
        credentials = f"{target.account_sid}:{password or target.auth_token}".encode()
        headers = {"Authorization": "Basic " + base64.b64encode(credentials).decode()}
        url = f"{twilio.url}/2010-04-01/Accounts/{target.account_sid}{path}"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, url, data=form) as response,
        ):
            return response.status, response.content_type, await response.read()

    return send


async def until(clock, condition):
    """Let time pass until something holds."""
    for _ in range(2000):
        if condition():
            return
        await clock.sleep(0.02)
    raise AssertionError("it never came to that")


async def test_a_call_that_is_made_rings_is_answered_and_talks(agent, outside, twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=3000, stays_ms=5000)
    outside.documents["/outgoing"] = STREAM

    made = await client.calls.create_async(
        to=OTHER,
        from_=AGENT,
        url=f"{PUBLIC}/outgoing",
        status_callback=f"{PUBLIC}/progress",
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    assert made.status == "queued"
    call = await twilio.twilio.ended(made.sid)

    assert call.cause is Cause.CALLER_HUNG_UP
    assert call.stream.position == 5 * 8000
    assert outside.of("/outgoing")[0]["Direction"] == "outbound-api"
    told = sorted(outside.of("/progress"), key=lambda form: int(form["SequenceNumber"]))
    assert [form["CallStatus"] for form in told] == [
        "initiated",
        "ringing",
        "in-progress",
        "completed",
    ]
    assert told[-1]["CallDuration"] == "5"
    fetched = await client.calls(made.sid).fetch_async()
    assert (fetched.status, fetched.duration, fetched.direction) == (
        "completed",
        "5",
        "outbound-api",
    )
    assert twilio.api.faults == []
    assert twilio.api.asked == ["CreateCall", "FetchCall"]


@pytest.mark.parametrize(
    ("callee", "status", "seconds"),
    [
        (Callee(outcome="busy", ring_ms=1000), "busy", 1),
        (Callee(outcome="failed", ring_ms=0), "failed", 0),
        (Callee(outcome="no-answer"), "no-answer", 20),
        (Callee(ring_ms=21_000), "no-answer", 20),
    ],
)
async def test_a_call_that_nobody_answers_tells_so(
    outside, twilio, client, callee, status, seconds
):
    twilio.twilio.callees[OTHER] = callee

    made = await client.calls.create_async(
        to=OTHER,
        from_=AGENT,
        url=f"{PUBLIC}/outgoing",
        timeout=20,
        status_callback=f"{PUBLIC}/progress",
    )
    call = await twilio.twilio.ended(made.sid)

    assert (call.status, call.cause) == (status, Cause.NOT_ANSWERED)
    assert call.ended_at - call.dialled_at == pytest.approx(seconds, abs=0.1)
    assert [form["CallStatus"] for form in outside.of("/progress")] == [status]
    assert outside.of("/outgoing") == []


async def test_a_ringing_call_can_be_cancelled(twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=60_000)
    made = await client.calls.create_async(to=OTHER, from_=AGENT, twiml=STREAM)
    await until(twilio.twilio.clock, lambda: twilio.twilio.calls[made.sid].status == "ringing")

    await client.calls(made.sid).update_async(status="canceled")

    assert (await twilio.twilio.ended(made.sid)).status == "canceled"


@pytest.mark.parametrize(
    ("mode", "found", "told"),
    [
        ("Enable", "human", "human"),
        ("Enable", "machine_end_beep", "machine_start"),
        ("DetectMessageEnd", "machine_end_beep", "machine_end_beep"),
        ("DetectMessageEnd", "machine_start", "machine_end_other"),
        ("Enable", "fax", "fax"),
        ("Enable", "unknown", "unknown"),
    ],
)
async def test_machine_detection_comes_before_the_webhook(
    outside, twilio, client, mode, found, told
):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, answered_by=found, detection_ms=4000)

    made = await client.calls.create_async(
        to=OTHER, from_=AGENT, url=f"{PUBLIC}/outgoing", machine_detection=mode
    )
    call = await twilio.twilio.ended(made.sid)

    (form,) = outside.of("/outgoing")
    assert form["AnsweredBy"] == call.answered_by == told
    assert form["MachineDetectionDuration"] == "4000"
    assert call.ended_at - call.answered_at == pytest.approx(4, abs=0.1)


async def test_asynchronous_detection_tells_its_outcome_during_the_call(outside, twilio, client):
    twilio.twilio.callees[OTHER] = Callee(
        ring_ms=0, answered_by="machine_end_beep", detection_ms=2000, stays_ms=5000
    )
    outside.documents["/outgoing"] = STREAM

    made = await client.calls.create_async(
        to=OTHER,
        from_=AGENT,
        url=f"{PUBLIC}/outgoing",
        machine_detection="DetectMessageEnd",
        async_amd="true",
        async_amd_status_callback=f"{PUBLIC}/detected",
    )
    call = await twilio.twilio.ended(made.sid)

    assert "AnsweredBy" not in outside.of("/outgoing")[0]
    (form,) = outside.of("/detected")
    assert (form["AnsweredBy"], form["CallSid"]) == ("machine_end_beep", made.sid)
    assert call.stream.position == 5 * 8000
    assert (await client.calls(made.sid).fetch_async()).answered_by == "machine_end_beep"


async def test_detection_without_anybody_to_tell_is_logged(twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, detection_ms=1000, stays_ms=3000)

    made = await client.calls.create_async(
        to=OTHER, from_=AGENT, twiml=STREAM, machine_detection="Enable", async_amd="true"
    )
    call = await twilio.twilio.ended(made.sid)

    assert [error.code for error in call.errors] == [21262]


async def test_detection_that_takes_too_long_is_unknown(outside, twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, detection_ms=9000)

    made = await client.calls.create_async(
        to=OTHER,
        from_=AGENT,
        url=f"{PUBLIC}/outgoing",
        machine_detection="Enable",
        machine_detection_timeout=5,
    )
    await twilio.twilio.ended(made.sid)

    assert outside.of("/outgoing")[0]["AnsweredBy"] == "unknown"


@pytest.fixture
async def running(agent, twilio, client):
    """A call with a media stream that goes on until something ends it."""
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, stays_ms=600_000)
    made = await client.calls.create_async(to=OTHER, from_=AGENT, twiml=STREAM)
    await until(twilio.twilio.clock, lambda: agent.lines and len(agent.lines[0].frames) > 20)
    return client.calls(made.sid)


async def test_a_call_that_is_redirected_leaves_its_stream_for_the_new_document(
    agent, outside, twilio, running
):
    outside.documents["/transfer"] = f"<Response><Dial>{AGENT}</Dial></Response>"

    updated = await running.update_async(url=f"{PUBLIC}/transfer")
    assert updated.status == "in-progress"
    call = await twilio.twilio.ended(updated.sid)

    assert agent.lines[0].stopped
    assert call.dials[0].outcome == "completed"
    assert call.cause is Cause.TRANSFERRED
    assert outside.of("/transfer")[0]["CallStatus"] == "in-progress"


async def test_new_twiml_may_open_a_new_stream(agent, twilio, running, clock):
    updated = await running.update_async(twiml=STREAM)
    await until(clock, lambda: len(agent.lines) == 2 and len(agent.lines[1].frames) > 20)
    await running.update_async(status="completed")
    call = await twilio.twilio.ended(updated.sid)

    assert [line.stopped for line in agent.lines] == [True, True]
    assert call.cause is Cause.AGENT_HUNG_UP
    assert len(call.stream.segments) == 2


async def test_a_call_that_is_completed_ends_at_once(agent, twilio, running):
    updated = await running.update_async(status="completed")
    call = await twilio.twilio.ended(updated.sid)

    assert (call.status, call.cause) == ("completed", Cause.AGENT_HUNG_UP)
    assert agent.lines[0].stopped


async def test_a_steered_call_interrupts_whatever_it_does(twilio, client, clock):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0)
    made = await client.calls.create_async(
        to=OTHER, from_=AGENT, twiml="<Response><Pause length='3600'/></Response>"
    )
    await until(clock, lambda: twilio.twilio.calls[made.sid].status == "in-progress")

    await client.calls(made.sid).update_async(twiml="<Response><Say>Now.</Say></Response>")
    call = await twilio.twilio.ended(made.sid)

    assert call.said == ["Now."]
    assert call.ended_at - call.dialled_at < 600


async def test_an_instruction_that_comes_while_a_document_is_fetched_is_not_lost(
    outside, twilio, client
):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0)
    calls = twilio.twilio.calls

    def during(form):
        calls[form["CallSid"]].steer(Document("<Response><Say>Instead.</Say></Response>"))
        return "<Response/>"

    outside.documents["/outgoing"] = during

    made = await client.calls.create_async(to=OTHER, from_=AGENT, url=f"{PUBLIC}/outgoing")
    call = await twilio.twilio.ended(made.sid)

    assert call.said == ["Instead."]


async def test_a_time_limit_ends_the_call_and_can_be_changed(twilio, running):
    updated = await running.update_async(time_limit=30)
    call = await twilio.twilio.ended(updated.sid)

    assert call.cause is Cause.TIME_LIMIT
    assert call.ended_at - call.answered_at == pytest.approx(30, abs=0.1)


async def test_keys_are_sent_before_anything_else(twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0)

    made = await client.calls.create_async(
        to=OTHER, from_=AGENT, twiml="<Response/>", send_digits="ww1234#"
    )
    call = await twilio.twilio.ended(made.sid)

    assert [sent.digits for sent in call.digits] == ["ww1234#"]
    assert call.ended_at - call.answered_at == pytest.approx(2.0, abs=0.05)


async def test_a_recording_is_started_paused_stopped_fetched_and_deleted(
    agent, outside, twilio, client, running, ask, clock, tmp_path
):
    call = twilio.twilio.calls[running._solution["sid"]].trace
    started = await running.recordings.create_async(
        recording_channels="dual",
        recording_status_callback=f"{PUBLIC}/stored",
        recording_status_callback_event=["in-progress", "completed"],
    )
    assert started.status == "in-progress"

    async def pass_seconds(seconds):
        position = call.stream.position
        await until(clock, lambda: call.stream.position >= position + seconds * 8000)

    await agent.lines[0].say(20.0)
    await pass_seconds(2)
    current = running.recordings("Twilio.CURRENT")
    assert (await current.update_async(status="paused", pause_behavior="skip")).status == "paused"
    await pass_seconds(5)
    assert (await current.update_async(status="in-progress")).sid == started.sid
    await pass_seconds(1)
    stopped = await running.recordings(started.sid).update_async(status="stopped")
    assert stopped.status == "stopped"
    fetched = await client.recordings(started.sid).fetch_async()

    assert fetched.status == "completed"
    assert 2.5 < float(call.recordings[0].seconds) < 5
    await until(clock, lambda: len(outside.of("/stored")) == 2)
    assert [form["RecordingStatus"] for form in outside.of("/stored")] == [
        "in-progress",
        "completed",
    ]
    place = outside.of("/stored")[1]["RecordingUrl"].partition(client.account_sid)[2]
    _, kind, content = await ask("GET", f"{place}.wav")
    assert kind == "audio/x-wav"
    assert (await ask("GET", f"{place}.mp3"))[1] == "audio/mpeg"
    (tmp_path / "a.wav").write_bytes(content)
    audio, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert (rate, audio.shape[1]) == (8000, 2)
    assert np.abs(audio[:, 1].astype(int)).mean() > 1000
    assert not audio[:, 0].any()

    assert [r.sid for r in await running.recordings.list_async()] == [started.sid]
    assert [r.sid for r in await client.recordings.list_async()] == [started.sid]
    await running.recordings(started.sid).delete_async()
    with pytest.raises(TwilioRestException) as caught:
        await client.recordings(started.sid).fetch_async()
    assert (caught.value.status, caught.value.code) == (404, 20404)
    assert twilio.api.faults == []


async def test_a_call_may_be_recorded_from_the_start(twilio, client):
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, stays_ms=3000)

    made = await client.calls.create_async(to=OTHER, from_=AGENT, twiml=STREAM, record=True)
    call = await twilio.twilio.ended(made.sid)

    (recording,) = call.recordings
    assert recording.source == "OutboundAPI"
    assert recording.seconds == pytest.approx(3, abs=0.1)


async def test_calls_are_listed_by_page_and_by_what_they_are(twilio, client):
    twilio.twilio.everybody_else = Callee(outcome="busy", ring_ms=0)
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0, stays_ms=0)
    numbers = [OTHER, "+15550100004", "+15550100005"]
    made = [
        await client.calls.create_async(to=to, from_=AGENT, twiml="<Response/>") for to in numbers
    ]
    for call in made:
        await twilio.twilio.ended(call.sid)

    newest_first = [call.sid for call in reversed(made)]
    assert [c.sid for c in await client.calls.list_async(page_size=2)] == newest_first
    assert [c.sid for c in await client.calls.list_async(status="busy")] == newest_first[:2]
    assert [c.sid for c in await client.calls.list_async(to=OTHER)] == newest_first[2:]
    await client.calls(made[0].sid).delete_async()
    assert [c.sid for c in await client.calls.list_async()] == newest_first[:2]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"From": AGENT, "Url": PUBLIC}, 21201),
        ({"To": OTHER, "Url": PUBLIC}, 21213),
        ({"To": "tomorrow", "From": AGENT, "Url": PUBLIC}, 21211),
        ({"To": OTHER, "From": "me", "Url": PUBLIC}, 21212),
        ({"To": OTHER, "From": AGENT}, 21205),
        ({"To": OTHER, "From": AGENT, "Url": "/outgoing"}, 21205),
        ({"To": OTHER, "From": AGENT, "Url": PUBLIC, "Method": "PUT"}, 21209),
        ({"To": OTHER, "From": AGENT, "Url": PUBLIC, "SendDigits": "x"}, 21206),
        ({"To": OTHER, "From": AGENT, "Url": PUBLIC, "Timeout": "soon"}, 21208),
        ({"To": OTHER, "From": AGENT, "Url": PUBLIC, "StatusCallback": "x"}, 21609),
        ({"To": OTHER, "From": AGENT, "Url": PUBLIC, "MachineDetection": "on"}, 20001),
    ],
)
async def test_a_call_that_twilio_would_refuse_is_refused_with_its_code(twilio, ask, fields, code):
    status, _, content = await ask("POST", "/Calls.json", fields)

    body = json.loads(content)
    assert (status, body["code"], body["status"]) == (400, code, 400)
    assert str(code) in body["more_info"]
    assert twilio.twilio.calls == {}


async def test_an_unknown_parameter_is_a_fault_that_twilio_would_have_ignored(twilio, ask):
    fields = {"To": OTHER, "From": AGENT, "Url": PUBLIC, "StatusCallbackEvents": "answered"}

    status, _, _ = await ask("POST", "/Calls.json", fields)

    assert status == 201
    assert twilio.api.faults == ["CreateCall: StatusCallbackEvents: no such parameter"]


@pytest.mark.parametrize(
    ("method", "path", "password", "status", "code"),
    [
        ("GET", "/Calls/CA" + "0" * 32 + ".json", None, 404, 20404),
        ("GET", "/Calls/somebody.json", None, 404, 20404),
        ("GET", "/Recordings/RE" + "0" * 32 + ".wav", None, 404, 20404),
        ("GET", "/Messages.json", None, 404, 20404),
        ("PUT", "/Calls.json", None, 405, 20004),
        ("GET", "/Calls.json", "guessed", 401, 20003),
    ],
)
async def test_what_is_not_there_or_not_allowed_has_twilios_answer(
    ask, method, path, password, status, code
):
    answered, _, content = await ask(method, path, password=password)

    assert (answered, json.loads(content)["code"]) == (status, code)


async def test_a_call_that_is_over_cannot_be_redirected(twilio, client):
    twilio.twilio.callees[OTHER] = Callee(outcome="busy", ring_ms=0)
    made = await client.calls.create_async(to=OTHER, from_=AGENT, twiml=STREAM)
    await twilio.twilio.ended(made.sid)

    with pytest.raises(TwilioRestException) as caught:
        await client.calls(made.sid).update_async(twiml=STREAM)
    assert (caught.value.status, caught.value.code) == (400, 21220)
    assert (await client.calls(made.sid).update_async(status="completed")).status == "busy"


async def test_a_fallback_is_asked_when_the_webhook_fails(outside, twilio, client):
    outside.status["/outgoing"] = 500
    outside.documents["/instead"] = "<Response><Say>Sorry.</Say></Response>"
    twilio.twilio.callees[OTHER] = Callee(ring_ms=0)

    made = await client.calls.create_async(
        to=OTHER,
        from_=AGENT,
        url=f"{PUBLIC}/outgoing",
        fallback_url=f"{PUBLIC}/instead",
        fallback_method="GET",
    )
    call = await twilio.twilio.ended(made.sid)

    assert call.said == ["Sorry."]
    (form,) = outside.of("/instead")
    assert (form["ErrorCode"], form["ErrorUrl"]) == ("11200", f"{PUBLIC}/outgoing")


async def test_the_far_end_of_a_transfer_can_be_hung_up(outside, twilio, client, running, clock):
    outside.documents["/transfer"] = f"<Response><Dial>{AGENT}</Dial></Response>"
    twilio.twilio.callees[AGENT] = Callee(ring_ms=0, stays_ms=3_600_000)
    updated = await running.update_async(url=f"{PUBLIC}/transfer")
    call = twilio.twilio.calls[updated.sid].trace
    await until(clock, lambda: call.dials and call.dials[0].answered_at)

    (leg,) = await client.calls.list_async(parent_call_sid=updated.sid)
    assert (leg.direction, leg.status) == ("outbound-dial", "in-progress")
    await client.calls(leg.sid).update_async(status="completed")
    await twilio.twilio.ended(updated.sid)

    assert call.dials[0].outcome == "completed"
    assert call.dials[0].seconds < 600
