"""A list that is worked through: pace, calls at once, retries, and what is no attempt."""

import asyncio
from collections import deque

import pytest

from telephony.outbound.call_list import Entry, Result, Results
from telephony.outbound.campaign import Campaign, NotNow, Plan

LONG = 100.0


class Line:
    """Makes calls that take their time and end as a script has it."""

    def __init__(self, clock):
        self.clock = clock
        self.begun = []
        self.at_once = self.most = 0
        self.scripts = {}
        self.seconds = LONG

    async def place(self, entry):
        self.begun.append((round(self.clock.now - 1000.0, 3), entry.row))
        script = self.scripts.get(entry.row)
        outcome = script.popleft() if script else Result("answered")
        if isinstance(outcome, NotNow):
            raise outcome
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.clock.sleep(self.seconds)
        self.at_once -= 1
        return outcome


@pytest.fixture
def line(manual_clock):
    return Line(manual_clock)


@pytest.fixture
def work(manual_clock, tmp_path, line):
    async def run(count, seconds=10_000.0, **plan):
        entries = [Entry(row, f"+1555010000{row}") for row in range(1, count + 1)]
        results = Results(tmp_path / "results.csv", entries)
        campaign = Campaign(
            entries,
            Plan(**plan),
            line.place,
            results,
            manual_clock,
            lambda: manual_clock.now,
            lambda text: None,
        )
        running = asyncio.create_task(campaign.run())
        await manual_clock.advance(seconds)
        if running.done():
            running.result()
        else:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return [results.outcomes(entry) for entry in entries]

    return run


async def test_calls_begin_no_faster_than_the_pace(work, line):
    await work(3, per_minute=6.0, at_once=9)
    assert line.begun == [(0.0, 1), (10.0, 2), (20.0, 3)]


async def test_no_more_calls_at_once_than_planned(work, line):
    assert await work(4, per_minute=6000.0, at_once=2) == [["answered"]] * 4
    assert line.most == 2
    assert [at for at, _ in line.begun][2] == pytest.approx(LONG, abs=0.1)


async def test_who_is_busy_is_called_again_as_the_rules_say(work, line):
    line.scripts[1] = deque([Result("busy"), Result("no-answer"), Result("busy")])
    retries = {"busy": (60.0, 600.0), "no-answer": (60.0, 300.0)}
    assert await work(1, retries=retries) == [["busy", "no-answer", "busy"]]
    assert [at for at, _ in line.begun] == [0.0, LONG + 60, 2 * LONG + 360]


async def test_others_are_called_while_somebody_is_waited_for(work, line):
    line.scripts[1] = deque([Result("busy")])
    await work(2, per_minute=60.0, retries={"busy": (500.0,)})
    assert [row for _, row in line.begun] == [1, 2, 1]


async def test_what_could_not_be_tried_is_no_attempt(work, line):
    line.scripts[1] = deque([NotNow("outside hours", 60.0), NotNow("outside hours", 60.0)])
    assert await work(1) == [["answered"]]
    assert [at for at, _ in line.begun] == [0.0, 60.0, 120.0]


async def test_a_list_that_was_broken_off_goes_on_where_it_was(work, line):
    line.scripts[1] = deque([Result("busy"), Result("busy")])
    await work(3, seconds=LONG + 1, retries={"busy": (5000.0,)})
    line.begun.clear()
    assert await work(3, retries={"busy": (5000.0,)}) == [
        ["busy", "busy"],
        ["answered"],
        ["answered"],
    ]
    assert [row for _, row in line.begun] == [1, 2, 3]


async def test_results_that_cannot_be_written_end_the_list(work, line, tmp_path):
    (tmp_path / "results.csv").symlink_to(tmp_path / "gone" / "results.csv")
    with pytest.raises(FileNotFoundError):
        await work(2)
