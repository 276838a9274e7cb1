"""The commands behind ``glm-voice simulate``."""

import asyncio
import io

import pytest
import yaml

from telephony.simulator import simulate


@pytest.fixture
def scenario_file(tmp_path, wav):
    def write(**fields):
        turn = {"say": "line 1", "wav": wav(seconds=0.3).name, "expect": {"answered": False}}
        path = tmp_path / "scenario.yaml"
        content = {"name": "short", "turns": [{**turn, **fields}], "longest_ms": 900}
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize(("answered", "expected_status"), [(False, 0), (True, 1)])
async def test_a_rehearsal_from_a_file_leaves_its_report_and_an_exit_status(
    agent, scenario_file, tmp_path, answered, expected_status
):
    async def mute(line):
        async for _ in line.events():
            pass

    agent.behave = mute
    out = io.StringIO()

    status = await asyncio.to_thread(
        simulate,
        scenario_file(when={"at_ms": 100}, expect={"answered": answered}),
        agent.target.voice_url,
        agent.target.auth_token,
        tmp_path / "runs",
        via=agent.target.via,
        out=out,
    )

    (directory,) = (tmp_path / "runs").iterdir()
    assert agent.forged == []
    assert status == expected_status
    assert {path.name for path in directory.iterdir()} == {"call.json", "call.wav", "timeline.png"}
    assert str(directory) in out.getvalue()


def test_a_wrong_address_is_named(scenario_file, tmp_path):
    with pytest.raises(ValueError, match="voice_url: expected an http"):
        simulate(scenario_file(), "localhost:8080", "token", tmp_path)
