"""What this Twilio does with the TwiML of an incoming call."""

import io

import numpy as np
import pytest
import soundfile

from telephony.media_streams import Dtmf, Media, Start
from telephony.simulator.callee import Callee, Listener
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.recordings import Recording
from telephony.simulator.trace import Cause, Key

CALLER, CALLED, OTHER = "+15550100001", "+15550100002", "+15550100003"


@pytest.fixture
def incoming(agent, outside, clock, request):
    """Places a call that executes some TwiML, and returns its trace."""

    async def call(twiml, person=None, callees=None):
        agent.twiml = f"<Response>{twiml}</Response>"
        async with LoopbackTwilio(agent.target, clock) as twilio:
            twilio.callees |= callees or {}
            trace = twilio.new_call()
            await twilio.place(trace, person or Listener(5.0), CALLER, CALLED)
        assert agent.forged == outside.forged == []
        return trace

    return call


STREAM = "<Connect><Stream url='wss://phone.example/media'/></Connect>"


async def test_what_twilio_says_and_waits_for_takes_its_time(incoming):
    call = await incoming("<Say>One moment please.</Say><Pause length='10'/>")

    assert call.said == ["One moment please."]
    assert call.ended_at - call.answered_at == pytest.approx(10 + 18 * 0.06, abs=0.1)
    assert (call.status, call.cause) == ("completed", Cause.REFUSED)


@pytest.mark.parametrize(("reason", "status"), [("busy", "busy"), ("rejected", "no-answer")])
async def test_a_rejected_call_is_never_answered(agent, incoming, reason, status):
    call = await incoming(f"<Reject reason='{reason}'/><Say>Never said.</Say>")

    assert call.said == []
    assert call.answered_at is None
    assert [form["CallStatus"] for form in agent.callbacks] == [status]


async def test_a_redirect_goes_on_at_another_address(outside, incoming):
    outside.documents["/next"] = "<Response><Say>There you are.</Say></Response>"

    call = await incoming("<Redirect>/next</Redirect><Say>Never said.</Say>")

    assert call.said == ["There you are."]
    (form,) = outside.of("/next")
    assert form["CallStatus"] == "in-progress"
    assert form["CallSid"] == call.call_sid


async def test_a_circle_of_redirects_is_broken(outside, incoming):
    outside.documents["/next"] = "<Response><Redirect>/next</Redirect></Response>"

    call = await incoming("<Redirect method='GET'>/next</Redirect>")

    assert [error.code for error in call.errors] == [11215]


async def test_a_recording_is_played_to_its_end(outside, incoming):
    file = io.BytesIO()
    soundfile.write(file, np.ones(16000 * 3, np.int16), 16000, format="WAV")
    outside.files["/hold.wav"] = (file.getvalue(), "audio/x-wav")

    call = await incoming("<Play loop='2'>/hold.wav</Play>")

    assert call.played == ["https://phone.example/hold.wav"]
    assert call.ended_at - call.answered_at == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize(
    ("path", "code"), [("/missing.wav", 11200), ("/text.wav", 13420), ("/noise.wav", 13420)]
)
async def test_a_recording_that_cannot_be_played_is_logged(outside, incoming, path, code):
    outside.status["/missing.wav"] = 404
    outside.files["/text.wav"] = (b"no sound", "text/plain")
    outside.files["/noise.wav"] = (b"no sound", "audio/wav")

    call = await incoming(f"<Play>{path}</Play><Say>Anyway.</Say>")

    assert [error.code for error in call.errors] == [code]
    assert call.said == ["Anyway."]


async def test_touch_tones_that_the_agent_sends_are_kept(incoming):
    call = await incoming("<Play digits='ww12#'/>")

    assert [sent.digits for sent in call.digits] == ["ww12#"]
    assert call.ended_at - call.answered_at == pytest.approx(1.6, abs=0.1)


async def test_keys_come_one_a_tick_and_in_order(agent, incoming):
    digits = []

    async def behave(line):
        async for event in line.events():
            if isinstance(event, Dtmf):
                digits.append((event.digit, len(line.frames)))

    agent.behave = behave
    caller = Listener(1.0)
    caller.keys.extend("4#")

    call = await incoming(STREAM, caller)

    assert [digit for digit, _ in digits] == ["4", "#"]
    assert digits[1][1] == digits[0][1] + 1
    assert call.stream.keys == [Key("4", 0), Key("#", 160)]


