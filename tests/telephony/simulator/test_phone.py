"""Keys, recordings and transfers on whole calls: a loopback Twilio, a scripted model."""

import asyncio
from contextlib import AsyncExitStack

import numpy as np
import pytest
import soundfile
from aiohttp import web
from pydantic import SecretStr

from agent.pipeline import SharedModels, run_call
from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from telephony.agents import Agent, Agents
from telephony.records import CallRecords
from telephony.server import create_app, listening
from telephony.simulator.callee import Callee, Listener, PhoneBook
from telephony.simulator.live_call import End, LiveCall
from telephony.simulator.loopback import running_twilio
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace, Cause
from tests.telephony.simulator.test_tools import NURSE, TOKEN, Line, Says, Session, heard

TRANSFER = {"kind": "transfer", "destinations": {"nurse": NURSE}}
WARM = {**TRANSFER, "warm": True, "asks_summary": True}


class Typist(Listener):
    """Presses keys at given times of the call, with silence around."""

    def __init__(self, presses: dict[float, str]) -> None:
        super().__init__(600.0)
        self._presses = sorted(presses.items())
        self._ticks = 0

    def tick(self, heard):
        self._ticks += 1
        while self._presses and self._presses[0][0] <= self._ticks * 0.02:
            self.keys.extend(self._presses.pop(0)[1])
        return super().tick(heard)

    def hang_up(self) -> None:
        self._left = 0


class Centre(Line):
    """A gateway and its Twilio, with a look at both."""

    async def typed(self, presses: dict[float, str], answers: int) -> CallTrace:
        """Call and press keys, until so many answers have been heard."""
        # Time runs faster here than a pipeline thinks.
        person = Typist(presses)

        async def leave() -> None:
            await self.wait("heard", answers)
            person.hang_up()

        async with asyncio.TaskGroup() as group:
            call = group.create_task(self.call(person))
            await asyncio.sleep(0)
            group.create_task(leave())
        return call.result()

    def names(self) -> list[str]:
        """The events of the call's record, in order."""
        return [event.name for event in self.tail.events]

    def written(self) -> str:
        """All that the records hold."""
        return "".join(path.read_text("latin-1") for path in self.records.parent.glob("calls.db*"))

    async def live(self, number: str) -> LiveCall:
        """The call that was made to a number."""
        async with asyncio.timeout(60):
            while True:
                for call in self.twilio.twilio.calls.values():
                    if call.to == number and call.direction == "outbound-api":
                        return call
                await asyncio.sleep(0.001)

    async def leg(self, number: str) -> CallTrace:
        """What happened in it, when it is over."""
        return await self.twilio.twilio.ended((await self.live(number)).sid)


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture
async def answering(clock, tmp_path, models, tone, unused_tcp_port):
    """Starts a gateway with tools, a telephone and a script, and a Twilio that knows a nurse."""
    clock.long = 1.0
    address = f"http://127.0.0.1:{unused_tcp_port}"

    async def ready() -> None:
        pass

    async with AsyncExitStack() as stack:

        async def start(script, tools=(), transfer="twiml", redact=(), **phone) -> Centre:
            agent = Agent.model_validate(
                {"tools": list(tools), "phone": phone, "redact": list(redact)}
            )
            session = Session(script, tone)

            async def answer(transport, call):
                await run_call(
                    transport,
                    session,
                    models,
                    agent,
                    call.observer,
                    tools=agent.toolbox,
                    phone=call.phone,
                )

            target = Target(f"{address}/voice", TOKEN, status_url=f"{address}/status")
            book = PhoneBook(numbers={NURSE: Callee(stays_ms=1000)})
            twilio = await stack.enter_async_context(
                running_twilio(target, clock=clock, phone_book=book)
            )
            gateway = GatewaySettings.model_validate(
                {"auth_token": SecretStr(TOKEN), "rest_url": twilio.url, "transfer": transfer}
            )
            records = CallRecords(RecordSettings(directory=tmp_path), clock.time)
            app = create_app(
                gateway,
                answer,
                records,
                engine_ready=ready,
                agents=Agents({"agent": agent}),
                clock=clock,
            )
            await stack.enter_async_context(listening(app, "127.0.0.1", unused_tcp_port))
            return Centre(twilio, session, tmp_path / "calls.db")

        yield start


# ---- keys


