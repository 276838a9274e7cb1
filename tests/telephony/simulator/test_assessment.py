"""Whole calls, judged as a whole: at any time, by the audio, by the tools, by their end."""

import sqlite3

import pytest
from aiohttp import web

from telephony.media_streams import Media, Start, Stop
from telephony.simulator.rehearsal import run_scenario

BOOK = {"name": "book", "arguments": {"day": "Tuesday"}}


@pytest.fixture
def rehearse(agent, scenario, clock):
    """Runs one scenario and gives its report."""

    async def run(turns, records=True, **fields):
        return await run_scenario(
            scenario(turns, **fields),
            agent.target,
            None,
            records=agent.records if records else None,
            clock=clock,
        )

    return run


@pytest.fixture
async def service(aiohttp_server, monkeypatch):
    """A recogniser and a judge."""

    class Service:
        prompts: list[str]
        heard = 0

        async def transcriptions(self, request):
            self.heard += 1
            return web.json_response({"text": f"you have said thing {self.heard}"})

        async def completions(self, request):
            self.prompts.append((await request.json())["messages"][0]["content"])
            return web.json_response({"choices": [{"message": {"content": "Good. [[9]]"}}]})

    service = Service()
    service.prompts = []
    app = web.Application()
    app.add_routes(
        [web.post("/asr", service.transcriptions), web.post("/chat", service.completions)]
    )
    server = await aiohttp_server(app)
    monkeypatch.setenv("REHEARSAL_ASR_URL", str(server.make_url("/asr")))
    monkeypatch.setenv("REHEARSAL_JUDGE_URL", str(server.make_url("/chat")))
    return service


def verdicts(checks):
    return {f"{check.name} {check.expected}": check.passed for check in checks}


async def test_what_is_said_at_any_time_is_said_in_one_answer(rehearse):
    report = await rehearse(
        [{}, {}],
        greeting=True,
        expect={"words": ["thing two", "hello"], "never": ["thing 1", "thing 3"]},
    )

    found = verdicts(report.checks)
    assert found["words “thing two”"]
    assert found["words “hello”"]
    assert found["never not “thing 1”"] is False
    assert found["never not “thing 3”"]


async def test_tools_belong_to_the_turn_in_which_they_were_called(agent, rehearse):
    polite = agent.behave

    async def booking(line):
        record = line.record

        def with_tools(name, /, **fields):
            record(name, **fields)
            if name == "turn_decided":
                day = "Monday" if fields["turn"] == 1 else "Tuesday"
                record("tool_call", name="book", arguments={"day": day}, call_id=day)
                record("tool_result", call_id=day, result="done")

        line.record = with_tools
        await polite(line)

    agent.behave = booking
    report = await rehearse(
        [{"expect": {"tools": {"called": [BOOK]}}}, {"expect": {"tools": {"called": [BOOK]}}}],
        greeting=True,
        expect={"tools": {"called": [BOOK], "others": False, "never": ["cancel"]}},
    )

    by_turn = [{c.name: c.passed for c in turn.checks}.get("tools.called") for turn in report.turns]
    assert by_turn == [None, False, True]
    assert {c.name: c.passed for c in report.checks if "tools" in c.name} == {
        "tools.called": True,
        "tools.never": True,
        "tools.others": False,
    }


async def test_an_agent_whose_record_is_not_there_has_not_called_nothing(rehearse, agent):
    agent.records = agent.records.with_name("elsewhere.jsonl")
    report = await rehearse(
        [{}],
        records=False,
        expect={"tools": {"never": ["cancel"]}, "never": ["a"], "heard": {"never": ["a"]}},
    )

    assert [check.passed for check in report.checks[-3:]] == [None] * 3


async def test_the_audio_is_read_by_a_recogniser_without_the_agents_records(rehearse, service):
    report = await rehearse(
        [{"expect": {"audio": {"words": ["thing 2"]}}}, {"expect": {"answered": True}}],
        records=False,
        greeting={"expect": {"audio": {"words": ["thing 1"], "never": ["thing 2"]}}},
        expect={"audio": {"words": ["thing three"], "never": ["thing 4"]}},
    )

    assert report.passed, report.model_dump_json(indent=1)
    greeting, first, second = report.turns
    assert greeting.recognised == "you have said thing 1"
    assert first.recognised == "you have said thing 2"
    assert second.recognised is None
    # Each stretch was read once, though turn and call both ask.
    assert service.heard == 3


