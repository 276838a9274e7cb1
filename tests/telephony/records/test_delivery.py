"""Webhooks out: signed, tried again, dead letters."""

import asyncio
import hashlib
import hmac
import itertools
import json

import pytest
from aiohttp import web
from pydantic import ValidationError

from agent.record_settings import NoticeSettings
from telephony.records import CallRecords
from telephony.records.delivery import Delivery, _session
from telephony.records.erasing import erase, of_number
from telephony.records.keeping import keeping
from telephony.records.schema import DEAD_LETTERS, NOTICES
from telephony.records.upkeep import Upkeep
from tests.telephony.records.conftest import SID, rows

SECRET = "shared with the CRM"


class Crm:
    """A server that is told of calls; answers with the statuses of a list, then with 204."""

    def __init__(self):
        self.statuses = []
        self.requests = []
        self.came = asyncio.Event()

    async def take(self, request):
        self.requests.append((dict(request.headers), await request.read()))
        self.came.set()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def told(self):
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
async def crm(aiohttp_server, monkeypatch):
    monkeypatch.setenv("CRM_SECRET", SECRET)
    crm = Crm()
    app = web.Application()
    app.router.add_post("/calls", crm.take)
    server = await aiohttp_server(app)
    crm.url = str(server.make_url("/calls"))
    return crm


def webhook(url, **fields):
    return NoticeSettings.model_validate({"url": url, "secret": {"env": "CRM_SECRET"}, **fields})


@pytest.fixture
def delivery(crm, start, now):
    """Records of which the CRM is told, and what delivers it, a round at a time."""

    class Rounds(Delivery):
        def __init__(self, **fields):
            webhooks = (webhook(crm.url, **fields),)
            self.records = start(webhooks=webhooks)
            super().__init__(self.records.engine, webhooks, now=now, chance=lambda: 0.5)

        async def round(self):
            self.records.flush()
            async with _session() as session:
                return await self._round(session)

        def letters(self):
            return rows(self.records, DEAD_LETTERS)

        def waiting(self):
            return rows(self.records, NOTICES)

    return Rounds


def have_a_call(records, transferred=False):
    recorder = records.open(SID, caller="+15550100001", called="+15550100002", agent="desk")
    recorder.event("call_started", call_sid=SID)
    recorder.event("caller_text", turn=0, text="nobody's business")
    if transferred:
        recorder.event("call_transferred", to="+15550100009")
    recorder.close("transferred" if transferred else "caller_hung_up")


async def test_who_is_told_is_told_of_a_call_and_can_tell_that_it_is_us(crm, delivery, now):
    rounds = delivery()
    have_a_call(rounds.records, transferred=True)
    assert await rounds.round() == 3
    assert rounds.waiting() == []
    told = sorted(crm.told, key=lambda body: body["call"]["cause"] or "")
    assert {body["event"] for body in told} == {"call_started", "call_transferred", "call_ended"}
    ended = told[-1]
    assert ended["at"] == now.at
    assert ended["call"] == {
        "id": ended["call"]["id"],
        "sid": SID,
        "direction": "inbound",
        "caller": "+15550100001",
        "called": "+15550100002",
        "agent": "desk",
        "opened_at": now.at,
        "answered_at": now.at,
        "ended_at": now.at,
        "cause": "transferred",
        "transferred_to": "+15550100009",
    }
    for headers, body in crm.requests:
        assert b"business" not in body
        at, digest = headers["X-GLM-Voice-Signature"].removeprefix("t=").split(",v1=")
        signed = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert digest == signed
        assert int(at) == int(now.at)
        assert headers["Idempotency-Key"] == json.loads(body)["id"]
    assert len({headers["Idempotency-Key"] for headers, _ in crm.requests}) == 3


async def test_only_what_was_asked_for_is_told(crm, delivery):
    rounds = delivery(events=["call_ended"])
    have_a_call(rounds.records)
    await rounds.round()
    assert [body["event"] for body in crm.told] == ["call_ended"]


