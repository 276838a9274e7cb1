"""The Pipecat service between a fake session and a fake phone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext

from agent.settings import AgentSettings
from agent.speech.request import TurnRequest
from agent.speech.system_prompt import system_prompt
from tests.paper_call import FRAME, Call, running


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    async with running() as call:
        yield call


async def test_an_answer_reaches_the_phone_in_order(call: Call) -> None:
    await call.asks()
    call.session.says("Hello ", tokenise=0.01, first_token=0.02)
    call.session.says("", 0.5, first_token=0.02, first_audio=0.1)
    call.session.says("there.", 0.25, first_token=0.02, first_audio=0.1)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.events.until(lambda: bool(call.down.of(LLMFullResponseEndFrame)))
    kinds = (
        LLMFullResponseStartFrame,
        LLMFullResponseEndFrame,
        TTSStartedFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
        TTSTextFrame,
    )
    assert [type(frame) for frame in call.down.of(*kinds)] == [
        LLMFullResponseStartFrame,
        TTSTextFrame,
        TTSStartedFrame,
        TTSAudioRawFrame,
        TTSTextFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
        LLMFullResponseEndFrame,
    ]
    audio = call.down.of(TTSAudioRawFrame)
    assert [(frame.sample_rate, frame.num_channels) for frame in audio] == [(22_050, 1)] * 2
    spoken = call.down.of(TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame)
    assert {frame.context_id for frame in spoken} == {"answer-0"}
    assert call.events.named("first_token") == [{"turn": 0, "tokenise": 0.01, "first_token": 0.02}]
    assert call.events.named("first_audio") == [{"turn": 0, "first_audio": 0.1, "saved": 0.0}]
    assert call.events.named("answer_finished") == [{"turn": 0, "text": "Hello there."}]


async def test_audio_before_the_vad_noticed_speech_is_not_lost(call: Call) -> None:
    await call.audio(60)
    await call.speaks(5)
    first = round(call.session.pushed[0] * 32768)
    # 0.2 s until the VAD is sure and 0.4 s of pre-roll.
    assert first == 60 * FRAME - round(0.6 * 16_000)
    numbers = [round(sample * 32768) for sample in call.session.pushed]
    assert numbers == list(range(first, 65 * FRAME))


async def test_audio_that_goes_no_further_is_heard_all_the_same() -> None:
    heard = []
    for passes_audio in (True, False):
        async with running(passes_audio=passes_audio) as call:
            await call.audio(60)
            await call.asks()
            heard.append(call.session.pushed)
    assert heard[1] == heard[0]
    assert heard[0]


async def test_audio_overtakes_the_end_of_the_turn_before_it() -> None:
    async with running(passes_audio=False) as call:
        await call.speaks()
        late = np.full(FRAME, 30_000, "<i2").tobytes()
        await call.service.queue_frame(UserStoppedSpeakingFrame())
        await call.service.queue_frame(InputAudioRawFrame(late, 16_000, 1))
        await call.events.wait("turn_decided")
        await call.events.wait("answer_started")
        assert max(call.session.pushed) < 0.9


async def test_a_false_start_gets_no_answer(call: Call) -> None:
    await call.speaks(frames=5)
    await call.send(UserStoppedSpeakingFrame())
    await call.events.until(lambda: call.session.discarded == 1)
    await call.asks()
    await call.events.wait("answer_started")
    assert len(call.session.requests) == 1
    assert len(call.events.named("turn_decided")) == 1


async def test_a_cough_that_silenced_the_agent_does_not_leave_a_dead_line(call: Call) -> None:
    await call.asks()
    call.session.says("I will tell you at length ", 1.0)
    await call.events.wait("first_audio")
    await call.speaks(frames=5)
    await call.heard(0, 0.3, interrupted=True)
    await call.send(UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.session.discarded == 0


async def test_a_barge_in_stops_the_model_and_no_audio_follows_it(call: Call) -> None:
    await call.asks()
    call.session.says("One two three four five six ", 2.0)
    await call.events.wait("first_audio")
    await call.starts()
    await call.events.until(lambda: bool(call.down.of(InterruptionFrame)[1:]))
    call.session.says("seven", 1.0)
    await call.events.until(lambda: call.session.running == 0)
    assert call.session.stopped == 1
    frames = call.down.of(TTSAudioRawFrame, InterruptionFrame)
    assert [type(frame) for frame in frames] == [
        InterruptionFrame,
        TTSAudioRawFrame,
        InterruptionFrame,
    ]
    assert call.events.named("answer_finished") == []


async def test_history_keeps_only_what_was_heard_before_a_barge_in(call: Call) -> None:
    text = "We are open from eight in the morning to six in the evening."
    await call.asks()
    call.session.says(text, 4.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.heard(0, 1.0)
    await call.events.until(lambda: call.history == ["We are open"])
    await call.starts()
    await call.heard(0, 2.0, interrupted=True)
    heard = "We are open from eight in the"
    assert await call.events.wait("interrupted") == {
        "turn": 0,
        "heard_seconds": 2.0,
        "heard_text": heard,
    }
    assert call.events.named("heard") == [{"turn": 0, "text": heard}]
    assert call.history == [heard]
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].heard_seconds == 2.0
    assert call.session.stopped == 0


async def test_an_answer_heard_to_its_end_is_kept_whole_and_not_edited(call: Call) -> None:
    await call.asks()
    call.session.says("All of it.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.heard(0, 1.0, completed=True)
    assert await call.events.wait("heard") == {"turn": 0, "text": "All of it."}
    await call.asks()
    await call.events.wait("answer_started", 2)
    assert call.history == ["All of it."]
    assert call.session.requests[1].heard_seconds is None
    assert call.events.named("interrupted") == []


async def test_an_answer_cut_off_before_its_first_sound_is_forgotten(call: Call) -> None:
    await call.asks()
    await call.events.wait("answer_started")
    await call.asks()
    await call.events.wait("answer_started", 2)
    assert call.events.named("interrupted") == [{"turn": 0, "heard_seconds": 0.0, "heard_text": ""}]
    assert call.session.requests[1].heard_seconds == 0.0
    assert call.history == []


async def test_a_phone_that_never_reports_does_not_block_the_next_turn(call: Call) -> None:
    await call.asks()
    call.session.says("Words nobody confirmed ", 2.0)
    await call.events.wait("first_audio")
    await call.asks()
    await call.events.wait("answer_started", 2)
    assert call.session.requests[1].heard_seconds == 0.0
    assert call.history == []


async def test_a_second_answer_is_not_mixed_with_the_first(call: Call) -> None:
    await call.asks()
    call.session.says("first ", 0.5)
    await call.events.wait("first_audio")
    await call.starts()
    await call.heard(0, 0.2, interrupted=True)
    await call.audio(25)
    await call.send(VADUserStoppedSpeakingFrame(stop_secs=0.2), UserStoppedSpeakingFrame())
    await call.events.wait("answer_started", 2)
    call.session.says("second ", 0.5)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.events.until(lambda: bool(call.down.of(TTSStoppedFrame)))
    ids = [frame.context_id for frame in call.down.of(TTSAudioRawFrame, TTSStoppedFrame)]
    assert ids == ["answer-0", "answer-1", "answer-1"]
    assert call.events.named("answer_finished") == [{"turn": 1, "text": "second "}]


async def test_a_late_report_about_an_old_answer_changes_nothing(call: Call) -> None:
    await call.asks()
    call.session.says("first ", 0.5)
    await call.events.wait("first_audio")
    await call.starts()
    await call.heard(0, 0.0, interrupted=True)
    await call.events.wait("heard")
    await call.heard(0, 0.5, completed=True)
    await call.heard(7, 0.5, completed=True)
    await call.asks()
    assert call.history == []
    assert len(call.events.named("heard")) == 1


@pytest.mark.parametrize("after", [0.0, 0.5])
async def test_an_engine_error_does_not_hang_the_call(call: Call, after: float) -> None:
    await call.asks()
    if after:
        call.session.says("Hel", after)
    call.session.fails(RuntimeError("tritonhost:8001 is not reachable"))
    error = await call.events.wait("error")
    assert error == {"turn": 0, "message": "tritonhost:8001 is not reachable"}
    await call.events.until(lambda: bool(call.up.of(ErrorFrame)))
    if after:
        await call.events.until(lambda: bool(call.down.of(LLMFullResponseEndFrame)))
        assert len(call.down.of(TTSStoppedFrame)) == 1
        await call.heard(0, after, completed=True)
    await call.events.wait("heard")
    await call.asks()
    call.session.says("again ", 0.5)
    call.session.ends()
    assert await call.events.wait("answer_finished") == {"turn": 1, "text": "again "}
    assert call.service.is_usable


async def test_an_answer_without_sound_does_not_count_as_heard(call: Call) -> None:
    await call.asks()
    call.session.says("mute words")
    call.session.ends()
    assert await call.events.wait("heard") == {"turn": 0, "text": ""}
    assert call.events.named("error") == [{"turn": 0, "message": "the model's answer has no sound"}]
    assert call.history == []
    assert call.down.of(TTSStoppedFrame) == []


async def test_a_typed_message_is_answered_once_and_kept_in_the_context(call: Call) -> None:
    call.context.add_message({"role": "developer", "content": "Greet the caller."})
    await call.send(LLMContextFrame(call.context), LLMContextFrame(call.context))
    await call.events.wait("answer_started")
    call.session.says("Good morning.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("heard")
    await call.send(LLMContextFrame(call.context))
    assert [request.instruction for request in call.session.requests] == ["Greet the caller."]
    assert call.history == ["Greet the caller.", "Good morning."]


async def test_typed_turns_wait_for_the_answer_that_is_playing(call: Call) -> None:
    await call.send(TTSSpeakFrame("One."), TTSSpeakFrame("Two."))
    await call.events.wait("answer_started")
    call.session.says("One.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    assert [request.say for request in call.session.requests] == ["One."]
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("answer_started", 2)
    assert [request.say for request in call.session.requests] == ["One.", "Two."]


async def test_audio_at_another_rate_is_reported_and_not_sent(call: Call) -> None:
    await call.starts()
    await call.send(InputAudioRawFrame(bytes(320), 8_000, 1))
    await call.events.until(lambda: bool(call.up.of(ErrorFrame)))
    assert "expected 16000 Hz mono" in call.up.of(ErrorFrame)[0].error
    assert call.session.pushed == []


async def test_settings_reach_every_request() -> None:
    settings = AgentSettings.model_validate(
        {
            "instructions": "Be brief.",
            "sampling": {
                "temperature": 0.0,
                "top_p": 0.5,
                "max_new_tokens": 99,
                "repetition_guard": False,
                "seed": 3,
            },
        }
    )
    async with running(settings) as call:
        await call.asks()
        await call.events.wait("answer_started")
        assert call.session.requests == [
            TurnRequest(
                temperature=0.0,
                top_p=0.5,
                max_new_tokens=99,
                repetition_guard=False,
                seed=3,
                system=system_prompt(False, "Be brief.", ()),
                early=True,
            )
        ]
        assert call.session.expected[-1] == replace(call.session.requests[0], early=False)


async def test_an_ending_call_lets_the_answer_be_made_to_its_end() -> None:
    async with running() as call:
        await call.asks()
        call.session.says("Good", 0.5)
        await call.events.wait("first_audio")
        await call.worker.queue_frame(EndFrame())
        await call.events.until(lambda: bool(call.up.of(EndFrame)))
        call.session.says("bye.", 0.5)
        call.session.ends()
        await call.events.until(lambda: bool(call.down.of(EndFrame)))
        kinds = (TTSAudioRawFrame, TTSStoppedFrame, EndFrame)
        assert [type(frame) for frame in call.down.of(*kinds)] == [
            TTSAudioRawFrame,
            TTSAudioRawFrame,
            TTSStoppedFrame,
            EndFrame,
        ]


async def test_last_words_take_the_place_of_all_others(call: Call) -> None:
    await call.send(TTSSpeakFrame("One."), TTSSpeakFrame("Two."))
    await call.events.wait("answer_started")
    call.session.says("One.", 1.0)
    await call.events.wait("first_audio")
    last = asyncio.create_task(call.service.end_with("Goodbye."))
    await call.events.until(lambda: bool(call.down.of(InterruptionFrame)))
    assert not last.done()
    await call.heard(0, 0.5, interrupted=True)
    await last
    await call.events.wait("answer_started", 2)
    assert [request.say for request in call.session.requests] == ["One.", "Goodbye."]
    assert call.session.requests[1].heard_seconds == 0.5
    call.session.says("Goodbye.", 1.0)
    call.session.ends()
    await call.events.until(lambda: bool(call.down.of(EndFrame)))
    assert len(call.down.of(TTSStoppedFrame)) == 1


async def test_last_words_are_given_up_when_the_caller_cuts_in_first(call: Call) -> None:
    await call.send(TTSSpeakFrame("One."))
    await call.events.wait("answer_started")
    call.session.says("One.", 1.0)
    await call.events.wait("first_audio")
    last = asyncio.create_task(call.service.end_with("Goodbye."))
    await call.events.until(lambda: bool(call.down.of(InterruptionFrame)))
    await call.starts()
    await last
    await call.events.until(lambda: bool(call.down.of(EndFrame)))
    assert [request.say for request in call.session.requests] == ["One."]


async def test_cleanup_in_the_middle_of_an_answer_frees_the_session_once() -> None:
    async with running() as call:
        await call.asks()
        call.session.says("and so on ", 0.5)
        await call.events.wait("first_audio")
    assert call.session.running == 0
    await call.service.cleanup()
    assert call.session.closed == 1


@pytest.fixture
async def eager() -> AsyncIterator[Call]:
    """A call whose answers begin when the caller pauses."""
    async with running(AgentSettings()) as call:
        yield call


async def test_an_early_answer_is_heard_before_the_turn_is_decided(eager: Call) -> None:
    await eager.speaks()
    eager.session.says("Hello ", 0.5, first_token=0.02, first_audio=0.1)
    await eager.events.until(lambda: bool(eager.session.requests) and eager.session._script.empty())
    await eager.audio(10)
    assert not eager.down.of(TTSAudioRawFrame, TTSTextFrame, LLMFullResponseStartFrame)
    assert eager.session.confirmed == 0
    await eager.send(UserStoppedSpeakingFrame())
    eager.session.says("there.", 0.25)
    eager.session.ends()
    await eager.spoken()
    assert [frame.text for frame in eager.down.of(TTSTextFrame)] == ["Hello ", "there."]
    assert len(eager.down.of(TTSAudioRawFrame)) == 2
    assert len(eager.session.requests) == eager.session.confirmed == 1
    assert eager.session.retracted == 0
    names = [name for name, _ in eager.events.all]
    assert names.index("turn_decided") < names.index("answer_started")
    assert eager.events.named("answer_started")[0]["ahead"] > 0.0
    assert eager.events.named("first_audio")[0]["saved"] > 0.0


async def test_a_caller_who_goes_on_is_answered_twice(eager: Call) -> None:
    await eager.speaks()
    eager.session.says("Wrong ", 0.5)
    await eager.events.until(lambda: bool(eager.session.requests) and eager.session._script.empty())
    await eager.send(VADUserStartedSpeakingFrame(start_secs=0.2))
    dropped = await eager.events.wait("early_answer_dropped")
    assert dropped["seconds"] > 0.0
    await eager.events.until(lambda: eager.session.running == 0)
    await eager.audio(10)
    await eager.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await eager.events.until(lambda: len(eager.session.requests) == 2)
    await eager.send(UserStoppedSpeakingFrame())
    eager.session.says("Right.", 0.5)
    eager.session.ends()
    await eager.spoken()
    assert [frame.text for frame in eager.down.of(TTSTextFrame)] == ["Right."]
    assert [fields["turn"] for fields in eager.events.named("turn_decided")] == [0]
    assert (eager.session.retracted, eager.session.confirmed) == (1, 1)
    assert eager.session.discarded == 0


async def test_a_short_pause_is_enough_to_begin_and_its_end_to_stop(eager: Call) -> None:
    """The VAD calls it silence later, or never."""
    await eager.starts()
    await eager.audio(25)
    eager.service.caller_pauses(True)
    await eager.events.until(lambda: len(eager.session.requests) == 1)
    eager.service.caller_pauses(True)
    eager.service.caller_pauses(False)
    await eager.events.until(lambda: eager.session.retracted == 1 and eager.session.running == 0)
    eager.service.caller_pauses(True)
    await eager.events.until(lambda: len(eager.session.requests) == 2)
    await eager.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await eager.send(UserStoppedSpeakingFrame())
    await eager.events.wait("answer_started")
    assert len(eager.session.requests) == 2
    assert all(request.early for request in eager.session.requests)


async def test_a_cough_is_answered_early(eager: Call) -> None:
    await eager.starts()
    await eager.audio(3)
    eager.service.caller_pauses(True)
    await eager.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await eager.send(UserStoppedSpeakingFrame())
    await eager.events.until(lambda: eager.session.discarded == 1)
    assert eager.session.requests == []


async def test_an_early_answer_begins_under_the_greeting(eager: Call) -> None:
    """While the agent still talks, a pause of the caller is no reason to answer."""
    await eager.send(TTSSpeakFrame("Welcome."))
    eager.session.says("Welcome.", 1.0)
    eager.session.ends()
    await eager.events.wait("answer_finished")
    # Not interrupted: the phone has not reported on the greeting yet.
    await eager.send(VADUserStartedSpeakingFrame(start_secs=0.2))
    await eager.audio(25)
    await eager.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await eager.audio(1)
    assert len(eager.session.requests) == 1


async def test_an_early_answer_that_fails_costs_the_caller_the_answer(eager: Call) -> None:
    await eager.speaks()
    eager.session.fails(RuntimeError("engine gone"))
    await eager.events.until(lambda: bool(eager.session.requests) and eager.session.running == 0)
    await eager.audio(1)
    await eager.send(UserStoppedSpeakingFrame())
    eager.session.says("Still here.", 0.5)
    eager.session.ends()
    await eager.events.wait("answer_finished")
    assert [request.early for request in eager.session.requests] == [True, False]
    assert not eager.events.named("error")


async def test_a_barge_in_edit_is_lost_on_an_early_answer(eager: Call) -> None:
    await eager.asks()
    eager.session.says("A long answer.", 2.0)
    await eager.events.wait("first_audio")
    await eager.starts()
    await eager.heard(0, 0.75, interrupted=True)
    await eager.events.wait("heard")
    await eager.audio(25)
    await eager.send(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await eager.events.until(lambda: len(eager.session.requests) == 2)
    assert eager.session.requests[1].heard_seconds == 0.75
    assert eager.session.expected[-1].heard_seconds == 0.75


async def test_the_callers_words_come_after_the_answer_they_belong_before(call: Call) -> None:
    call.session.words = "when do you open"
    await call.asks()
    await call.events.wait("answer_started")
    assert call.session.asked_words == 0
    call.session.says("At eight.", 1.0)
    words = await call.events.wait("caller_text")
    assert words == {"turn": 0, "text": "when do you open"}
    await call.events.until(lambda: bool(call.down.of(TranscriptionFrame)))
    call.session.ends()
    await call.events.wait("answer_finished")
    await call.heard(0, 1.0, completed=True)
    await call.events.wait("heard")
    assert call.history == ["when do you open", "At eight."]
    # A context that ends in the caller's own words is no instruction.
    context = LLMContext(call.context.get_messages()[:1])
    await call.send(LLMContextFrame(context))
    await call.audio(1)
    assert len(call.session.requests) == 1


async def test_words_that_arrive_late_go_to_the_end_of_the_context(call: Call) -> None:
    call.session.words = "when do you open"
    await call.asks()
    call.session.says("At eight.", 1.0)
    await call.heard(0, 0.9)
    await call.events.wait("caller_text")
    await call.heard(0, 0.95)
    await call.events.until(lambda: len(call.history) == 2)
    assert call.history[0] == "when do you open"


async def test_a_greeting_is_transcribed(call: Call) -> None:
    call.session.words = "nobody said this"
    await call.send(TTSSpeakFrame("Welcome."))
    call.session.says("Welcome.", 1.0)
    call.session.ends()
    await call.events.wait("answer_finished")
    assert call.session.asked_words == 0


async def test_a_transcript_that_fails_ends_the_answer(call: Call) -> None:
    async def broken() -> str:
        raise RuntimeError("voice_lm is gone")

    call.session.transcribe = broken  # type: ignore[method-assign]
    await call.asks()
    call.session.says("At eight.", 1.0)
    error = await call.events.wait("error")
    assert error == {"message": "voice_lm is gone"}
    call.session.ends()
    await call.events.wait("answer_finished")
