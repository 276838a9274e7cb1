"""What becomes of calls, from Twilio's side: who answers them, and what happens if nobody can."""

import asyncio

import pytest

from agent.speech.system_prompt import system_prompt
from telephony.sentences import CHINESE, ENGLISH
from telephony.simulator.callee import PhoneBook
from telephony.simulator.trace import Cause

DESK, NIGHT, ELSEWHERE = "+15550100002", "+15550100003", "+15550100004"
NEW_YORK = {"time_zone": "America/New_York", "open": {"mon-fri": "08:00-18:00"}}
EVENING = {"time_zone": "America/New_York", "open": {"mon-fri": "19:00-23:00"}}


def heard(trace):
    """Seconds of the agent's voice on the phone."""
    return 0.0 if trace.stream is None else (trace.stream.agent_audio != 0).sum() / 8000


# ---- who answers


async def test_each_number_has_its_agent_and_every_other_the_rest(house):
    house = await house(
        {
            "desk": {"numbers": [DESK], "greeting_text": "The desk."},
            "pharmacy": {"numbers": [NIGHT, "+15550100005"], "greeting_text": "The pharmacy."},
            "rest": {"numbers": ["*"], "greeting_text": "Somebody."},
        }
    )
    said = {}
    for number in (DESK, NIGHT, "+15550100005", ELSEWHERE):
        trace = await house.call(number)
        said[number] = house.event(trace, "agent_text")["text"]
        agent = house.event(trace, "call_started")["agent"]
        assert said[number] == house.gateway.reception.agents[agent].greeting_text
        assert heard(trace) == pytest.approx(0.5, abs=0.03)
        assert house.events(trace)[-1]["cause"] == "caller_hung_up"
    assert [*said.values()] == ["The desk.", "The pharmacy.", "The pharmacy.", "Somebody."]
    assert house.nothing_left()


async def test_a_number_without_an_agent_is_told_so(house):
    house = await house({"desk": {"numbers": [DESK]}})
    trace = await house.call(ELSEWHERE)
    assert trace.said == [ENGLISH.nobody]
    assert house.names(trace) == ["call_offered", "call_refused", "call_ended"]
    assert house.event(trace, "call_refused") == {"reason": "no_agent"}
    assert house.nothing_left()


async def test_the_greeting_is_there_before_the_call(house, engine):
    house = await house({"desk": {"greeting_text": "The desk.", "instructions": "Be kind."}})
    trace = await house.call(DESK)
    assert house.names(trace)[1:4] == ["call_started", "greeting_ready", "answer_started"]
    assert house.event(trace, "greeting_ready")["ahead"] >= 0
    # Asked for once: what was begun at the webhook is what is heard.
    (session,) = engine.sessions
    told = system_prompt(False, "Be kind.", ())
    assert [(one.say, one.system) for one in session.requests] == [("The desk.", told)]
    assert heard(trace) == pytest.approx(0.5, abs=0.03)


# ---- hours


async def test_a_closed_agent_says_so_in_its_own_words_or_ours(house, engine):
    house = await house(
        {
            "desk": {"numbers": [DESK], "hours": EVENING, "language": "zh-CN"},
            "night": {
                "numbers": [NIGHT],
                "hours": {**NEW_YORK, "holidays": ["2023-11-14"]},
                "outside": {"say": "Today is a holiday."},
            },
            "open": {"numbers": [ELSEWHERE], "hours": NEW_YORK},
        }
    )
    closed = await house.call(DESK)
    assert closed.said == [CHINESE.closed]
    assert house.event(closed, "call_refused") == {"agent": "desk", "reason": "closed"}
    holiday = await house.call(NIGHT)
    assert holiday.said == ["Today is a holiday."]
    assert engine.sessions == []
    assert house.event(await house.call(ELSEWHERE), "call_started")["agent"] == "open"