async def test_what_the_caller_types_is_a_turn_and_not_in_the_record(answering):
    line = await answering([Says(1.0), Says(1.5)])
    await line.typed({2.0: "1", 2.5: "2", 3.0: "34#"}, answers=2)
    assert [request.instruction for request in line.session.requests][1:] == [
        "The caller typed 1234."
    ]
    assert line.of("keys_typed") == [{"keys": 4, "digits": "****"}]
    assert "1234" not in line.written()


async def test_a_key_silences_the_agent(answering):
    line = await answering([Says(8.0), Says(1.0)])
    trace = await line.typed({2.0: "1#"}, answers=2)
    # Of the first answer's eight seconds, what was heard until then.
    assert heard(trace) < 4.0
    assert line.of("interrupted")[0]["turn"] == 0
    assert line.session.requests[1].instruction == "The caller typed 1."


async def test_a_tool_waits_for_digits_that_the_model_never_sees(answering):
    tools = [{"kind": "take_digits", "longest": 4, "secret": True}]
    line = await answering([Says(1.0, "take_digits\n{}"), Says(1.0)], tools)
    await line.typed({3.0: "9876"}, answers=2)
    assert line.session.requests[1].result == "4 keys"
    assert line.of("tool_result") == [{"turn": 0, "call_id": "call-0", "result": "4 keys"}]
    assert "9876" not in line.written()


async def test_who_types_nothing_is_told_of(answering):
    tools = [{"kind": "take_digits", "wait_secs": 2.0}]
    line = await answering([Says(1.0, "take_digits\n{}"), Says(1.0)], tools)
    await line.typed({}, answers=2)
    assert "typed nothing" in (line.session.requests[1].result or "")


# ---- recording


async def test_a_recording_holds_both_sides_and_pauses_for_digits(answering, tmp_path):
    recording = {"directory": str(tmp_path / "sound"), "consent": "This call is recorded."}
    line = await answering([Says(2.0), Says(2.0)], recording=recording)
    trace = await line.typed({4.0: "5", 5.0: "6#"}, answers=2)
    assert trace.said == ["This call is recorded."]
    (begun,) = line.of("recording")
    (ended,) = line.of("recording_ended")
    audio, rate = soundfile.read(begun["path"], dtype="int16")
    assert len(audio) == round(ended["seconds"] * rate)
    # As it was heard on the phone, but for the silence at the digits.
    agent, phone = audio[:, 1], trace.stream.agent_audio
    first, last = np.flatnonzero(agent)[[0, -1]]
    assert abs(first - np.flatnonzero(phone)[0]) <= 800
    assert abs(last - np.flatnonzero(phone)[-1]) <= 800
    names = [name for name in line.names() if name.startswith("recording_")]
    assert names == [f"recording_{what}" for what in ("paused", "resumed", "ended")]


