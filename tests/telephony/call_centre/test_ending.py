"""Calls that are ended from outside, and agents that change while calls run."""

import asyncio
import copy

from aiohttp import ClientSession

from telephony.sentences import ENGLISH
from telephony.server import drain
from telephony.simulator.trace import Cause

DESK, ELSEWHERE = "+15550100002", "+15550100004"


async def health(house):
    async with ClientSession() as client, client.get(house.url("/health")) as response:
        return response.status, await response.json()


# ---- drain


async def test_a_drain_refuses_new_calls_and_lets_the_others_end(house):
    house = await house(
        {
            "desk": {"numbers": [DESK]},
            "rest": {"busy": {"then": "wait", "number": ELSEWHERE}},
        }
    )
    running, talking = house.begin(DESK, seconds=8)
    await house.until(running, "heard")
    draining = asyncio.create_task(drain(house.app, 600))
    await asyncio.sleep(0)
    assert await health(house) == (
        503,
        {"engine": "reachable", "active_calls": 1, "workers": 1, "draining": True},
    )
    refused = await house.call(DESK)
    assert refused.said == [ENGLISH.busy]
    assert house.event(refused, "call_refused") == {"agent": "desk", "reason": "draining"}
    # Nobody is made to wait for a gateway that goes away.
    forwarded = await house.call("+15550100005")
    assert house.event(forwarded, "call_forwarded") == {"agent": "rest", "reason": "draining"}
    await talking
    await draining
    assert house.events(running)[-1]["cause"] == "caller_hung_up"
    assert "goodbye" not in house.names(running)
    assert house.nothing_left()


async def test_a_drain_that_takes_too_long_says_goodbye(house, engine):
    house = await house({"desk": {"greeting_text": "The desk.", "goodbye": "We close, bye."}})
    begun = [house.begin(DESK, seconds=200) for _ in range(2)]
    for trace, _ in begun:
        await house.until(trace, "heard")
    await drain(house.app, 3)
    for trace, talking in begun:
        await talking
        assert house.event(trace, "goodbye") == {"reason": "drain"}
        said = [event["text"] for event in house.events(trace) if event["event"] == "heard"]
        assert said == ["The desk.", "We close, bye."]
        assert house.events(trace)[-1]["cause"] == "agent_hung_up"
        assert trace.cause is Cause.AGENT_HUNG_UP
        # The phone has played all of it.
        assert (trace.stream.agent_audio != 0).sum() / 8000 > 0.95
        assert trace.stream.unplayed == 0
    assert house.nothing_left()


async def test_a_call_that_waits_when_the_drain_begins_is_told(house):
    house = await house({"desk": {"busy": {"then": "wait"}}}, max_calls=1)
    with house.taken("desk"):
        waiting, listening = house.begin(DESK)
        await house.until(waiting, "call_waiting")
        draining = asyncio.create_task(drain(house.app, 60))
        await listening
    await draining
    assert house.event(waiting, "call_refused")["reason"] == "draining"
    assert house.nothing_left()


# ---- the time limit


async def test_a_call_that_lasts_too_long_ends_with_a_goodbye(house):
    house = await house({"desk": {"limits": {"call_secs": 3}}})
    trace = await house.call(DESK, seconds=200)
    assert house.event(trace, "goodbye") == {"reason": "time_limit"}
    texts = [event["text"] for event in house.events(trace) if event["event"] == "heard"]
    assert texts == ["Something.", ENGLISH.goodbye]
    assert trace.cause is Cause.AGENT_HUNG_UP


async def test_an_agent_that_cannot_say_goodbye_is_hung_up_all_the_same(house, eventually):
    house = await house({"desk": {"limits": {"call_secs": 2}}}, speaks=False)
    trace = await house.call(DESK, seconds=200)
    assert house.names(trace) == ["call_offered", "call_started", "goodbye", "call_ended"]
    assert trace.cause is Cause.AGENT_HUNG_UP
    await eventually(lambda: not house.gateway.live)
    assert house.nothing_left()


# ---- new settings


async def test_new_agents_answer_new_calls_and_leave_those_that_run_alone(house, staff, engine):
    before = {"desk": {"greeting_text": "Before.", "goodbye": "Bye, as it was."}}
    after = copy.deepcopy(before)
    after["desk"] |= {"greeting_text": "After.", "goodbye": "Bye, as it is."}
    house = await house(before)
    running, talking = house.begin(DESK, seconds=200)
    await house.until(running, "heard")
    house.gateway.reception.agents = staff(after)
    later = await house.call(DESK)
    assert house.event(later, "agent_text")["text"] == "After."
    await drain(house.app, 0)
    await talking
    texts = [event["text"] for event in house.events(running) if event["event"] == "heard"]
    assert texts == ["Before.", "Bye, as it was."]
