"""A caller with a goal: how the agent's words move it on, tick by tick."""

from concurrent.futures import Future

import numpy as np
import pytest

from telephony.simulator.caller import FRAME, Caller, Line, State
from telephony.simulator.checks.outside import Outside
from telephony.simulator.checks.verdict import Unknown
from telephony.simulator.goals import Errand
from telephony.simulator.listening import RecogniserListener, RecordListener
from telephony.simulator.rehearsal import run_scenario
from telephony.simulator.scenario import Goal, Scenario

SILENCE = np.zeros(FRAME, np.int16)
STATES = {
    "ask": {
        "say": ["I need an appointment.", "An appointment, please."],
        "next": [
            {"words": ["which day"], "to": "day"},
            {"matches": "no .* left", "to": "lost"},
            {"silent": True, "to": "lost"},
            {"visits": 3, "to": "lost"},
        ],
    },
    "day": {"say": "Monday.", "next": [{"words": ["booked"], "to": "done"}]},
    "done": {"say": "Thank you.", "success": True},
    "lost": {"success": False},
}


def goal(**changes):
    return Goal.model_validate({"start": "ask", "states": {**STATES, **changes}})


def test_words_move_the_caller_on():
    errand = Errand(goal())

    assert errand.line() == 0
    errand.follow("On Which day, then?", spoke=True)
    assert errand.line() == 2
    errand.follow("You are booked.", spoke=True)

    assert errand.over
    assert errand.line() == 3
    assert errand.check().passed
    assert errand.check().found == "ask > day > done"


def test_a_state_that_nothing_leads_out_of_is_entered_again_with_its_next_line():
    errand = Errand(goal())

    said = []
    while not errand.over:
        said.append(errand.line())
        errand.follow("Pardon?", spoke=True)

    assert said == [0, 1, 1]
    assert errand.path == ["ask", "ask", "ask", "lost"]
    assert errand.line() is None
    assert not errand.check().passed


@pytest.mark.parametrize(
    ("text", "spoke", "then"),
    [
        ("There are NO visits left.", True, "lost"),
        ("", False, "lost"),
        (None, False, "lost"),
        ("Somewhich daydream.", True, "ask"),
        (None, True, "ask"),
    ],
)
def test_every_condition_must_hold(text, spoke, then):
    errand = Errand(goal())
    errand.line()
    errand.follow(text, spoke)

    assert errand.path[-1] == then


def test_a_caller_gives_up_after_its_longest_number_of_turns():
    endless = goal().model_copy(update={"longest_turns": 4})
    errand = Errand(endless.model_copy(update={"start": "day"}))
    errand.path = ["day"]

    said = 0
    while not errand.over:
        errand.line()
        said += 1
        errand.follow("Pardon?", spoke=True)

    assert said == 4
    assert not errand.check().passed


class Slow:
    """A listener that needs some ticks to understand."""

    def __init__(self, texts, ticks):
        self.texts = iter(texts)
        self.ticks = ticks
        self.answers = []
        self.forgotten = 0

    def hear(self, frame):
        for answer in self.answers:
            answer[1] -= 1
            if answer[1] == 0:
                answer[0].set_result(next(self.texts))

    def forget(self):
        self.forgotten += 1

    def words(self):
        future = Future()
        self.answers.append([future, self.ticks])
        return future


@pytest.fixture
def call(tone):
    """Runs a caller with the goal above against pieces of speech: (from second, to second)."""

    def run(listener, agent, **fields):
        scenario = Scenario.model_validate(
            {"name": "test", "goal": {"start": "ask", "states": STATES}, **fields}
        )
        line = Line.of(tone(1.0))
        caller = Caller(scenario, [line] * len(scenario.lines))
        caller.listen_through(listener)
        sound = tone(0.02)
        for tick in range(60 * 50):
            talks = any(begin <= tick * 0.02 < end for begin, end in agent)
            if caller.tick(sound if talks else SILENCE) is None:
                break
        return caller

    return run


def test_the_caller_listens_thinks_and_speaks(call):
    caller = call(
        Slow(["Which day?", "Booked."], ticks=25),
        agent=[(2.5, 3.5), (6.5, 7.5), (11.0, 11.5)],
    )

    assert caller.state is State.HUNG_UP
    assert [turn.say for turn in caller.script.turns] == [
        "I need an appointment.",
        "Monday.",
        "Thank you.",
    ]
    # 0.9 s of silence, half a second of thought.
    assert caller.spoken[1].start / 8000 == pytest.approx(3.5 + 0.9 + 0.5, abs=0.041)
    assert [check.passed for check in caller.checks()] == [True]


