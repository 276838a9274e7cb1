"""Whole calls against an agent in this process, in virtual time."""

import asyncio
import json

import numpy as np
import pytest
import soundfile

from telephony.media_streams import Media, Play, Start, Stop
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.report import CallReport


async def test_a_call_is_placed_spoken_and_reported(agent, scenario, clock, tmp_path):
    script = scenario(
        [
            {"expect": {"words": ["thing"], "matches": "said .* 1"}},
            {"expect": {"similar_to": "You have said thing two", "answer_within_ms": 700}},
        ],
        greeting=True,
    )
    out = tmp_path / "run"

    report = await run_scenario(script, agent.target, out, records=agent.records, clock=clock)

    assert agent.forged == []
    assert report.passed, report.model_dump_json(indent=1)
    greeting, first, _ = report.turns
    assert greeting.agent == "Hello, this is the test."
    assert first.agent == "You have said thing 1."
    assert first.latency is not None
    assert first.latency.voice_to_voice == pytest.approx(540, abs=25)
    # Begun 15 ms ahead: the tokens were there, and 5 ms of the model's time.
    assert first.latency.tokenise == 0.0
    assert first.latency.first_token == pytest.approx(15.0)
    assert first.latency.saved == pytest.approx(15.0)
    assert first.understood == "line 1"
    parts = first.latency.model_dump(exclude={"voice_to_voice", "saved"})
    assert sum(parts.values()) == pytest.approx(first.latency.voice_to_voice)
    assert [mark.cleared for mark in report.marks] == [False] * 3
    line = agent.lines[0]
    assert line.stopped
    assert line.start is not None
    assert line.start.parameters == {"caller": "somebody"}
    assert [frame.timestamp for frame in line.frames[:3]] == [0, 20, 40]
    assert [frame.chunk for frame in line.frames[:3]] == [1, 2, 3]
    assert agent.callbacks[0]["CallStatus"] == "completed"

    loaded = json.loads((out / "call.json").read_text())
    assert loaded["passed"] is True
    audio, rate = soundfile.read(out / "call.wav", dtype="int16")
    assert rate == 8000
    assert len(audio) == pytest.approx(report.duration * 8000)
    begin, end = (round(second * 8000) for second in first.speech)
    assert np.abs(audio[begin:end, 0].astype(int)).mean() > 1000
    assert np.abs(audio[begin:end, 1]).max() == 0
    assert (out / "timeline.png").stat().st_size > 10_000


async def test_a_barge_in_is_timed_and_its_cut_history_checked(agent, scenario, clock):
    interrupt = {
        "when": {"during_agent": {"after_ms": 700}},
        "expect": {"silent_within_ms": 120, "history_cut": True},
    }

    report = await run_scenario(
        scenario([{}, interrupt], greeting=True),
        agent.target,
        None,
        records=agent.records,
        clock=clock,
    )

    assert report.passed, report.model_dump_json(indent=1)
    barge_in = report.turns[2].barge_in
    assert barge_in is not None
    assert barge_in.after_ms == pytest.approx(800, abs=25)
    assert barge_in.kept == "You have said"
    assert len(report.clears) == 1
    assert [mark.name for mark in report.marks if mark.cleared] == ["answer 1"]


