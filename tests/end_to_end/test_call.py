"""Whole calls: loopback Twilio, a gateway in a process of its own, Triton, the nano checkpoint.

These run in real time; what they measure is in the report, and nothing here depends on it.
"""

import asyncio
import io
import os
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from telephony.simulator import Scenario, run_scenario
from telephony.simulator.commands import DEMO_SCENARIO, DEMO_SETTINGS
from telephony.simulator.gateway_process import GatewayError, GatewayProcess
from telephony.simulator.terminal import Terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")
LINES = DEMO_SCENARIO.parent / "lines"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory):
    directory = tmp_path_factory.mktemp("call")
    async with GatewayProcess(directory, settings=DEMO_SETTINGS, start_timeout=300) as gateway:
        yield gateway


def turn(line: str, say: str, **fields) -> dict:
    return {"say": say, "wav": LINES / f"{line}.wav", **fields}


async def test_a_call_is_answered_interrupted_and_ended(gateway, tmp_path):
    scenario = Scenario.model_validate(
        {
            "name": "a barge-in",
            "greeting": {"expect": {"words": ["how can I help you"]}},
            "turns": [
                turn("insurance", "What health insurance do you take?"),
                turn(
                    "refill",
                    "How can I have my prescription renewed?",
                    when={"during_agent": {"after_ms": 1100}},
                    expect={"history_cut": True},
                ),
            ],
            "patience_ms": 20_000,
        }
    )
    text = io.StringIO()

    report = await run_scenario(
        scenario,
        gateway.target,
        tmp_path,
        records=gateway.records,
        watcher=Terminal(text),
    )

    assert report.passed, text.getvalue()
    assert all(turn.agent for turn in report.turns)
    assert report.turns[2].latency is not None
    assert report.turns[2].latency.first_audio is not None
    assert report.clears, "the phone's buffer was not emptied at the barge-in"
    returned = [mark for mark in report.marks if mark.returned is not None]
    assert returned, "no mark came back"
    assert report.agent_events[-1]["event"] == "call_ended"
    assert report.agent_events[-1]["cause"] == "caller_hung_up"
    assert sorted(os.listdir(tmp_path)) == ["call.json", "call.wav", "timeline.png"]


async def test_two_calls_at_once_keep_to_themselves(gateway):
    scenarios = [
        Scenario.model_validate(
            {
                "name": line,
                "greeting": True,
                "turns": [turn(line, line, expect={"words": words})],
                "patience_ms": 20_000,
            }
        )
        for line, words in [
            ("opening_hours", ["eight in the morning"]),
            ("insurance", ["health insurance"]),
        ]
    ]

    reports = await asyncio.gather(
        *(
            run_scenario(scenario, gateway.target, None, records=gateway.records)
            for scenario in scenarios
        )
    )

    for report in reports:
        assert report.passed, report.turns


def hesitating(line: str, path: Path) -> Path:
    """The line with a breath of 0.2 s at its quietest moment in the middle."""
    audio, rate = soundfile.read(LINES / f"{line}.wav", dtype="float32")
    window = rate // 25
    third = len(audio) // 3
    levels = [np.square(audio[at : at + window]).sum() for at in range(third, 2 * third, 80)]
    cut = third + 80 * int(np.argmin(levels)) + window // 2
    breath = np.random.default_rng(0).normal(0.0, 1e-4, rate // 5).astype(np.float32)
    soundfile.write(path, np.concatenate([audio[:cut], breath, audio[cut:]]), rate)
    return path


async def test_a_caller_who_hesitates_is_answered_in_the_middle(gateway, tmp_path):
    """The answer begun in the pause is thrown away; the whole line is answered once."""
    line = hesitating("opening_hours", tmp_path / "line.wav")
    scenario = Scenario.model_validate(
        {
            "name": "a hesitation",
            "greeting": True,
            "turns": [{"say": "When does the front desk open?", "wav": line}],
            "patience_ms": 20_000,
        }
    )

    report = await run_scenario(scenario, gateway.target, None, records=gateway.records)

    names = [event["event"] for event in report.agent_events]
    assert names.count("early_answer_dropped") >= 1
    assert names.count("turn_decided") == 1
    assert report.turns[1].agent


async def test_a_gateway_that_cannot_start_says_why(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("triton: {checkpoint: /nowhere}")

    with pytest.raises(GatewayError, match=r"(?s)the gateway did not start.*/nowhere"):
        async with GatewayProcess(tmp_path, settings=settings, start_timeout=300):
            pass