async def test_outside_its_hours_another_agent_answers(house):
    house = await house(
        {
            "desk": {
                "numbers": [DESK],
                "hours": EVENING,
                "outside": {"then": "agent", "agent": "night"},
            },
            "night": {"numbers": [NIGHT], "greeting_text": "The night desk.", "hours": EVENING},
        }
    )
    trace = await house.call(DESK)
    assert house.event(trace, "call_started")["agent"] == "night"
    assert house.event(trace, "agent_text")["text"] == "The night desk."


async def test_outside_its_hours_a_call_is_forwarded(house):
    outside = {"then": "forward", "number": ELSEWHERE}
    book = PhoneBook.model_validate({"numbers": {ELSEWHERE: {"stays_ms": 5000}}})
    house = await house({"desk": {"hours": EVENING, "outside": outside}}, book)
    trace = await house.call(DESK)
    assert trace.said == [ENGLISH.forward]
    (dial,) = trace.dials
    assert (dial.to, dial.outcome) == ((ELSEWHERE,), "completed")
    assert house.names(trace) == ["call_offered", "call_forwarded", "call_ended"]
    assert house.event(trace, "call_forwarded") == {"agent": "desk", "reason": "closed"}
    assert trace.errors == []
    assert house.nothing_left()


async def test_who_is_forwarded_in_vain_is_not_left_in_silence(house):
    outside = {"then": "forward", "number": ELSEWHERE, "say": "One moment."}
    book = PhoneBook.model_validate({"numbers": {ELSEWHERE: {"outcome": "busy"}}})
    house = await house({"desk": {"hours": EVENING, "outside": outside}}, book)
    trace = await house.call(DESK)
    assert trace.said == ["One moment.", ENGLISH.apology]
    assert house.event(trace, "forward_failed") == {"status": "busy"}
    # What became of it elsewhere is told after the agent's part has ended.
    assert house.names(trace)[-2:] == ["call_ended", "forward_failed"]


# ---- no place


async def test_a_call_waits_until_a_line_is_free(house):
    wait = {"then": "wait", "say": "Please hold."}
    house = await house({"desk": {"busy": wait}}, speaks=False, max_calls=1)
    first, talking = house.begin(DESK, seconds=12)
    await house.until(first, "call_started")
    second = await house.call(DESK)
    await talking
    assert second.said == ["Please hold."]
    assert house.event(second, "call_waiting") == {"agent": "desk", "ahead": 0}
    assert house.event(second, "call_started")["waited"] > 0
    assert house.names(second)[1] == "call_waiting"
    assert second.errors == []
    assert house.nothing_left()


async def test_a_long_wait_is_explained_again(house):
    house = await house({"desk": {"busy": {"then": "wait"}}}, speaks=False, max_calls=1)
    with house.taken("desk"):
        trace = await house.call(DESK)
    assert trace.said.count(ENGLISH.wait) == 4
    assert len(trace.requests) > 20


async def test_who_has_waited_in_vain_is_forwarded_or_refused(house):
    wait = {"then": "wait", "longest_wait_secs": 20}
    house = await house(
        {
            "desk": {"numbers": [DESK], "busy": wait},
            "night": {"numbers": [NIGHT], "busy": {**wait, "number": ELSEWHERE}},
        },
        PhoneBook.model_validate({"everybody_else": {"stays_ms": 1000}}),
        max_calls=1,
    )
    with house.taken("desk"):
        refused, forwarded = await asyncio.gather(house.call(DESK), house.call(NIGHT))
    assert refused.said[0] == ENGLISH.wait
    assert refused.said[-1] == ENGLISH.busy
    refusal = house.event(refused, "call_refused")
    assert refusal["reason"] == "busy"
    assert refusal["waited"] >= 20
    assert forwarded.said[-1] == ENGLISH.forward
    assert forwarded.dials[0].to == (ELSEWHERE,)
    assert house.nothing_left()


async def test_who_hangs_up_while_waiting_leaves_nothing_behind(house, engine):
    house = await house({"desk": {"busy": {"then": "wait"}}}, max_calls=1)
    with house.taken("desk"):
        trace, waiting = house.begin(DESK)
        await house.until(trace, "call_waiting")
        assert house.gateway.switchboard.waiting == 1
        # The simulated caller stays through every verb; Twilio would report this.
        fields = {"CallSid": trace.call_sid, "CallStatus": "completed"}
        async with house.post("/status", fields) as response:
            assert response.status == 204
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert house.events(trace)[-1]["cause"] == "caller_hung_up"
    assert engine.sessions == []
    assert house.nothing_left()


