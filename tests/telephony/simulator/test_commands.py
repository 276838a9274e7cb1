"""The commands behind ``glm-voice simulate``."""

import asyncio
import io

import pytest
import yaml

from telephony.simulator import Outputs, Plan, SuiteReport, commands, rehearse, simulate
from telephony.simulator.gateway_process import GatewayError


async def mute(line):
    async for _ in line.events():
        pass


@pytest.fixture
def scenario_file(tmp_path, wav):
    def write(**fields):
        turn = {"say": "line 1", "wav": wav(seconds=0.3).name, "expect": {"answered": False}}
        path = tmp_path / "scenario.yaml"
        longest = fields.pop("longest_ms", 900)
        content = {"name": "short", "turns": [{**turn, **fields}], "longest_ms": longest}
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize(("answered", "expected_status"), [(False, 0), (True, 1)])
async def test_a_rehearsal_from_a_file_leaves_its_report_and_an_exit_status(
    agent, scenario_file, tmp_path, answered, expected_status
):
    agent.behave = mute
    out = io.StringIO()

    status = await asyncio.to_thread(
        simulate,
        [scenario_file(when={"at_ms": 100}, expect={"answered": answered})],
        agent.target.voice_url,
        agent.target.auth_token,
        Outputs(tmp_path / "runs"),
        via=agent.target.via,
        out=out,
    )

    (directory,) = (tmp_path / "runs").iterdir()
    assert agent.forged == []
    assert status == expected_status
    files = {"call.json", "call.wav", "report.html", "report.json", "timeline.png"}
    assert {path.name for path in directory.iterdir()} == files
    assert str(directory) in out.getvalue()


def test_a_wrong_address_is_named(scenario_file, tmp_path):
    with pytest.raises(ValueError, match="voice_url: expected an http"):
        simulate([scenario_file()], "localhost:8080", "token", Outputs(tmp_path))


async def test_several_calls_leave_their_reports_where_they_were_asked_for(
    agent, scenario_file, tmp_path
):
    agent.behave = mute
    outputs = Outputs(
        directory=tmp_path / "run",
        html=tmp_path / "page" / "index.html",
        json=tmp_path / "all.json",
        junit=tmp_path / "junit.xml",
    )
    out = io.StringIO()

    status = await asyncio.to_thread(
        simulate,
        [scenario_file(when={"at_ms": 100})],
        agent.target.voice_url,
        agent.target.auth_token,
        outputs,
        plan=Plan(repeat=2, parallel=2),
        via=agent.target.via,
        out=out,
    )

    assert status == 0
    calls = [path.name for path in sorted((tmp_path / "run").iterdir())]
    assert calls == ["001-short.1", "001-short.2"]
    files = {path.name for path in (tmp_path / "run" / "001-short.1").iterdir()}
    assert files == {"call.json", "call.wav"}
    report = SuiteReport.model_validate_json((tmp_path / "all.json").read_text())
    assert [attempt.directory for attempt in report.attempts] == calls
    assert (tmp_path / "page" / "index.html").read_text().count("<audio ") == 2
    assert (tmp_path / "junit.xml").read_text().count("<testcase ") == 2
    assert "All 2 calls went as expected." in out.getvalue()


def test_a_directory_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "earlier.json").write_text("{}")
    with pytest.raises(ValueError, match=r"--out: .* is not empty"):
        Outputs(directory=tmp_path).make()
    with pytest.raises(ValueError, match=r"--junit: .* is a directory"):
        Outputs(directory=tmp_path / "new", junit=tmp_path).make()
    assert not (tmp_path / "new").exists()


@pytest.fixture
def gateway(agent, monkeypatch):
    """The agent of this process in the place of a gateway that would have to be started."""

    class Started:
        target, records = agent.target, None
        trouble = None

        def __init__(self, directory, **_):
            pass

        async def __aenter__(self):
            if self.trouble is not None:
                raise self.trouble
            return self

        async def __aexit__(self, *_):
            pass

    monkeypatch.setattr(commands, "GatewayProcess", Started)
    return Started


async def test_one_call_to_a_gateway_of_its_own_is_shown_as_it_goes_on(
    agent, gateway, scenario_file, tmp_path
):
    agent.behave = mute
    out = io.StringIO()
    paths = [scenario_file(when={"at_ms": 100})]

    status = await asyncio.to_thread(rehearse, paths, Outputs(tmp_path / "runs"), out=out)

    order = [
        "Starting Triton and the gateway",
        "short: +15550100001 calls +15550100002",
        "caller line 1",
        "the caller hung up after",
        "Every turn was answered as expected.",
    ]
    places = [out.getvalue().index(line) for line in order]
    assert places == sorted(places)
    assert status == 0


async def test_a_budget_that_ran_out_has_a_status_of_its_own(
    agent, gateway, scenario_file, tmp_path
):
    agent.behave = mute
    out = io.StringIO()
    paths = [scenario_file(longest_ms=60_000)]

    status = await asyncio.to_thread(
        rehearse, paths, Outputs(tmp_path / "runs"), plan=Plan(budget=0.2), out=out
    )

    assert status == 3
    assert "The budget ran out: 1 of 1 calls were not made or not finished." in out.getvalue()


async def test_a_gateway_that_does_not_start_is_a_failure_and_says_why(
    gateway, scenario_file, tmp_path
):
    gateway.trouble = GatewayError("it ended with status 1")
    out = io.StringIO()
    outputs = Outputs(tmp_path / "runs")

    assert await asyncio.to_thread(rehearse, [scenario_file()], outputs, out=out) == 1
    assert "it ended with status 1" in out.getvalue()