async def test_a_transfer_is_traced_and_its_outcome_told(outside, incoming):
    outside.documents["/after"] = "<Response><Say>Welcome back.</Say></Response>"

    call = await incoming(
        f"<Dial action='/after' callerId='{CALLED}'>"
        f"<Number statusCallback='/leg' statusCallbackEvent='initiated ringing answered completed'>"
        f"{OTHER}</Number></Dial><Say>Never said.</Say>",
        callees={OTHER: Callee(ring_ms=3000, stays_ms=20_000)},
    )

    (dial,) = call.dials
    assert (dial.to, dial.answered_by, dial.outcome) == ((OTHER,), OTHER, "completed")
    assert dial.seconds == pytest.approx(20, abs=0.1)
    assert dial.answered_at - dial.at == pytest.approx(3, abs=0.1)
    assert dial.caller_id == CALLED
    assert call.said == ["Welcome back."]
    assert call.cause is Cause.TRANSFERRED
    (after,) = outside.of("/after")
    assert after["DialCallStatus"] == "completed"
    assert after["DialCallDuration"] == "20"
    legs = outside.of("/leg")
    assert [leg["CallStatus"] for leg in legs] == [
        "initiated",
        "ringing",
        "in-progress",
        "completed",
    ]
    assert {leg["ParentCallSid"] for leg in legs} == {call.call_sid}
    assert {leg["CallSid"] for leg in legs} == {after["DialCallSid"]}


@pytest.mark.parametrize(
    ("callee", "outcome", "seconds"),
    [
        (Callee(outcome="busy", ring_ms=1000), "busy", 1),
        (Callee(outcome="failed", ring_ms=500), "failed", 0.5),
        (Callee(outcome="no-answer"), "no-answer", 12),
        (Callee(ring_ms=13_000), "no-answer", 12),
    ],
)
async def test_a_transfer_in_vain_goes_on_with_the_next_verb(incoming, callee, outcome, seconds):
    call = await incoming(
        f"<Dial timeout='12'>{OTHER}</Dial><Say>Nobody there.</Say>", callees={OTHER: callee}
    )

    assert call.dials[0].outcome == outcome
    assert call.dials[0].answered_at is None
    assert call.said == ["Nobody there."]
    assert call.ended_at - call.answered_at == pytest.approx(seconds + 13 * 0.06, abs=0.1)


async def test_of_several_numbers_the_first_to_answer_is_connected(incoming):
    slow, fast, busy = "+15550100004", "+15550100005", "+15550100006"

    call = await incoming(
        f"<Dial><Number>{slow}</Number><Number>{fast}</Number><Number>{busy}</Number></Dial>",
        callees={
            slow: Callee(ring_ms=5000),
            fast: Callee(ring_ms=1000),
            busy: Callee(outcome="busy", ring_ms=0),
        },
    )

    assert call.dials[0].answered_by == fast


async def test_a_conference_tells_who_comes_and_goes(outside, incoming):
    call = await incoming(
        "<Dial action='/after'><Conference statusCallback='/room' "
        "statusCallbackEvent='start end join leave'>room</Conference></Dial>",
        callees={"room": Callee(ring_ms=1000, stays_ms=4000)},
    )

    assert call.dials[0].outcome == "answered"
    assert call.dials[0].seconds == pytest.approx(4, abs=0.1)
    assert [form["StatusCallbackEvent"] for form in outside.of("/room")] == [
        "participant-join",
        "conference-start",
        "participant-leave",
        "conference-end",
    ]
    assert outside.of("/after")[0]["DialCallStatus"] == "answered"


class Speaker(Listener):
    """Hums for a while, then listens."""

    def __init__(self, seconds, hum, then=60.0):
        super().__init__(seconds + then)
        self.hum = hum
        self.frames = round(seconds * 50)

    def tick(self, heard):
        frame = super().tick(heard)
        self.frames -= 1
        return self.hum if frame is not None and self.frames >= 0 else frame


