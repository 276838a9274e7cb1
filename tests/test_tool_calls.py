"""Tools on a call: what the model, the caller and the record get of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    OutputDTMFFrame,
    TTSSpeakFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams

from agent.settings import AgentSettings
from agent.speech.system_prompt import system_prompt
from agent.tools.arguments import Arguments
from agent.tools.call import PhoneError
from agent.tools.settings import FunctionSettings
from agent.tools.tool import Tool, ToolResult
from tests.paper_call import PATIENT, Call, running

SETTINGS = AgentSettings(turn=PATIENT)


class Work:
    """A tool that gives its result when the test says so."""

    def __init__(self, **settings: Any) -> None:
        self.given: list[dict[str, Any]] = []
        self.calls: list[Any] = []
        self.gate = asyncio.Event()
        self.result: Any = "Monday"
        self.first: Callable[[Any], None] = lambda call: None
        declared = {"kind": "function", "name": "look_up", "function": "a:b", **settings}
        arguments = Arguments.of_schema(
            "look_up",
            {
                "type": "object",
                "properties": {"doctor": {"type": "string"}},
                "required": ["doctor"],
            },
        )
        self.tool = Tool(
            FunctionSettings.model_validate(declared), "Finds a doctor.", arguments, self._work
        )

    async def _work(self, arguments: dict[str, Any], call: Any) -> Any:
        self.given.append(arguments)
        self.calls.append(call)
        self.first(call)
        await self.gate.wait()
        return self.result


class FakePhone:
    def __init__(self) -> None:
        self.numbers: list[str] = []
        self.refuses = False

    async def transfer(self, number, *, summary=None, warm=False):
        if self.refuses:
            raise PhoneError("no")
        self.numbers.append(number)


ASKED = 'look_up\n{"doctor": "Smith"}'


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def call(work: Work) -> AsyncIterator[Call]:
    async with running(SETTINGS, tools=[work.tool]) as call:
        yield call


async def says_and_calls(call: Call, text: str = "One moment.", answers: int = 1) -> None:
    """A turn of the caller whose answer is a sentence of a second and a call of the tool."""
    await call.asks()
    call.session.says(text, 1.0)
    call.session.calls(ASKED)
    await call.events.wait("tool_call", answers)


async def test_who_waits_for_a_tool_is_not_silent(call: Call, work: Work) -> None:
    assert call.service.is_idle()
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("heard")
    assert not call.service.is_idle()
    work.gate.set()
    await call.events.wait("answer_started", 2)
    call.session.says("On Monday.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 2)
    assert not call.service.is_idle()
    await call.heard(1, 1.0, completed=True)
    await call.events.wait("heard", 2)
    assert call.service.is_idle()


async def test_a_result_is_the_models_next_turn(call: Call, work: Work) -> None:
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    work.gate.set()
    await call.events.wait("answer_started", 2)
    assert work.given == [{"doctor": "Smith"}]
    request = call.session.requests[1]
    assert (request.result, request.result_before, request.heard_seconds) == ("Monday", None, None)
    call.session.says("On Monday.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 2)
    await call.heard(1, 1.0, completed=True)
    await call.events.wait("heard", 2)
    assert [m for m in call.history if m in ("One moment.", "On Monday.")] == [
        "One moment.",
        "On Monday.",
    ]
    assert call.events.named("tool_call") == [
        {"turn": 0, "name": "look_up", "arguments": {"doctor": "Smith"}, "call_id": "call-0"}
    ]
    assert call.events.named("tool_result") == [
        {"turn": 0, "call_id": "call-0", "result": "Monday"}
    ]
    # The next turn does not get it again.
    await call.asks()
    await call.events.wait("answer_started", 3)
    assert call.session.requests[2].result_before is None


async def test_a_result_does_not_interrupt_the_words_before_it(call: Call, work: Work) -> None:
    work.gate.set()
    await says_and_calls(call)
    await call.events.wait("tool_result")
    await call.audio(1)
    assert len(call.session.requests) == 1
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("answer_started", 2)


async def test_a_call_without_a_word_is_no_error(call: Call, work: Work) -> None:
    work.gate.set()
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result == "Monday"
    assert call.events.named("error") == []


async def test_a_caller_who_speaks_meanwhile_is_answered_with_the_result(
    call: Call, work: Work
) -> None:
    """The tool is not stopped, and the model hears of it before what the caller said."""
    await says_and_calls(call)
    await call.starts()
    await call.heard(0, 0.5, interrupted=True)
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("turn_decided", 2)
    await call.audio(1)
    assert len(call.session.requests) == 1
    work.gate.set()
    await call.events.wait("answer_started", 2)
    request = call.session.requests[1]
    assert (request.result, request.result_before, request.heard_seconds) == (None, "Monday", 0.5)


async def test_a_result_that_comes_while_the_caller_speaks_waits_for_the_turn(
    call: Call, work: Work
) -> None:
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    await call.starts()
    work.gate.set()
    await call.events.wait("tool_result")
    await call.audio(25)
    assert len(call.session.requests) == 1
    # The engine may read it before the caller has finished.
    assert call.session.expected[-1].result_before == "Monday"
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result_before == "Monday"
    assert call.session.requests[1].heard_seconds is None


async def test_a_cough_does_not_lose_a_result(call: Call, work: Work) -> None:
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("heard")
    await call.starts()
    work.gate.set()
    await call.events.wait("tool_result")
    await call.audio(2)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result == "Monday"
    assert call.session.discarded == 1


async def test_a_barge_in_before_the_call_is_complete_calls_nothing(call: Call, work: Work) -> None:
    await call.asks()
    call.session.says("One moment.", 1.0)
    await call.events.wait("first_audio")
    stop = call.session.stop

    async def stop_too_late() -> None:
        await stop()
        call.session._script.get_nowait()
        call.session.calls(ASKED)

    call.session.stop = stop_too_late  # type: ignore[method-assign]
    await call.starts()
    await call.heard(0, 0.5, interrupted=True)
    await call.events.wait("heard")
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.events.named("tool_call") == []
    assert work.given == []
    request = call.session.requests[1]
    assert (request.result_before, request.heard_seconds) == (None, 0.5)


async def test_an_answer_to_a_result_that_is_cut_before_it_begins_keeps_the_result(
    call: Call, work: Work
) -> None:
    work.gate.set()
    await says_and_calls(call)
    await call.events.wait("tool_result")
    await call.starts()
    await call.heard(0, 1.0, interrupted=True)
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result_before == "Monday"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("look_up\n{", "the arguments are not JSON"),
        ("look_up\n[1]", "the arguments are not a JSON object"),
        ("look_up", "the arguments are not JSON"),
        ("lookup\n{}", "there is no tool 'lookup'"),
        ("look_up\n{}", "wrong arguments: doctor: Field required"),
    ],
)
async def test_a_wrong_call_is_told_to_the_model(
    call: Call, work: Work, written: str, problem: str
) -> None:
    await call.asks()
    call.session.calls(written)
    await call.events.wait("answer_started", 2)
    assert call.events.named("tool_result") == [{"turn": 0, "call_id": "call-0", "error": problem}]
    assert problem in (call.session.requests[1].result or "")
    assert work.given == []


async def test_a_model_that_goes_round_in_circles_is_stopped(call: Call, work: Work) -> None:
    work.gate.set()
    await call.asks()
    for _ in range(6):
        call.session.calls(ASKED)
    await call.events.wait("tool_result", 6)
    await call.audio(1)
    assert len(work.given) == 5
    assert "5 calls in a row" in call.events.named("tool_result")[-1]["error"]
    assert len(call.session.requests) == 6
    await call.asks()
    await call.events.wait("answer_started", 7)
    assert "5 calls in a row" in (call.session.requests[6].result_before or "")


async def test_typed_turns_do_not_come_between_a_call_and_its_result(
    call: Call, work: Work
) -> None:
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("tool_call")
    await call.send(TTSSpeakFrame("This call is recorded."))
    await call.audio(1)
    assert len(call.session.requests) == 1
    work.gate.set()
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result == "Monday"
    call.session.says("On Monday.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 2)
    await call.heard(1, 1.0, completed=True)
    await call.events.wait("answer_started", 3)
    assert call.session.requests[2].say == "This call is recorded."


async def test_an_early_answer_uses_no_tool_until_the_turn_is_decided(work: Work) -> None:
    work.gate.set()
    async with running(AgentSettings(), tools=[work.tool]) as call:
        await call.speaks()
        call.session.says("One moment.", 0.5)
        call.session.calls(ASKED)
        await call.events.until(lambda: bool(call.session.requests) and not call.session.running)
        await call.audio(5)
        assert work.given == []
        await call.send(UserStoppedSpeakingFrame())
        await call.events.wait("tool_result")
        assert len(work.given) == 1


async def test_an_early_answer_that_is_taken_back_uses_no_tool(work: Work) -> None:
    async with running(AgentSettings(), tools=[work.tool]) as call:
        await call.speaks()
        call.session.calls(ASKED)
        await call.events.until(lambda: bool(call.session.requests) and not call.session.running)
        await call.starts()
        await call.events.wait("early_answer_dropped")
        await call.events.until(lambda: call.session.retracted == 1)
        await call.audio(5)
        assert work.given == []
        assert call.events.named("tool_call") == []


async def test_an_early_answer_knows_the_result_and_giving_it_up_does_not_lose_it() -> None:
    work = Work()
    async with running(AgentSettings(), tools=[work.tool]) as call:
        await call.asks()
        call.session.calls(ASKED)
        await call.events.wait("tool_call")
        await call.starts()
        await call.audio(25)
        work.gate.set()
        await call.events.wait("tool_result")
        await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        await call.events.until(lambda: len(call.session.requests) == 2)
        await call.starts()
        await call.events.wait("early_answer_dropped")
        await call.audio(5)
        await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        await call.events.until(lambda: len(call.session.requests) == 3)
        await call.send(UserStoppedSpeakingFrame())
        await call.events.wait("turn_decided", 2)
        await call.events.wait("answer_started", 2)
        early = call.session.requests[1:]
        assert [(r.early, r.result_before) for r in early] == [(True, "Monday")] * 2
        call.session.says("On Monday.", 1.0)
        call.session.ends()
        await call.events.wait("answer_finished", 2)
        await call.heard(1, 1.0, completed=True)
        await call.asks()
        await call.events.until(lambda: len(call.session.requests) == 4)
        assert call.session.requests[3].result_before is None


@pytest.fixture
async def filled() -> AsyncIterator[tuple[Call, Work]]:
    """A call whose tool has a filler that is said as soon as it is quiet."""
    work = Work(filler="Bear with me.", filler_after=0)
    async with running(SETTINGS, tools=[work.tool]) as call:
        yield call, work


async def test_a_filler_fills_the_silence_and_nobody_keeps_it(filled: tuple[Call, Work]) -> None:
    call, work = filled
    await says_and_calls(call)
    await call.audio(2)
    assert len(call.session.requests) == 1, "the words before the call are still being heard"
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].say == "Bear with me."
    assert call.session.requests[1].early, "so that the engine can forget it"
    call.session.says("Bear with me.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 2)
    await call.events.until(lambda: call.session.retracted == 1)
    work.gate.set()
    await call.events.wait("tool_result")
    await call.audio(1)
    assert len(call.session.requests) == 2, "the filler is still being heard"
    await call.heard(1, 1.0, completed=True)
    await call.events.wait("answer_started", 3)
    assert call.session.requests[2].result == "Monday"
    assert "Bear with me." in [frame.text for frame in call.down.of(TTSTextFrame)]
    assert "Bear with me." not in call.history


async def test_a_filler_is_said_once_and_again_when_the_caller_asks(
    filled: tuple[Call, Work],
) -> None:
    call, work = filled
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("answer_started", 2)
    call.session.says("Bear with me.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.heard(1, 1.0, completed=True)
    await call.events.wait("heard", 2)
    await call.audio(3)
    assert len(call.session.requests) == 2
    await call.asks()
    await call.events.wait("answer_started", 3)
    assert call.session.requests[2].say == "Bear with me."
    call.session.says("Bear with me.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 2)
    work.gate.set()
    await call.events.wait("tool_result")
    await call.heard(3, 1.0, completed=True)
    await call.events.wait("answer_started", 4)
    assert call.session.requests[3].result_before == "Monday"


async def test_a_filler_that_is_interrupted_leaves_no_trace(filled: tuple[Call, Work]) -> None:
    call, work = filled
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("answer_started", 2)
    call.session.says("Bear with me.", 1.0)
    await call.events.wait("first_audio", 2)
    await call.starts()
    await call.events.until(lambda: call.session.stopped == 1 and call.session.retracted == 1)
    await call.heard(1, 0.2, interrupted=True)
    work.gate.set()
    await call.events.wait("tool_result")
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 3)
    request = call.session.requests[2]
    # Nothing is forgotten of the words before the call: the filler was interrupted, not they.
    assert (request.result_before, request.heard_seconds) == ("Monday", None)


async def test_a_tool_that_is_quick_needs_no_filler(filled: tuple[Call, Work]) -> None:
    call, work = filled
    work.gate.set()
    await says_and_calls(call)
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result == "Monday"


async def test_tools_are_told_in_the_system_prompt(call: Call, work: Work) -> None:
    await call.asks()
    await call.events.wait("answer_started")
    expected = system_prompt(False, None, [work.tool.described])
    assert call.session.requests[0].system == expected
    assert '"name": "look_up"' in expected


async def test_the_end_of_the_call_is_a_result_in_the_record(work: Work) -> None:
    async with running(SETTINGS, tools=[work.tool]) as call:
        await says_and_calls(call)
    assert call.events.named("tool_result") == [
        {"turn": 0, "call_id": "call-0", "error": "the call ended"}
    ]


async def test_functions_that_pipecat_knows_are_tools_too() -> None:
    """Advertised in the context, registered on the service, run by Pipecat, shown in its frames."""
    schema = FunctionSchema("weather", "Tells the weather.", {"city": {"type": "string"}}, ["city"])

    async def weather(params: FunctionCallParams) -> None:
        await params.result_callback({"celsius": 20, "city": params.arguments["city"]})

    context = LLMContext(tools=ToolsSchema(standard_tools=[schema]))
    async with running(SETTINGS, context=context) as call:
        call.service.register_function("weather", weather)
        await call.asks()
        call.session.calls('weather\n{"city": "Oslo"}')
        await call.events.wait("answer_started", 2)
        assert '"name": "weather"' in (call.session.requests[0].system or "")
        assert call.session.requests[1].result == '{"celsius": 20, "city": "Oslo"}'
        assert call.down.of(FunctionCallInProgressFrame)[0].arguments == {"city": "Oslo"}
        assert call.down.of(FunctionCallResultFrame)[0].result == {"celsius": 20, "city": "Oslo"}


async def test_a_function_of_pipecats_that_raises_is_a_failure() -> None:
    async def broken(params: FunctionCallParams) -> None:
        raise RuntimeError("out of order")

    async with running(SETTINGS) as call:
        call.service.register_function("weather", broken)
        await call.asks()
        call.session.calls("weather\n{}")
        await call.events.wait("answer_started", 2)
        assert call.events.named("tool_result")[0]["error"] == "RuntimeError: out of order"


async def test_a_function_that_never_reports_does_not_hold_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def forgetful(params: FunctionCallParams) -> None:
        pass

    monkeypatch.setattr("agent.tool_calls.LONGEST_SECONDS", 0.01)
    async with running(SETTINGS) as call:
        call.service.register_function("weather", forgetful)
        await call.asks()
        call.session.calls("weather\n{}")
        await call.events.wait("answer_started", 2)
        assert call.session.requests[1].result == '{"error": "it gave no result"}'


async def test_a_filler_is_not_lost_to_the_one_before() -> None:
    """A quick tool ends while its filler waits; the slow one after it is covered nevertheless."""
    work = Work(filler="Bear with me.", filler_after=0.05)
    work.gate.set()
    async with running(SETTINGS, tools=[work.tool]) as call:
        await call.asks()
        call.session.calls(ASKED)
        await call.events.wait("answer_started", 2)
        work.gate.clear()
        call.session.calls(ASKED)
        await call.events.wait("answer_started", 3)
        assert call.session.requests[2].say == "Bear with me."


async def test_an_act_waits_for_the_answer_to_its_result(call: Call, work: Work) -> None:
    work.result = "connected"
    work.first = lambda call: call.after_answer(call.hang_up)
    work.gate.set()
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("answer_started", 2)
    call.session.says("Goodbye.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 1)
    await call.audio(2)
    assert not call.down.of(EndFrame)
    await call.heard(1, 1.0, completed=True)
    await call.events.until(lambda: bool(call.down.of(EndFrame)))


async def test_an_act_whose_answer_is_interrupted_is_dropped(call: Call, work: Work) -> None:
    work.first = lambda call: call.after_answer(call.hang_up)
    work.gate.set()
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("answer_started", 2)
    call.session.says("Goodbye.", 1.0)
    await call.events.wait("first_audio")
    await call.asks()
    await call.heard(1, 0.5, interrupted=True)
    await call.events.wait("answer_started", 3)
    await call.audio(5)
    assert not call.down.of(EndFrame)
    assert {"turn": 0, "message": "look_up: not done: the caller went on speaking"} in (
        call.events.named("error")
    )


async def test_last_words_from_outside_wait_for_no_tool(call: Call, work: Work) -> None:
    await call.asks()
    call.session.calls(ASKED)
    await call.events.until(lambda: bool(work.calls))
    await call.service.end_with("We close now.")
    await call.events.wait("answer_started", 2)
    work.gate.set()
    call.session.says("We close now.", 1.0)
    call.session.ends()
    await call.events.until(lambda: bool(call.down.of(EndFrame)))
    assert [request.say for request in call.session.requests] == [None, "We close now."]
    assert call.events.named("tool_result") == [
        {"turn": 0, "call_id": "call-0", "error": "the call ended"}
    ]


async def test_a_call_that_the_agent_ends_is_not_ended_once_more(call: Call, work: Work) -> None:
    work.first = lambda call: call.after_answer(call.hang_up)
    work.gate.set()
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("answer_started", 2)
    call.session.says("Goodbye.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished", 1)
    await call.heard(1, 1.0, completed=True)
    await call.events.until(lambda: call.service.ending)
    await call.service.end_with("We close now.")
    await call.events.until(lambda: bool(call.down.of(EndFrame)))
    assert len(call.session.requests) == 2
    assert len(call.down.of(EndFrame)) == 1


async def test_words_before_the_call_can_be_waited_for(call: Call, work: Work) -> None:
    await says_and_calls(call)
    await call.events.until(lambda: bool(work.calls))
    waiting = asyncio.create_task(work.calls[0].words_heard())
    await call.audio(2)
    assert not waiting.done()
    await call.heard(0, 1.0, completed=True)
    assert await waiting is True


async def test_a_transfer_is_asked_of_the_phone_before_the_agent_leaves() -> None:
    work, phone = Work(), FakePhone()
    async with running(SETTINGS, tools=[work.tool], phone=phone) as call:
        await says_and_calls(call)
        await call.events.until(lambda: bool(work.calls))
        phone.refuses = True
        with pytest.raises(PhoneError):
            await work.calls[0].transfer("+15550100003")
        await call.audio(2)
        assert not call.down.of(EndFrame)
        phone.refuses = False
        await work.calls[0].transfer("+15550100003")
        assert phone.numbers == ["+15550100003"]
        await call.events.until(lambda: bool(call.down.of(EndFrame)))


async def test_a_call_without_a_telephone_cannot_be_transferred(call: Call, work: Work) -> None:
    await says_and_calls(call)
    await call.events.until(lambda: bool(work.calls))
    with pytest.raises(PhoneError, match="no telephone"):
        await work.calls[0].transfer("+15550100003")


async def test_digits_go_out_as_keys(call: Call, work: Work) -> None:
    await says_and_calls(call)
    await call.events.until(lambda: bool(work.calls))
    await work.calls[0].press("1#")
    await call.events.until(lambda: len(call.down.of(OutputDTMFFrame)) == 2)
    assert [frame.button.value for frame in call.down.of(OutputDTMFFrame)] == ["1", "#"]


async def test_a_result_that_wants_no_answer_waits_for_the_next_turn(
    call: Call, work: Work
) -> None:
    work.result = ToolResult("sent", answer=False)
    work.gate.set()
    await call.asks()
    call.session.calls(ASKED)
    await call.events.wait("tool_result")
    await call.audio(3)
    assert len(call.session.requests) == 1
    await call.asks()
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].result_before == "sent"