async def test_a_waiting_call_that_is_never_heard_of_again_is_forgotten(house, eventually):
    house = await house({"desk": {"busy": {"then": "wait"}}}, max_calls=1)
    with house.taken("desk"):
        assert "<Redirect" in await house.gateway.reception.receive("CA1", DESK)
        await eventually(lambda: house.gateway.switchboard.waiting == 0)
    assert house.nothing_left()


async def test_a_full_agent_forwards_and_another_still_answers(house):
    house = await house(
        {
            "desk": {
                "numbers": [DESK],
                "limits": {"calls": 1},
                "busy": {"then": "forward", "number": ELSEWHERE, "say": "Another desk."},
            },
            "rest": {},
        },
        PhoneBook.model_validate({"everybody_else": {"stays_ms": 1000}}),
        max_calls=2,
    )
    with house.taken("desk"):
        full = await house.call(DESK)
        answered = await house.call(NIGHT)
    assert full.said == ["Another desk."]
    assert house.event(full, "call_forwarded") == {"agent": "desk", "reason": "busy"}
    assert house.event(answered, "call_started")["agent"] == "rest"


async def test_the_engine_says_how_many_calls_there_is_room_for(house, engine):
    house = await house(
        {"desk": {"busy": {"say": "Too much to do."}}}, talk_share=0.5, speaks=False
    )
    engine.carries = 1.0
    with house.taken("desk", "CA1"), house.taken("desk", "CA2"):
        assert (await house.call(DESK)).said == ["Too much to do."]
        # It does better than it thought: a piece costs less.
        engine.carries = 1.5
        names = house.names(await house.call(DESK))
        assert names == ["call_offered", "call_started", "call_ended"]
    # And worse: nobody is cut off for that.
    running, talking = house.begin(DESK, seconds=10)
    await house.until(running, "call_started")
    engine.carries = 0.1
    assert (await house.call(DESK)).said == ["Too much to do."]
    await talking
    assert running.cause is Cause.CALLER_HUNG_UP
    assert house.nothing_left()


async def test_without_an_engine_calls_go_where_there_is_a_number(house, engine):
    house = await house(
        {
            "desk": {"numbers": [DESK], "busy": {"number": ELSEWHERE}},
            "night": {"numbers": [NIGHT]},
        }
    )
    engine.error = RuntimeError("connection refused")
    forwarded = await house.call(DESK)
    assert forwarded.dials[0].to == (ELSEWHERE,)
    assert house.event(forwarded, "call_forwarded")["reason"] == "engine"
    refused = await house.call(NIGHT)
    assert refused.said == [ENGLISH.apology]
    assert engine.sessions == []
    assert house.nothing_left()


# ---- calls that never come


async def test_a_call_whose_socket_never_opens_is_forgotten_in_time(house, engine, eventually):
    house = await house({"desk": {}})
    for number in range(3):
        fields = {"CallSid": f"CA{number}", "To": DESK}
        async with house.post("/voice", fields) as response:
            assert "<Stream" in await response.text()
    async with asyncio.timeout(30):
        await house.gateway.switchboard.empty()
    assert len(engine.sessions) == 3
    await eventually(lambda: all(session.closed for session in engine.sessions))
    assert house.of("CA0")[-1]["cause"] == "never_connected"
    assert house.nothing_left()


async def test_a_webhook_that_comes_twice_prepares_once(house, engine):
    house = await house({"desk": {}})
    reception = house.gateway.reception
    first, second = await asyncio.gather(*(reception.receive("CA1", DESK) for _ in range(2)))
    assert "<Stream" in first
    assert "<Stream" in second
    assert len(engine.sessions) == 1
    await reception.leave("CA1", "caller_hung_up")
    assert house.nothing_left()