async def test_a_notice_that_fails_is_tried_again_later_and_later_then_lies_dead(
    crm, delivery, now
):
    rounds = delivery(events=["call_ended"], give_up_secs=100)
    crm.statuses = [500] * 100
    have_a_call(rounds.records)
    begun, times = now.at, []
    while not rounds.letters():
        if await rounds.round():
            times.append(now.at - begun)
        now.at += 0.5
        assert now.at < begun + 200
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == [1.5, 3.0, 6.0, 12.0, 24.0, 48.0]
    (letter,) = rounds.letters()
    assert (letter["attempts"], letter["error"]) == (7, "HTTP 500")
    assert letter["died_at"] - begun < 100
    assert rounds.waiting() == []
    assert len({headers["Idempotency-Key"] for headers, _ in crm.requests}) == 1

    assert await rounds.redeliver() == (0, 1)
    assert rounds.letters()[0]["attempts"] == 8
    crm.statuses = []
    assert await rounds.redeliver() == (1, 0)
    assert rounds.letters() == []
    assert crm.told[-1]["call"]["sid"] == SID


async def test_a_redirect_is_not_followed_and_a_server_that_is_away_is_tried_again(
    crm, delivery, unused_tcp_port
):
    rounds = delivery(events=["call_ended"])
    crm.statuses = [302]
    have_a_call(rounds.records)
    await rounds.round()
    (notice,) = rounds.waiting()
    assert (notice["attempts"], notice["error"]) == (1, "HTTP 302")
    assert len(crm.requests) == 1


async def test_what_goes_to_nobody_any_more_is_a_dead_letter(crm, delivery):
    rounds = delivery(events=["call_ended"])
    have_a_call(rounds.records)
    rounds._webhooks = {}
    await rounds.round()
    assert rounds.letters()[0]["error"] == "this url is no longer in the settings"
    assert crm.requests == []


async def test_two_processes_do_not_deliver_the_same(crm, delivery):
    rounds = delivery(events=["call_ended"])
    have_a_call(rounds.records)
    rounds.records.flush()
    first, second = rounds._claim(), rounds._claim()
    assert (len(first), len(second)) == (1, 0)


async def test_an_erased_call_leaves_no_letter(crm, delivery):
    rounds = delivery(events=["call_ended"], give_up_secs=1)
    have_a_call(rounds.records)
    rounds.records.flush()
    (notice,) = rounds._claim()
    erase(rounds.records.engine, of_number("+15550100001"))
    rounds._settle(notice, "HTTP 500")
    assert rounds.letters() == rounds.waiting() == []


async def test_a_server_tells_as_soon_as_there_is_something_to_tell(crm, settings):
    records = CallRecords(settings(webhooks=(webhook(crm.url),)))
    keeper = keeping(records)
    await anext(keeper)
    records.open(SID).event("call_started", call_sid=SID)
    await asyncio.wait_for(crm.came.wait(), 10)
    with pytest.raises(StopAsyncIteration):
        await anext(keeper)
    assert crm.told[0]["event"] == "call_started"


async def test_the_end_that_another_process_wrote_is_told_too(crm, delivery, start, now):
    rounds = delivery(events=["call_ended"])
    records = rounds.records
    records.open(SID)
    records.flush()
    records._writer._beside = lambda engine: None
    now.at += 1000
    another = start(webhooks=records.settings.webhooks)
    Upkeep(another.settings, another._lease, now).round(another.engine)
    await rounds.round()
    assert [body["call"]["cause"] for body in crm.told] == ["process_died"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "http://crm.example/calls"}, "url must be https"),
        ({"secret": {}}, "either env or file"),
        ({"events": ["call_began"]}, "events"),
        ({"retries": 3}, "retries"),
    ],
)
def test_a_webhook_that_cannot_be_is_named(fields, named):
    with pytest.raises(ValidationError, match=named):
        NoticeSettings.model_validate(
            {"url": "https://crm.example", "secret": {"env": "X"}, **fields}
        )


async def test_a_secret_that_is_missing_is_named(crm, delivery, monkeypatch):
    monkeypatch.setenv("CRM_SECRET", "")
    with pytest.raises(ValueError, match="CRM_SECRET is empty or not set"):
        delivery()
