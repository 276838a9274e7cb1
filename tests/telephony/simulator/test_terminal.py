"""What a person reads while a call goes on."""

import io

import pytest

from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.report import Latency
from telephony.simulator.terminal import Terminal, describe


@pytest.fixture
def terminal():
    return Terminal(io.StringIO())


def printed(terminal):
    return terminal._out.getvalue()


def test_words_cut_in_pieces_are_not_torn_and_lines_do_not_grow_past_the_width(terminal):
    text = "We are open from eight in the morning to six in the evening, Monday to Friday. " * 3
    for start in range(0, len(text), 7):
        terminal.agent_says(61.25, text[start : start + 7])
    terminal.caller_speaks(70.0, "Thanks.", over_agent=True)

    lines = printed(terminal).splitlines()
    assert lines[0].startswith("  1:01.2  agent  We are open")
    assert lines[-1] == "  1:10.0  caller (over the agent) Thanks."
    said = " ".join(line.strip() for line in lines[:-1]).removeprefix("1:01.2  agent  ")
    assert said.split() == text.split()
    assert max(len(line) for line in lines) <= 110


def test_the_parts_of_a_latency_are_shown_in_order_of_time():
    latency = Latency(
        voice_to_voice=1000,
        decision=400,
        tokenise=50,
        first_token=100,
        first_audio=250,
        transport=200,
    )

    assert describe(latency) == (
        "1000 ms voice to voice"
        " = 400 decision + 50 tokenise + 100 first token + 250 first audio + 200 transport"
    )
    assert describe(Latency(voice_to_voice=1000)) == "1000 ms voice to voice"


async def test_a_call_reads_in_the_order_in_which_it_happened(agent, scenario, clock, terminal):
    script = scenario([{}, {"expect": {"words": ["never said"]}}], greeting=True)

    await run_scenario(
        script,
        agent.target,
        None,
        records=agent.records,
        watcher=terminal,
        clock=clock,
    )

    text = printed(terminal)
    order = [
        "stream open",
        "agent  Hello, this is the test.",
        "caller line 1",
        "agent  You have said thing 1.",
        "understood as “line 1”",
        "voice to voice =",
        "15 ms saved by beginning in the pause",
        "caller line 2",
        "agent  You have said thing 2.",
        "FAILED words: expected “never said”; found “You have said thing 2.”",
        "the caller hung up after",
        "   2  line 2",
        "1 of 2 held",
        "answers begun in a pause and thrown away: 2, 500 ms",
    ]
    places = [text.index(line) for line in order]
    assert places == sorted(places)
