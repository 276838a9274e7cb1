"""Many calls in one run, against an agent in this process, in virtual time."""

import asyncio
import io
import json

import pytest
import yaml

from telephony.simulator.progress import Progress
from telephony.simulator.suite import Plan, Script, collect, run_suite
from telephony.simulator.suite_report import Outcome


async def mute(line):
    async for _ in line.events():
        pass


@pytest.fixture
def scripts(scenario, tmp_path):
    """Calls in which nobody answers and nobody should, of so many milliseconds."""

    def build(*lengths):
        turn = {"when": {"at_ms": 0}, "expect": {"answered": False}}
        return [
            Script(
                tmp_path / f"{n}.yaml",
                scenario([turn], longest_ms=length).model_copy(update={"name": f"Call №{n}!"}),
            )
            for n, length in enumerate(lengths, 1)
        ]

    return build


class Log:
    """What a run told, in order."""

    def __init__(self):
        self.calls = []
        self.most = 0
        self._now = 0

    def call_begins(self, script, number):
        self.calls.append((script.file.stem, number))
        self._now += 1
        self.most = max(self.most, self._now)
        return Progress(io.StringIO(), 1, Plan()).call_begins(script, number)

    def call_ends(self, script, attempt):
        self._now -= 1


async def test_every_scenario_has_had_a_call_before_any_has_its_second(
    agent, scripts, clock, tmp_path
):
    agent.behave, log = mute, Log()

    report = await run_suite(
        scripts(1200, 1300), agent.target, tmp_path, plan=Plan(repeat=2), watcher=log, clock=clock
    )

    assert log.calls == [("1", 1), ("2", 1), ("1", 2), ("2", 2)]
    assert log.most == 1
    assert report.outcome is Outcome.PASSED
    assert len({attempt.call.call_sid for attempt in report.attempts}) == 4
    names = [attempt.directory for attempt in report.attempts]
    assert names == ["001-call-1.1", "001-call-1.2", "002-call-2.1", "002-call-2.2"]
    assert all((tmp_path / name / "call.json").exists() for name in names)


async def test_no_more_calls_than_allowed_are_on_the_line_at_once(agent, scripts, clock):
    agent.behave, log = mute, Log()

    report = await run_suite(
        scripts(*[1200] * 5), agent.target, None, plan=Plan(parallel=2), watcher=log, clock=clock
    )

    assert log.most == 2
    assert report.made == 5
    # Three rounds of 1.2 s, though no clock is so exact.
    assert 3.6 <= report.seconds < 4.8


async def test_what_does_not_fit_into_the_budget_is_skipped_and_hung_up(agent, scripts, clock):
    clock.long = 1.0
    agent.behave = mute

    report = await run_suite(
        scripts(1200, 60_000, 1200), agent.target, None, plan=Plan(budget=5.0), clock=clock
    )

    assert [attempt.outcome for attempt in report.attempts] == ["passed", "skipped", "skipped"]
    assert [attempt.skipped for attempt in report.attempts[1:]] == [
        "the budget ran out during this call",
        "the budget ran out before this call",
    ]
    assert report.exit_status == 3
    assert report.seconds < 20.0
    assert len(agent.lines) == 2


async def test_a_call_that_breaks_costs_no_other_call_anything(agent, scripts, clock):
    async def scribble_in_the_first_record(line):
        async for _ in line.events():
            if len(agent.lines) == 1 and line.start is not None:
                agent.records.write_text(json.dumps({"call_sid": line.start.call_sid}) + "\n")

    agent.behave = scribble_in_the_first_record

    report = await run_suite(
        scripts(1200, 1200), agent.target, None, records=agent.records, clock=clock
    )

    broken, whole = report.attempts
    assert broken.outcome is Outcome.ERROR
    assert "expected a JSON object with at and event" in broken.error
    assert whole.call is not None


async def test_a_run_that_is_broken_off_hangs_up(agent, scripts, clock):
    answered, gone = asyncio.Event(), asyncio.Event()

    async def listen(line):
        answered.set()
        try:
            await mute(line)
        finally:
            gone.set()

    agent.behave = listen
    run = asyncio.create_task(run_suite(scripts(60_000), agent.target, None, clock=clock))
    await answered.wait()

    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.wait_for(gone.wait(), 10)


async def test_progress_says_what_held_and_what_did_not(agent, scripts, clock):
    clock.long = 1.0
    agent.behave, out = mute, io.StringIO()
    good, bad, late = scripts(1200, 1200, 60_000)
    turn = bad.scenario.turns[0]
    expect = turn.expect.model_copy(update={"answered": True})
    bad = Script(
        bad.file,
        bad.scenario.model_copy(update={"turns": (turn.model_copy(update={"expect": expect}),)}),
    )
    plan = Plan(budget=10.0)
    progress = Progress(out, 3, plan)

    report = await run_suite(
        [good, bad, late], agent.target, None, plan=plan, watcher=progress, clock=clock
    )
    progress.suite_ends(report)

    lines = out.getvalue().splitlines()
    order = [
        "3 calls, 1 at a time, 10 s for all of them",
        "1/3  passed  0:01.2  Call №1!",
        "2/3  FAILED  0:01.2  Call №2!",
        "turn 1: FAILED answered: expected an answer; found silence",
        "3/3  skipped         Call №3!",
        "the budget ran out during this call",
        "all                                                   2       1",
    ]
    places = [next(i for i, line in enumerate(lines) if text in line) for text in order]
    assert places == sorted(places)
    assert "\x1b" not in out.getvalue()


@pytest.fixture
def file(tmp_path, wav):
    def write(name, **fields):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"name": name, "turns": [{"say": "line", "wav": str(wav())}], **fields}
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_a_directory_is_searched_for_scenarios_and_nothing_else(file, tmp_path):
    first, second = file("calls/a.yaml"), file("calls/deep/b.yml")
    file("calls/.hidden/c.yaml")
    (tmp_path / "calls" / "settings.yaml").write_text("agent: {}\n")

    found = collect([second, tmp_path / "calls", first])

    assert [script.file for script in found] == [second, first]
    assert [script.scenario.name for script in found] == ["calls/deep/b.yml", "calls/a.yaml"]


def test_everything_that_is_wrong_is_said_before_the_first_call(file, tmp_path):
    file("calls/a.yaml", patience=1)
    file("calls/b.yaml", turns=[{"say": "line", "wav": "absent.wav"}])
    (tmp_path / "calls" / "c.yaml").write_text("turns: [")
    (tmp_path / "empty").mkdir()

    with pytest.raises(ValueError, match=r"a\.yaml: unknown field patience") as error:
        collect([tmp_path / "calls", tmp_path / "empty", tmp_path / "absent.yaml"])

    lines = str(error.value)
    for part in ("absent.wav", "c.yaml: not a YAML file", "empty: no scenario", "absent.yaml: No"):
        assert part in lines
