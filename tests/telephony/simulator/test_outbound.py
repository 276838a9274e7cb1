"""Calls that are made from here, from the request to the result, over a loopback Twilio."""

import asyncio
import contextlib
import csv
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from telephony.agents import Agent, Agents
from telephony.line import EndCause
from telephony.outbound.call_list import Entry
from telephony.outbound.campaign import NotNow, Plan
from telephony.outbound.client import GatewayClient, dial_list
from telephony.outbound.dialler import with_variables
from telephony.outbound.routes import add_outbound_routes
from telephony.records import CallRecords
from telephony.server import create_app, listening
from telephony.simulator.callee import Callee
from telephony.simulator.loopback import Loopback, running_twilio
from telephony.simulator.record_tail import tail_of_call
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace

AUTH, OPERATORS = "a secret", "the operators' secret"
OURS, THEIRS = "+15550100002", "+15550100003"
HOURS = {"time_zone": "UTC", "open": {"mon-sun": "00:00-24:00"}}
MAIL = {"voicemail": {"say": "Please call us back, ${name}."}}


@dataclass
class Desk:
    """A gateway that makes calls, its Twilio, and whoever asks for them.

    Attributes:
        greeted: What the agent of each call was to say first.
        stays: Seconds for which the agent talks; it then hangs up.
    """

    twilio: Loopback
    client: GatewayClient
    url: str
    records: CallRecords
    greeted: list[str | None] = field(default_factory=list)
    stays: float = 5.0

    def who(self, **callee) -> None:
        """Say who answers the number that is called."""
        self.twilio.twilio.callees[THEIRS] = Callee.model_validate(callee)

    @property
    def calls(self) -> list[CallTrace]:
        return [call.trace for call in self.twilio.twilio.calls.values()]

    def events(self, name: str) -> list[dict]:
        assert self.records.flush()
        (call,) = self.calls
        database = self.records.settings.directory / "calls.db"
        with contextlib.closing(tail_of_call(database, call.call_sid)) as tail:
            return [event.fields for event in tail.read() if event.name == name]


@pytest.fixture
async def desk(clock, tmp_path, unused_tcp_port):
    clock.long = 1.0
    address = f"http://127.0.0.1:{unused_tcp_port}"

    async def ready() -> None:
        pass

    async with AsyncExitStack() as stack:

        async def start(max_calls: int = 4, hours=HOURS, **outbound) -> Desk:
            async def answer(transport, call):
                made.greeted.append(call.agent.greeting_text)
                line = transport.output()._line
                leaving = asyncio.create_task(leave(line))
                while await line.receive() is not None:
                    pass
                leaving.cancel()

            async def leave(line):
                await clock.sleep(made.stays)
                await line.hang_up(EndCause.AGENT_HUNG_UP)

            target = Target(f"{address}/voice", AUTH, status_url=f"{address}/status")
            twilio = await stack.enter_async_context(running_twilio(target, clock=clock))
            settings = GatewaySettings(
                auth_token=SecretStr(AUTH), rest_url=twilio.url, max_calls=max_calls
            )
            caller = {
                "greeting_text": "Hello ${name}.",
                "outbound": {"caller_id": OURS, "hours": hours, **outbound},
            }
            records = CallRecords(RecordSettings(directory=tmp_path), clock.time)
            app = create_app(
                settings,
                answer,
                records,
                engine_ready=ready,
                agents=Agents({"reminders": Agent.model_validate(caller)}),
                clock=clock,
            )
            add_outbound_routes(app, target.account_sid, OPERATORS, clock.time)
            url = await stack.enter_async_context(listening(app, "127.0.0.1", unused_tcp_port))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            made = Desk(twilio, GatewayClient(session, url, OPERATORS), url, records)
            stack.callback(lambda: no_faults(twilio))
            return made

        yield start


def no_faults(twilio: Loopback) -> None:
    assert twilio.api.faults == []
    for call in twilio.twilio.calls.values():
        assert call.trace.errors == []


ENTRY = Entry(1, THEIRS, variables={"name": "Ann"})


async def test_somebody_is_called_and_greeted_by_name(desk):
    made = await desk()
    result = await made.client.call(ENTRY)
    assert (result.outcome, result.answered_by) == ("answered", "human")
    assert made.greeted == ["Hello Ann."]
    (call,) = made.calls
    assert result.call_sid == call.call_sid
    assert result.seconds >= 5
    assert made.events("call_dialled") == [{"call_sid": call.call_sid, "agent": "reminders"}]
    assert made.events("call_ended") == [{"cause": "agent_hung_up"}]


@pytest.mark.parametrize("outcome", ["busy", "no-answer", "failed"])
async def test_who_does_not_answer_leaves_a_record_and_no_place_taken(desk, outcome):
    made = await desk(max_calls=1)
    made.who(outcome=outcome)
    assert (await made.client.call(ENTRY)).outcome == outcome
    assert made.events("call_not_answered") == [{"status": outcome}]
    assert made.events("call_ended") == [{"cause": "not_answered"}]
    made.who()
    assert (await made.client.call(ENTRY)).outcome == "answered"


async def test_a_machine_hears_the_message_after_its_beep(desk):
    made = await desk(**MAIL)
    made.stays = 60.0
    made.who(answered_by="machine_end_beep", detection_ms=4000)
    result = await made.client.call(ENTRY)
    assert (result.outcome, result.answered_by) == ("voicemail", "machine_end_beep")
    (call,) = made.calls
    assert call.said == ["Please call us back, Ann."]
    assert made.events("answered_by") == [{"answered_by": "machine_end_beep"}]
    assert made.events("call_ended") == [{"cause": "agent_hung_up"}]