async def test_a_judge_reads_the_conversation_as_far_as_it_has_gone(rehearse, service):
    polite = {"criterion": "It is polite."}
    report = await rehearse(
        [{"expect": {"judge": [polite]}}, {}],
        greeting=True,
        expect={"judge": [{**polite, "threshold": 9.5}]},
    )

    by_turn, by_call = service.prompts
    told = "agent: Hello, this is the test.\ncaller: line 1\nagent: You have said thing 1."
    assert by_turn.rstrip().endswith(told)
    more = f"{told}\ncaller: line 2\nagent: You have said thing 2."
    assert by_call.rstrip().endswith(more)
    assert report.turns[1].passed
    assert report.checks[-1].passed is False


async def test_a_judge_that_cannot_be_reached_leaves_the_check_unknown(rehearse, monkeypatch):
    monkeypatch.setenv("REHEARSAL_JUDGE_URL", "http://127.0.0.1:9/chat")

    report = await rehearse([{}], expect={"judge": [{"criterion": "It is polite."}]})

    assert report.checks[-1].passed is None
    assert "127.0.0.1:9" in report.checks[-1].found


async def test_the_expected_end_may_be_another_one(agent, rehearse):
    async def hangs_up(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(0.5)
            if len(line.frames) == 60:
                await line.socket.close()

    agent.behave = hangs_up
    turns = [{"when": {"at_ms": 0}, "expect": {"answered": False}}]
    as_expected = await rehearse(turns, records=False, expect={"cause": "agent_hung_up"})
    unexpected = await rehearse(turns, records=False, expect={"errors": [31921]})

    assert as_expected.passed, as_expected.model_dump_json(indent=1)
    assert {check.name for check in unexpected.checks if not check.passed} == {"cause", "errors"}


async def test_a_refusal_may_be_what_is_wanted(agent, rehearse):
    agent.twiml = "<Response><Reject/></Response>"

    report = await rehearse([{}], expect={"cause": "refused"})

    assert report.passed, report.model_dump_json(indent=1)


async def test_silences_of_the_call_and_pauses_of_an_answer_are_measured(agent, rehearse):
    async def halting(line):
        spoken = 0
        async for event in line.events():
            if isinstance(event, Media):
                spoken += 1
            # The line is heard from 0.1 s to 1.1 s; an answer at 2.0 s with a pause of 0.5 s.
            if spoken == 100 or spoken == 150:
                await line.say(0.5)
                spoken += 1
            if isinstance(event, Stop):
                return

    agent.behave = halting
    turn = {"when": {"at_ms": 0}, "expect": {"longest_pause_ms": 450, "longest_gap_ms": 550}}
    report = await rehearse(
        [turn],
        records=False,
        expect={
            "longest_silence_ms": 850,
            "longest_gap_ms": 450,
            "answer_within_ms": 950,
            "at_least_ms": 10_000,
            "at_most_ms": 5000,
        },
    )

    failed = {check.name for check in [*report.turns[0].checks, *report.checks] if not check.passed}
    assert failed == {"longest_pause_ms", "longest_silence_ms", "longest_gap_ms", "at_least_ms"}


async def test_nobody_is_asked_about_a_transfer_that_did_not_happen(rehearse):
    to_nobody = await rehearse([{}], expect={"transferred_to": "nobody"})
    to_desk = await rehearse([{}], expect={"transferred_to": "+1 555 010 0003"})

    assert to_nobody.checks[-1].passed
    assert (to_desk.checks[-1].passed, to_desk.checks[-1].found) == (False, "nobody")


async def test_a_database_is_looked_at_after_the_call(agent, rehearse, tmp_path):
    pytest.importorskip("sqlalchemy", reason="checks of a database need SQLAlchemy")
    path = tmp_path / "clinic.db"
    polite = agent.behave

    async def booking(line):
        await polite(line)
        with sqlite3.connect(path) as database:
            database.execute("create table bookings (day text)")
            database.execute("insert into bookings values ('Tuesday')")
        database.close()

    agent.behave = booking
    query = {"url": f"sqlite:///{path}", "query": "select day from bookings"}
    report = await rehearse([{}], expect={"database": [{**query, "rows": [["Tuesday"]]}]})

    assert report.checks[-1].passed, report.checks[-1]