async def test_a_message_is_recorded_until_silence(outside, incoming, tone):
    call = await incoming(
        "<Record action='/recorded' timeout='2' recordingStatusCallback='/stored'/>",
        Speaker(3.0, tone(0.02)),
    )

    (recording,) = call.recordings
    assert recording.seconds == pytest.approx(5.0, abs=0.05)
    loud = np.flatnonzero(np.abs(recording.audio[:, 0]) > 1000)
    assert loud[-1] == pytest.approx(3 * 8000, abs=20)
    (form,) = outside.of("/recorded")
    assert form["RecordingSid"] == recording.sid
    assert form["Digits"] == ""
    assert outside.of("/stored")[0]["RecordingStatus"] == "completed"
    assert outside.of("/stored")[0]["RecordingDuration"] == "5"


async def test_silence_is_no_message(outside, incoming):
    call = await incoming(
        "<Record action='/recorded' timeout='2'/><Say>Nothing?</Say>", Listener(60)
    )

    assert outside.of("/recorded") == []
    assert call.said == ["Nothing?"]


async def test_a_caller_who_hangs_up_while_recorded_ends_the_call(outside, incoming, tone):
    outside.documents["/recorded"] = "<Response><Say>Never said.</Say></Response>"

    call = await incoming("<Record action='/recorded'/>", Speaker(1.0, tone(0.02), then=1.0))

    assert outside.of("/recorded")[0]["Digits"] == "hangup"
    assert call.said == []
    assert call.cause is Cause.CALLER_HUNG_UP


async def test_positions_of_a_second_stream_follow_those_of_the_first(agent, outside, incoming):
    async def behave(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(0.5, "said")
            if isinstance(event, Media) and len(line.frames) == 50:
                await line.socket.close()

    agent.behave = behave

    call = await incoming(f"{STREAM}<Pause length='2'/>{STREAM}", Listener(60))

    assert len(agent.lines) == 2
    first, second = call.stream.segments
    assert first[0] == 0
    assert second[0] == pytest.approx(8000, abs=400)
    assert call.stream.position == pytest.approx(16_000, abs=800)
    assert call.stream.wall(second[0]) - call.stream.wall(second[0] - 1) == pytest.approx(
        2, abs=0.1
    )
    assert call.stream.marks[1].sent >= second[0]
    assert call.stream.gaps() == []
    sids = [line.start.stream_sid for line in agent.lines]
    assert sids[0] != sids[1]
    assert [line.frames[0].timestamp for line in agent.lines] == [0, 0]


async def test_a_stream_that_has_ended_leads_to_its_action(agent, outside, incoming):
    async def behave(line):
        async for event in line.events():
            if isinstance(event, Media):
                await line.socket.close()

    agent.behave = behave
    outside.documents["/over"] = "<Response><Say>Goodbye.</Say></Response>"

    call = await incoming(
        STREAM.replace("<Connect>", "<Connect action='/over'>") + "<Say>Never said.</Say>"
    )

    assert call.said == ["Goodbye."]
    assert call.cause is Cause.AGENT_HUNG_UP


async def test_a_callback_that_is_refused_is_logged_and_changes_nothing(outside, incoming):
    outside.status["/leg"] = 500

    call = await incoming(f"<Dial><Number statusCallback='/leg'>{OTHER}</Number></Dial>")

    assert [error.code for error in call.errors] == [15003]
    assert call.dials[0].outcome == "completed"


@pytest.mark.parametrize(
    ("channels", "track", "expected"),
    [
        (1, "both", [[30]]),
        (2, "both", [[10, 20]]),
        (2, "inbound", [[10, 0]]),
        (1, "outbound", [[20]]),
    ],
)
def test_a_recording_holds_the_sides_that_were_asked_for(channels, track, expected):
    recording = Recording("RE0", "CA0", "OutboundAPI", 0.0, channels, track)

    recording.hear(np.array([10], np.int16), np.array([20], np.int16))

    assert recording.audio.tolist() == expected


def test_a_pause_is_silence_or_left_out():
    one = np.ones(1, np.int16)
    lengths = []
    for pause_is_silence in (True, False):
        recording = Recording("RE0", "CA0", "OutboundAPI", 0.0, 1, "both")
        recording.pause_is_silence = pause_is_silence
        for status in ("in-progress", "paused", "in-progress"):
            recording.status = status
            recording.hear(one, one)
        recording.finish()
        recording.hear(one, one)
        lengths.append(recording.audio[:, 0].tolist())

    assert lengths == [[2, 0, 2], [2, 2]]