async def test_a_machine_can_be_found_out_before_the_agent_speaks(desk):
    made = await desk(detection="first", **MAIL)
    made.who(answered_by="machine_end_silence")
    assert (await made.client.call(ENTRY)).outcome == "voicemail"
    assert made.greeted == []
    assert made.calls[0].said == ["Please call us back, Ann."]
    assert made.events("call_ended") == [{"cause": "agent_hung_up"}]


@pytest.mark.parametrize("detection", ["first", "meanwhile"])
async def test_without_a_message_a_machine_is_hung_up_on(desk, detection):
    made = await desk(detection=detection)
    made.stays = 60.0
    made.who(answered_by="machine_start")
    result = await made.client.call(ENTRY)
    assert (result.outcome, result.answered_by) == ("machine", "machine_start")
    assert made.calls[0].said == []


async def test_a_message_may_be_a_recording(desk, aiohttp_server, wav):
    async def recording(request):
        return web.Response(body=wav().read_bytes(), content_type="audio/wav")

    app = web.Application()
    app.router.add_get("/message.wav", recording)
    url = str((await aiohttp_server(app)).make_url("/message.wav"))
    made = await desk(voicemail={"play": url})
    made.stays = 60.0
    made.who(answered_by="machine_end_beep")
    assert (await made.client.call(ENTRY)).outcome == "voicemail"
    assert made.calls[0].played == [url]


async def test_who_is_on_the_list_is_not_called(desk, tmp_path):
    listed = tmp_path / "do_not_call.txt"
    listed.write_text("")
    made = await desk(do_not_call=str(listed))
    headers = {"Authorization": f"Bearer {OPERATORS}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{made.url}/do-not-call", json={"number": THEIRS}) as answer,
    ):
        assert answer.status == 204
    assert (await made.client.call(ENTRY)).outcome == "do_not_call"
    assert made.calls == []
    assert THEIRS in listed.read_text()


async def test_nobody_is_called_while_the_list_cannot_be_read(desk, tmp_path):
    made = await desk(do_not_call=str(tmp_path / "gone.txt"))
    assert (await made.client.call(ENTRY)).outcome == "invalid"
    assert made.calls == []


async def test_nobody_is_called_outside_the_hours_of_their_own_clocks(desk):
    # It is 22:13 in UTC, 23:13 in Berlin.
    made = await desk(hours={"time_zone": "UTC", "open": {"mon-sun": "08:00-23:00"}})
    with pytest.raises(NotNow):
        await made.client.call(Entry(1, THEIRS, time_zone="Europe/Berlin"))
    assert made.calls == []
    assert (await made.client.call(ENTRY)).outcome == "answered"
    assert (await made.client.call(Entry(1, THEIRS, time_zone="Mars"))).outcome == "invalid"


async def test_no_more_calls_are_made_than_there_are_places(desk):
    made = await desk(max_calls=1)
    made.stays = 60.0
    first = asyncio.create_task(made.client.call(ENTRY))
    while not made.calls:  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0.001)
    with pytest.raises(NotNow, match="no line"):
        await made.client.call(ENTRY)
    assert (await first).outcome == "answered"
    assert len(made.calls) == 1


async def test_a_number_that_twilio_refuses_has_failed(desk):
    made = await desk()
    made.twilio.twilio.target.__dict__["auth_token"] = "another"
    result = await made.client.call(ENTRY)
    assert result.outcome == "failed"
    assert "Authenticate" in result.detail


@pytest.mark.parametrize(
    ("token", "order", "status", "said"),
    [
        ("wrong", {"to": THEIRS}, 401, "token"),
        (OPERATORS, {"to": "555"}, 400, "to: "),
        (OPERATORS, {"to": THEIRS, "agnet": "x"}, 400, "agnet"),
        (OPERATORS, {"to": THEIRS, "agent": "nobody"}, 400, "reminders"),
    ],
)
async def test_what_cannot_be_asked_for_is_named(desk, token, order, status, said):
    made = await desk()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{made.url}/calls", json=order) as answer,
    ):
        assert answer.status == status
        assert said in await answer.text()
    assert made.calls == []


async def test_a_list_is_called_and_its_results_are_written(desk, clock, tmp_path):
    made = await desk()
    made.twilio.twilio.callees["+15550100004"] = Callee(outcome="busy")
    calls, results = tmp_path / "calls.csv", tmp_path / "results.csv"
    calls.write_text(f"to,name\n{THEIRS},Ann\n+15550100004,Bob\n")
    plan = Plan(per_minute=60.0, at_once=2, retries={"busy": (30.0,)})
    counts = await dial_list(
        made.url, OPERATORS, calls, results, plan, lambda line: None, clock=clock
    )
    assert counts == {"answered": 1, "busy": 1}
    with results.open() as lines:
        rows = [(row["row"], row["attempt"], row["outcome"]) for row in csv.DictReader(lines)]
    assert sorted(rows) == [("1", "1", "answered"), ("2", "1", "busy"), ("2", "2", "busy")]
    assert made.greeted == ["Hello Ann."]


def test_variables_fill_what_is_said_and_leave_the_rest():
    agent = Agent.model_validate(
        {
            "greeting_text": "Hello ${name}, it is $5.",
            "instructions": "You call $name on ${day}.",
            "outbound": {"caller_id": OURS, "hours": HOURS, **MAIL},
        }
    )
    filled = with_variables(agent, {"name": "Ann"})
    assert filled.greeting_text == "Hello Ann, it is $5."
    assert filled.instructions == "You call Ann on ${day}."
    assert filled.outbound.voicemail.say == "Please call us back, Ann."
    assert agent.greeting_text == "Hello ${name}, it is $5."