def test_a_caller_that_waits_in_vain_reacts_to_the_silence(call):
    caller = call(Slow([""], ticks=1), agent=[], patience_ms=2000)

    assert len(caller.spoken) == 1
    assert [check.passed for check in caller.checks()] == [False]


def test_a_caller_may_react_in_the_middle_of_an_answer(call):
    ask = {**STATES["ask"], "listen": {"during_agent": {"after_ms": 700}}}

    caller = call(
        Slow(["Which day?", "Booked."], ticks=1),
        agent=[(2.5, 6.0), (6.5, 7.5)],
        goal={"start": "ask", "states": {**STATES, "ask": ask}},
    )

    assert caller.spoken[1].start / 8000 == pytest.approx(2.5 + 0.7, abs=0.041)
    assert caller.spoken[1].over_agent
    assert caller.script.turns[1].when.during_agent is not None


@pytest.mark.parametrize(("read", "words"), [("Which day?", "Which day?"), (Unknown("why"), None)])
def test_a_recogniser_hears_the_answer_and_nothing_from_before_it(tone, read, words):
    class Recorder(Outside):
        heard = 0

        def read(self, audio):
            self.heard = len(audio)
            return read

    outside = Recorder()
    listener = RecogniserListener(outside)
    listener.hear(tone(0.02))
    listener.forget()
    assert listener.words().result(5) == ""
    listener.hear(tone(0.02))
    listener.hear(tone(0.02))
    assert listener.words().result(5) == words
    assert outside.heard == 320


async def test_a_goal_is_pursued_over_a_call_by_the_agents_records(
    agent, clock, tone, tmp_path, wav
):
    line = {"say": "line", "wav": str(wav())}
    states = {
        "first": {"say": line, "next": [{"words": ["thing 1"], "to": "second"}]},
        "second": {"say": line, "next": [{"words": ["thing 2"], "to": "done"}]},
        "done": {"success": True},
    }
    scenario = Scenario.model_validate(
        {"name": "goal", "greeting": True, "goal": {"start": "first", "states": states}}
    )

    report = await run_scenario(scenario, agent.target, None, records=agent.records, clock=clock)

    assert report.passed, report.model_dump_json(indent=1)
    assert [turn.agent for turn in report.turns] == [
        "Hello, this is the test.",
        "You have said thing 1.",
        "You have said thing 2.",
    ]
    (check,) = [check for check in report.checks if check.name == "goal"]
    assert check.found == "first > second > done"


def test_records_are_read_from_the_end_of_the_callers_line(tmp_path):
    from telephony.simulator.record_tail import JsonlTail

    path = tmp_path / "agent.jsonl"
    path.write_text(
        '{"at": 1, "call_sid": "CA0", "event": "agent_text", "turn": 0, "text": "Hello."}\n'
    )
    listener = RecordListener(JsonlTail(path, "CA0"))
    listener.forget()
    with path.open("a") as file:
        file.write(
            '{"at": 2, "call_sid": "CA0", "event": "agent_text", "turn": 1, "text": "Which "}\n'
        )
        file.write('{"at": 2, "call_sid": "CA0", "event": "turn_decided", "turn": 1}\n')
        file.write(
            '{"at": 2, "call_sid": "CA0", "event": "agent_text", "turn": 1, "text": "day?"}\n'
        )

    assert listener.words().result(0) == "Which day?"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"start": "nowhere"}, "start: no state named 'nowhere'"),
        ({"start": "done"}, "start: a final state"),
        ({"states": {**STATES, "lost": {"success": False, "say": []}, "done": {}}}, "states.done"),
        ({"states": {**STATES, "day": {"say": "x"}}}, "states.day: give next, or success"),
        (
            {"states": {**STATES, "day": {"say": "x", "next": [{"to": "moon"}]}}},
            "states.day.next: no state named 'moon'",
        ),
        (
            {"states": {**STATES, "day": {"say": "x", "next": [{"matches": "(", "to": "ask"}]}}},
            "states.day.next.0.matches",
        ),
        (
            {"states": {**STATES, "done": {"success": False}}},
            "states: none has success: true",
        ),
        (
            {"states": {**STATES, "done": {"success": True, "say": {"say": "x", "when": {}}}}},
            "states.done",
        ),
    ],
)
def test_what_is_wrong_with_a_goal_is_named(changes, named):
    from pydantic import ValidationError

    from telephony.simulator.part import explain

    with pytest.raises(ValidationError) as error:
        Goal.model_validate({"start": "ask", "states": STATES, **changes})
    assert named in explain(error.value)