async def test_what_is_masked_in_the_record_is_not_in_the_sound(answering, tmp_path):
    script = [Says(2.0, text="Your number is four seven one nine two."), Says(2.0)]
    line = await answering(script, redact=["digits"], recording={"directory": str(tmp_path)})
    trace = await line.typed({6.0: "1"}, answers=2)
    assert [one["text"] for one in line.of("heard")] == ["Your number is [digits].", "words"]
    audio, rate = soundfile.read(line.of("recording")[0]["path"], dtype="int16")
    phone = np.flatnonzero(trace.stream.agent_audio)
    (kept,) = np.flatnonzero(np.diff(phone) > rate // 2) + 1
    loud = np.flatnonzero(audio[:, 1])
    # Of the two answers that the phone played, the recording has the second.
    assert abs(loud[0] - phone[kept]) <= 800
    assert abs(loud[-1] - phone[-1]) <= 800


async def test_twilio_records_and_pauses_for_digits(answering):
    line = await answering([Says(2.0), Says(1.0)], recording={"by": "twilio"})
    trace = await line.typed({4.0: "5", 5.0: "6#"}, answers=2)
    (recording,) = trace.recordings
    assert (recording.channels, recording.status) == (2, "completed")
    assert line.twilio.api.asked == [
        "CreateCallRecording",
        "UpdateCallRecording",
        "UpdateCallRecording",
    ]
    assert line.twilio.api.faults == []
    told = [request for request in trace.requests if request.url.endswith("/recording")]
    assert [request.status for request in told] == [204]
    await line.wait("recording_ended")
    (ended,) = line.of("recording_ended")
    assert ended["recording_sid"] == line.of("recording")[0]["recording_sid"]
    assert ended["url"].endswith(ended["recording_sid"])
    assert ended["seconds"] > 0


# ---- transfers


@pytest.fixture
async def desk(aiohttp_server):
    """A person's system, which is told about callers."""
    told = []

    async def take(request):
        told.append(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/caller", take)
    server = await aiohttp_server(app)
    return str(server.make_url("/caller")), told


@pytest.mark.parametrize("way", ["twiml", "rest"])
async def test_a_person_is_told_before_the_telephone_rings(answering, desk, way):
    url, told = desk
    tools = [{**TRANSFER, "asks_summary": True}]
    call = 'transfer\n{"to": "nurse", "summary": "Needs a prescription."}'
    line = await answering([Says(1.0), Says(0.5, call)], tools, way, handover={"webhook": url})
    trace = await line.call(Typist({3.0: "7#"}))
    (what,) = told
    assert what["call_sid"] == trace.call_sid
    assert (what["caller"], what["called"]) == ("+15550100001", "+15550100002")
    assert (what["destination"], what["summary"]) == (NURSE, "Needs a prescription.")
    assert {"who": "agent", "text": "words"} in what["turns"]
    (dial,) = trace.dials
    assert dial.outcome == "completed"
    assert line.of("call_ended") == [{"cause": "transferred"}]


async def test_a_webhook_that_is_down_stops_no_transfer(answering, unused_tcp_port_factory):
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}/caller"
    call = 'transfer\n{"to": "nurse"}'
    line = await answering([Says(0.5, call)], [TRANSFER], handover={"webhook": url})
    trace = await line.call()
    assert [dial.outcome for dial in trace.dials] == ["completed"]
    assert "phone.handover.webhook" in line.of("error")[0]["message"]


BRIEFED = 'transfer\n{"to": "nurse", "summary": "Needs a prescription."}'


@pytest.mark.parametrize("way", ["twiml", "rest"])
async def test_a_nurse_is_briefed_while_the_caller_stays_with_the_agent(answering, way):
    line = await answering([Says(0.5, BRIEFED)], [WARM], way)
    trace = await line.call(seconds=60.0)
    nurse = await line.leg(NURSE)
    assert nurse.said == ["Needs a prescription."]
    (dial,), (theirs,) = trace.dials, nurse.dials
    assert dial.conference
    assert dial.to == theirs.to
    assert dial.at > nurse.answered_at
    assert line.of("call_ended") == [{"cause": "transferred"}]
    assert line.of("tool_result") == [{"turn": 0, "call_id": "call-0", "result": "connected"}]
    assert line.twilio.api.faults == []


@pytest.mark.parametrize("outcome", ["busy", "no-answer"])
async def test_a_caller_whom_nobody_takes_stays_with_the_agent(answering, outcome):
    line = await answering([Says(0.5, BRIEFED), Says(1.0)], [WARM])
    line.twilio.twilio.callees[NURSE] = Callee(outcome=outcome)
    trace = await line.typed({}, answers=2)
    assert trace.dials == []
    assert heard(trace) == 1.5
    assert "not connected" in (line.session.requests[1].result or "")
    assert len(line.of("transfer_failed")) == 1
    assert line.of("call_ended") == [{"cause": "caller_hung_up"}]


async def test_a_nurse_who_hangs_up_while_being_briefed_takes_no_caller(answering):
    line = await answering([Says(0.5, BRIEFED), Says(1.0)], [WARM])

    async def hangs_up():
        nurse = await line.live(NURSE)
        while nurse.status != "in-progress":  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.001)
        nurse.steer(End(Cause.CALLER_HUNG_UP))

    async with asyncio.TaskGroup() as group:
        group.create_task(hangs_up())
        call = group.create_task(line.typed({}, answers=2))
    assert call.result().dials == []
    assert line.of("transfer_failed") == [{"message": "hung up"}]


async def test_when_the_caller_hangs_up_it_rings_no_longer(answering):
    line = await answering([Says(0.5, BRIEFED)], [WARM])
    line.twilio.twilio.callees[NURSE] = Callee(ring_ms=20_000)
    await line.call(seconds=4.0)
    nurse = await line.leg(NURSE)
    assert nurse.status == "canceled"
    assert nurse.answered_at is None
