"""Whole calls over the loopback Twilio, as the gateway's database tells them afterwards."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import create_engine, select

from agent.conversation import AGENT_RATE
from agent.pipeline import SharedModels, run_call
from agent.record_settings import RecordSettings
from agent.settings import GatewaySettings
from agent.voice_session import AnswerChunk
from telephony.agents import Agent, Agents
from telephony.records import CallRecords
from telephony.records.schema import CALLS, EVENTS, TURNS
from telephony.server import create_app, listening
from telephony.simulator import rehearsal
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.scenario import Scenario
from telephony.simulator.target import Target

TOKEN = "a secret"
SPEECH = Path(__file__).parents[2] / "data" / "opening_hours.wav"
CARD = "four one one one one one one one one one one one one one one one"
SILENCE = np.zeros(0, dtype=np.int16)


class Session:
    """The model: greets, then reads a card number out to whoever says anything."""

    def __init__(self, tone):
        self._tone = tone
        self._answers = ["Hello, this is the desk.", f"I have {CARD}, right?"]

    def push(self, audio, expected=None):
        pass

    def discard(self):
        pass

    async def answer(self, request=None):
        text = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        timing = {"tokenise": 0.01, "first_token": 0.02, "first_audio": 0.03}
        audio = self._tone(1.0, AGENT_RATE)
        yield AnswerChunk(0, text[:20], SILENCE, False, timing)
        yield AnswerChunk(1, text[20:], audio, True, timing)

    def confirm(self):
        pass

    async def retract(self):
        pass

    async def transcribe(self):
        return f"It is {CARD}."

    async def stop(self):
        pass

    async def close(self):
        pass


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture
async def crm(aiohttp_server):
    told, told_of_both = [], asyncio.Event()

    async def take(request):
        told.append(await request.json())
        if len(told) == 2:
            told_of_both.set()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/calls", take)
    server = await aiohttp_server(app)
    return str(server.make_url("/calls")), told, told_of_both


async def test_a_call_is_told_by_its_tables_masked_and_others_hear_of_it(
    clock, models, tone, tmp_path, unused_tcp_port, crm, monkeypatch
):
    url, told, told_of_both = crm
    monkeypatch.setenv("CRM_SECRET", "shared")
    # Virtual seconds are short, and the writer writes in real ones.
    monkeypatch.setattr(rehearsal, "_RECORD_SECONDS", 3600.0)
    webhooks = ({"url": url, "secret": {"env": "CRM_SECRET"}},)
    records = CallRecords(RecordSettings(directory=tmp_path, webhooks=webhooks), clock.time)
    agent = Agent(redact=("cards",))

    async def ready():
        pass

    async def answer(transport, call):
        await run_call(transport, Session(tone), models, agent, call.observer)

    app = create_app(
        GatewaySettings(auth_token=SecretStr(TOKEN)),
        answer,
        records,
        engine_ready=ready,
        clock=clock,
        agents=Agents({"agent": agent}),
    )
    scenario = Scenario.model_validate(
        {
            "name": "a card",
            "greeting": {"expect": {"words": ["this is the desk"]}},
            "turns": [
                {
                    "say": "a number",
                    "wav": SPEECH,
                    "expect": {"words": ["card"], "never": ["one one"], "heard": {"words": ["I"]}},
                }
            ],
        }
    )
    async with listening(app, "127.0.0.1", unused_tcp_port) as address:
        target = Target(f"{address}/voice", TOKEN, status_url=f"{address}/status")
        report = await run_scenario(
            scenario, target, None, records=tmp_path / "calls.db", clock=clock
        )
        async with asyncio.timeout(60):
            await told_of_both.wait()
    assert report.passed, [check for turn in report.turns for check in turn.checks]
    assert report.turns[-1].latency.tokenise is not None

    engine = create_engine(f"sqlite:///{tmp_path / 'calls.db'}")
    with engine.connect() as connection:
        (call,) = connection.execute(select(CALLS)).mappings()
        turns = connection.execute(select(TURNS).order_by(TURNS.c.number)).mappings().all()
        events = connection.execute(select(EVENTS)).mappings().all()
    engine.dispose()
    assert call["sid"] == report.call_sid
    assert (call["caller"], call["called"]) == (scenario.caller, scenario.called)
    assert call["cause"] == "caller_hung_up"
    assert call["opened_at"] <= call["answered_at"] < call["ended_at"]
    greeting, answer_turn = turns[0], turns[1]
    assert greeting["heard_text"] == "Hello, this is the desk."
    assert answer_turn["caller_text"] == "It is [card]."
    assert answer_turn["agent_text"] == answer_turn["heard_text"] == "I have [card], right?"
    times = ("caller_started_at", "caller_stopped_at", "decided_at", "first_audio_at", "heard_at")
    assert [answer_turn[name] for name in times] == sorted(answer_turn[name] for name in times)
    assert "one one" not in json.dumps([dict(event) for event in events])
    assert [body["event"] for body in told] == ["call_started", "call_ended"]
    assert told[1]["call"]["cause"] == "caller_hung_up"