async def test_an_agent_that_talks_on_fails_the_barge_in(agent, scenario, clock):
    async def deaf(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(6.0)

    agent.behave = deaf
    interrupt = {
        "when": {"during_agent": {"after_ms": 700}},
        "expect": {"silent_within_ms": 300, "answered": False},
    }

    report = await run_scenario(
        scenario([interrupt], greeting=True, patience_ms=500), agent.target, None, clock=clock
    )

    failed = {check.name for turn in report.turns for check in turn.checks if not check.passed}
    assert failed == {"silent_within_ms"}


async def test_a_pause_at_the_moment_of_a_barge_in_is_not_taken_for_silence(agent, scenario, clock):
    async def slow_to_yield(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(0.8)
                await line.send(Play(line.sid, bytes([0xFF]) * 4000))
                await line.say(0.3)

    agent.behave = slow_to_yield
    interrupt = {"when": {"during_agent": {"after_ms": 900}}, "expect": {"answered": False}}

    report = await run_scenario(
        scenario([interrupt], greeting=True, patience_ms=300), agent.target, None, clock=clock
    )

    barge_in = report.turns[1].barge_in
    assert barge_in is not None
    assert barge_in.silent_after_ms == pytest.approx(1600 - 1000, abs=25)


async def test_a_barge_in_that_comes_too_late_is_no_barge_in(agent, scenario, clock):
    interrupt = {"when": {"during_agent": {"after_ms": 5000}}}

    report = await run_scenario(
        scenario([interrupt], greeting=True),
        agent.target,
        None,
        records=agent.records,
        clock=clock,
    )

    failed = [check.name for check in report.turns[1].checks if not check.passed]
    assert failed == ["over_agent"]


async def test_silence_after_a_turn_fails_it_and_the_call_goes_on(agent, scenario, clock):
    async def mute(line):
        async for _ in line.events():
            pass

    agent.behave = mute

    report = await run_scenario(
        scenario([{}, {"expect": {"answered": False}}], patience_ms=400),
        agent.target,
        None,
        clock=clock,
    )

    assert [turn.passed for turn in report.turns] == [False, True]
    assert report.turns[1].speech is not None
    assert report.cause == "the caller hung up"


async def test_expectations_on_text_are_unknown_without_the_agents_records(agent, scenario, clock):
    report = await run_scenario(
        scenario([{"expect": {"words": ["thing"]}}], greeting=True),
        agent.target,
        None,
        clock=clock,
    )

    assert [check.passed for check in report.turns[1].checks] == [True, None]
    assert not report.passed


async def test_a_refused_call_reports_what_twilio_said(agent, scenario, clock, tmp_path):
    agent.twiml = "<Response><Say>All lines are busy.</Say><Hangup/></Response>"

    report = await run_scenario(scenario([{}]), agent.target, tmp_path / "run", clock=clock)

    assert report.cause == "the call was refused"
    assert report.said == ["All lines are busy."]
    assert not report.passed
    assert report.turns[0].checks[0].found == "it was not"
    assert json.loads((tmp_path / "run" / "call.json").read_text())["said"] == report.said


@pytest.mark.parametrize(
    ("twiml", "code"),
    [
        ("<Response><Connect>", 12100),
        (
            "<Response><Connect><Stream url='http://phone.example/media'/></Connect></Response>",
            12200,
        ),
        ("<Response><Enqueue/></Response>", 12200),
        ("<Response><Connect><Stream url='wss://phone.example/no'/></Connect></Response>", 31920),
    ],
)
async def test_twiml_that_cannot_be_executed_is_in_the_error_log(
    agent, scenario, clock, twiml, code
):
    agent.twiml = twiml

    report = await run_scenario(scenario([{}]), agent.target, None, clock=clock)

    assert [error.code for error in report.errors] == [code]
    assert not report.passed


async def test_a_webhook_that_fails_is_in_the_error_log(agent, scenario, clock):
    agent.status = 403

    report = await run_scenario(scenario([{}]), agent.target, None, clock=clock)

    assert [error.code for error in report.errors] == [11200]
    assert report.errors[0].detail == "the webhook answered 403"


async def test_a_torn_socket_leaves_a_complete_record(agent, scenario, clock, tmp_path):
    async def torn(line):
        async for _ in line.events():
            if len(line.frames) == 30:
                await line.say(3.0, "never played")
            if len(line.frames) == 60:
                assert line.socket._req is not None
                line.socket._req.transport.abort()
                return

    agent.behave = torn

    report = await run_scenario(
        scenario([{"when": {"at_ms": 0}}]), agent.target, tmp_path / "run", clock=clock
    )

    assert report.cause == "the media stream failed"
    assert [error.code for error in report.errors] == [31921]
    assert report.marks[0].returned is None
    assert report.unplayed > 2
    assert report.turns[0].speech is not None
    assert report.turns[0].speech[1] <= report.duration
    written = CallReport.model_validate_json((tmp_path / "run" / "call.json").read_text())
    assert written == report
    assert (tmp_path / "run" / "call.wav").exists()
    assert (tmp_path / "run" / "timeline.png").exists()


async def test_an_agent_that_hangs_up_ends_the_call_with_the_twiml_that_follows(
    agent, scenario, clock
):
    agent.twiml = agent.twiml.replace("</Connect>", "</Connect><Say>Goodbye.</Say>")

    async def rude(line):
        async for _ in line.events():
            if len(line.frames) == 10:
                await line.socket.close()

    agent.behave = rude

    report = await run_scenario(scenario([{}]), agent.target, None, clock=clock)

    assert report.cause == "the agent hung up"
    assert report.said == ["Goodbye."]
    assert report.errors == []


async def test_messages_twilio_cannot_use_are_logged_and_skipped(agent, scenario, clock):
    async def garbled(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.socket.send_str("no json")
                await line.socket.send_str('{"event":"media","streamSid":"MZ0"}')
                await line.say(1.0, "still works")

    agent.behave = garbled

    report = await run_scenario(
        scenario([{"expect": {"answered": False}}], greeting=True, patience_ms=300),
        agent.target,
        None,
        clock=clock,
    )

    assert [error.code for error in report.errors] == [31951, 31951]
    assert report.marks[0].returned is not None
    assert report.cause == "the caller hung up"


async def test_gaps_in_an_answer_are_found(agent, scenario, clock):
    async def choppy(line):
        async for event in line.events():
            if isinstance(event, Media) and len(line.frames) in (5, 20):
                await line.say(0.2)
            if isinstance(event, Stop):
                return

    agent.behave = choppy

    report = await run_scenario(
        scenario([{"expect": {"answered": False}}], greeting=True, patience_ms=300),
        agent.target,
        None,
        clock=clock,
    )

    assert [round(end - begin, 2) for begin, end in report.gaps] == [pytest.approx(0.1, abs=0.021)]


async def test_a_rehearsal_that_is_broken_off_leaves_its_report(agent, scenario, clock, tmp_path):
    under_way = asyncio.Event()

    async def mute(line):
        async for _ in line.events():
            if len(line.frames) > 20:
                under_way.set()

    agent.behave = mute
    call = asyncio.create_task(
        run_scenario(scenario([{}]), agent.target, tmp_path / "run", clock=clock)
    )
    await under_way.wait()

    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    report = CallReport.model_validate_json((tmp_path / "run" / "call.json").read_text())
    assert report.cause == "the rehearsal was broken off"
    assert report.duration > 0.3
    assert not report.passed
