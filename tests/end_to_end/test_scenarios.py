"""The clinic's rehearsals on nano: what callers ask, and what a line does to a call at its worst.

All are called once, several at a time, in real time; no check depends on how fast the machine is.
"""

import asyncio
from pathlib import Path

import pytest

from telephony.simulator.gateway_process import GatewayProcess
from telephony.simulator.suite import Plan, collect, run_suite
from telephony.simulator.suite_report import Outcome, ScenarioReport

SCENARIOS = Path(__file__).parent / "scenarios"
SCRIPTS = collect([SCENARIOS])
AT_ONCE = 3


async def rehearse(directory: Path) -> dict[str, ScenarioReport]:
    settings = SCENARIOS / "settings.yaml"
    async with GatewayProcess(directory, settings=settings, start_timeout=300) as gateway:
        plan = Plan(parallel=AT_ONCE)
        report = await run_suite(SCRIPTS, gateway.target, None, plan=plan, records=gateway.records)
    return {scenario.name: scenario for scenario in report.scenarios}


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, ScenarioReport]:
    return asyncio.run(rehearse(tmp_path_factory.mktemp("scenarios")))


@pytest.mark.parametrize("name", [script.scenario.name for script in SCRIPTS])
def test_call_goes_otherwise(reports, name):
    (attempt,) = reports[name].attempts
    assert attempt.call is not None, attempt.error
    checks = [*attempt.call.checks, *(c for turn in attempt.call.turns for c in turn.checks)]
    wrong = [check for check in checks if not check.passed]
    assert attempt.outcome is Outcome.PASSED, (wrong, attempt.call.turns)
