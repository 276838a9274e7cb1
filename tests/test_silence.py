"""What the agent says of its own accord, by time that the test passes."""

import pytest

from agent.silence import Quiet, Silence
from agent.turn_taking import TurnTakingSettings
from tests.paper_call import Events

STEP = 0.1


class Agent:
    def __init__(self) -> None:
        self.idle = True
        self.said: list[str] = []
        self.given_up = 0

    def is_idle(self) -> bool:
        return self.idle

    def say(self, words: str) -> None:
        self.said.append(words)

    def give_up(self) -> None:
        self.given_up += 1


class Call:
    def __init__(self, **settings: object) -> None:
        self.agent, self.events = Agent(), Events()
        silence = Silence("Hello?", self.agent.give_up)
        self.quiet = Quiet(TurnTakingSettings(**settings), silence, self.agent, self.events)

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.quiet.pass_time(STEP)


def test_silence_is_asked_about_and_then_given_up() -> None:
    call = Call(silence_secs=4, silence_prompts=2)
    call.passes(3.9)
    assert call.agent.said == []
    call.passes(0.2)
    assert call.agent.said == ["Hello?"]
    call.passes(4)
    assert call.agent.said == ["Hello?"] * 2
    assert call.agent.given_up == 0
    call.passes(4)
    assert (len(call.agent.said), call.agent.given_up) == (2, 1)
    assert call.events.named("silence_prompt") == [
        {"number": 1, "silence": 4},
        {"number": 2, "silence": 4},
    ]


def test_only_silence_in_a_row_counts() -> None:
    call = Call(silence_secs=4)
    for _ in range(3):
        call.passes(3)
        # A tool runs, the agent answers, the caller speaks.
        call.agent.idle = False
        call.passes(60)
        call.agent.idle = True
    assert call.agent.said == []


def test_a_caller_who_does_something_has_all_prompts_before_them_again() -> None:
    call = Call(silence_secs=4, silence_prompts=1)
    for _ in range(3):
        call.passes(4.2)
        call.quiet.caller_acted()
    assert (len(call.agent.said), call.agent.given_up) == (3, 0)


@pytest.mark.parametrize("settings", [{"silence_secs": None}, {"silence_secs": 700}])
def test_a_patient_agent_says_nothing(settings: dict[str, object]) -> None:
    call = Call(**settings)
    call.passes(600)
    assert (call.agent.said, call.agent.given_up) == ([], 0)


def test_a_notice_waits_for_a_gap() -> None:
    call = Call()
    call.agent.idle = False
    call.quiet.announce("Soon.")
    call.passes(5)
    assert call.agent.said == []
    call.agent.idle = True
    call.passes(0.2)
    assert call.agent.said == []
    call.passes(0.2)
    assert call.agent.said == ["Soon."]


def test_a_notice_does_not_wait_for_ever() -> None:
    call = Call()
    call.agent.idle = False
    call.quiet.announce("Soon.")
    call.passes(16)
    assert call.agent.said == ["Soon."]
