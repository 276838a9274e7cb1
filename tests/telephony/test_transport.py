"""PhoneTransport in a real Pipecat pipeline, with a phone that plays by a clock moved by hand."""

import numpy as np
import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)

from agent.frames import AudioHeardFrame, HoldSpeechFrame, ResumeSpeechFrame
from telephony import mulaw
from telephony.line import EndCause
from telephony.media_streams import Clear, Dtmf, Mark, MarkReturned, Play
from telephony.resampler import Resampler

AGENT_RATE = 22050
FRAME = 0.02


def answer(samples, answer_id="a1", rate=AGENT_RATE, chunk_seconds=0.8):
    """The frames by which a speech service says something."""
    chunk = round(chunk_seconds * rate)
    frames = [TTSStartedFrame(context_id=answer_id)]
    for begin in range(0, len(samples), chunk):
        audio = samples[begin : begin + chunk].tobytes()
        frames.append(TTSAudioRawFrame(audio, rate, 1, context_id=answer_id))
    frames.append(TTSStoppedFrame(context_id=answer_id))
    return frames


def sent_audio(phone):
    return b"".join(event.payload for event in phone.events(Play))


async def test_caller_is_heard_at_16_khz_without_a_gap_or_a_shift(call, tone):
    spoken = tone(0.5, 8000)
    call.phone.say(spoken)
    for _ in range(5):
        await call.clock.settle()
    frames = call.probe.of(InputAudioRawFrame)
    assert {(f.sample_rate, f.num_channels) for f in frames} == {(16000, 1)}
    heard = np.frombuffer(b"".join(f.audio for f in frames), np.int16)
    reference = Resampler(8000, 16000).push(mulaw.decode(mulaw.encode(spoken)))
    # What fills no window of the VAD waits for the next message.
    assert len(reference) - len(heard) < 512
    np.testing.assert_array_equal(heard, reference[: len(heard)])
    assert {len(f.audio) for f in frames} == {2 * 512}


async def test_an_answer_made_faster_than_real_time_leaves_at_the_pace_of_the_clock(call, tone):
    await call.push(*answer(tone(2.0, AGENT_RATE)))
    for _ in range(50):
        await call.clock.advance(FRAME)
        started = call.phone.sent[0][0]
        ahead = len(sent_audio(call.phone)) / 8000 - (call.clock.now - started)
        assert ahead <= 0.1 + 1e-6
    assert len(sent_audio(call.phone)) / 8000 >= 1.0


async def test_no_sample_of_an_answer_is_lost_and_no_gap_is_heard(call, tone):
    spoken = tone(1.7, AGENT_RATE)
    await call.push(*answer(spoken))
    await call.clock.advance(3)
    resampler = Resampler(AGENT_RATE, 8000)
    whole = np.concatenate((resampler.push(spoken), resampler.flush()))
    padded = np.pad(whole, (0, -len(whole) % 160))
    assert sent_audio(call.phone) == mulaw.encode(padded)
    assert bytes(call.phone.played) == mulaw.encode(padded)
    assert call.phone.gaps == 0
    assert {len(event.payload) for event in call.phone.events(Play)} <= {160, 320}


async def test_every_chunk_is_confirmed_and_the_last_mark_completes_the_answer(call, tone):
    await call.push(*answer(tone(2.0, AGENT_RATE)))
    await call.clock.advance(3)
    heard = call.probe.of(AudioHeardFrame)
    assert {frame.answer_id for frame in heard} == {"a1"}
    seconds = [frame.seconds for frame in heard]
    assert seconds == sorted(seconds)
    for chunk_end in (0.8, 1.6):
        assert any(chunk_end <= s < chunk_end + 2 * FRAME for s in seconds)
    assert [frame.completed for frame in heard] == [False] * (len(heard) - 1) + [True]
    assert seconds[-1] == pytest.approx(2.0)
    assert not any(frame.interrupted for frame in heard)


async def test_two_answers_in_a_row_are_accounted_for_apart(call, tone):
    await call.push(*answer(tone(0.5, AGENT_RATE), "a1"), *answer(tone(0.3, AGENT_RATE), "a2"))
    await call.clock.advance(2)
    completed = [f for f in call.probe.of(AudioHeardFrame) if f.completed]
    assert [(f.answer_id, pytest.approx(f.seconds)) for f in completed] == [
        ("a1", 0.5),
        ("a2", 0.3),
    ]


@pytest.mark.parametrize("seconds", [0.0, 0.2])
async def test_an_answer_that_ends_on_a_frame_or_has_no_sound_is_completed(call, tone, seconds):
    # At 8 kHz nothing is held back, so no frame is left to carry the last mark.
    await call.push(*answer(tone(seconds, 8000), rate=8000)[:-1])
    await call.clock.advance(1)
    assert not any(frame.completed for frame in call.probe.of(AudioHeardFrame))
    await call.push(TTSStoppedFrame(context_id="a1"))
    await call.clock.advance(0.1)
    last = call.probe.of(AudioHeardFrame)[-1]
    assert (last.completed, last.seconds) == (True, pytest.approx(seconds))


async def test_barge_in_silences_the_phone_within_two_frames_and_reports_what_was_heard(call, tone):
    await call.push(*answer(tone(4.0, AGENT_RATE)))
    await call.clock.advance(1.31)
    played_before = len(call.phone.played)
    decided = call.clock.now
    await call.push(InterruptionFrame())
    await call.clock.advance(1)
    kinds = [type(event) for _, event in call.phone.sent]
    assert kinds.count(Clear) == 1
    assert kinds[-1] is Clear, "something was sent after the clear"
    assert call.phone.sent[-1][0] == decided
    assert len(call.phone.played) - played_before <= 2 * 160
    cut = [frame for frame in call.probe.of(AudioHeardFrame) if frame.interrupted]
    assert [frame.answer_id for frame in cut] == ["a1"]
    assert cut[0].seconds == pytest.approx(len(call.phone.played) / 8000, abs=1.5 * FRAME)


async def test_marks_returned_by_the_clear_do_not_count_as_heard(call, tone):
    await call.push(*answer(tone(0.9, AGENT_RATE)))
    await call.clock.advance(0.81)
    marks = len(call.phone.events(Mark))
    confirmed = len(call.probe.of(AudioHeardFrame))
    assert marks > confirmed, "no mark is pending: the test proves nothing"
    await call.push(InterruptionFrame())
    await call.clock.advance(0.5)
    after = call.probe.of(AudioHeardFrame)[confirmed:]
    assert [(f.interrupted, f.completed) for f in after] == [(True, False)]


async def test_the_position_heard_never_passes_a_mark_that_has_not_returned(call, tone):
    call.phone.returns_marks = False
    await call.push(*answer(tone(4.0, AGENT_RATE)))
    await call.clock.advance(3)
    await call.push(InterruptionFrame())
    (cut,) = call.probe.of(AudioHeardFrame)
    assert cut.interrupted
    assert cut.seconds <= 0.5 + FRAME


async def test_an_answer_cut_before_its_first_sound_counts_as_not_heard(call, tone):
    await call.push(*answer(tone(2.0, AGENT_RATE), "a1"), *answer(tone(1.0, AGENT_RATE), "a2"))
    await call.clock.advance(0.5)
    await call.push(InterruptionFrame())
    cut = {frame.answer_id: frame for frame in call.probe.of(AudioHeardFrame) if frame.interrupted}
    assert set(cut) == {"a1", "a2"}
    assert cut["a2"].seconds == 0


async def test_late_audio_of_a_cut_answer_stays_silent_and_the_next_answer_is_said(call, tone):
    frames = answer(tone(2.0, AGENT_RATE))
    await call.push(*frames[:2])
    await call.clock.advance(0.3)
    await call.push(InterruptionFrame())
    before = len(sent_audio(call.phone))
    await call.push(*frames[2:])
    await call.clock.advance(1)
    assert len(sent_audio(call.phone)) == before
    await call.push(*answer(tone(0.4, AGENT_RATE), "a2"))
    await call.clock.advance(1)
    assert len(sent_audio(call.phone)) - before == 0.4 * 8000
    assert call.probe.of(AudioHeardFrame)[-1].completed


async def test_what_must_not_be_interrupted_is_played_to_its_end(call, tone):
    frames = answer(tone(1.0, AGENT_RATE))
    for frame in frames:
        frame.interruptible = False
    await call.push(*frames)
    await call.clock.advance(0.3)
    await call.push(InterruptionFrame())
    await call.clock.advance(2)
    assert len(call.phone.played) == 8000
    assert not call.phone.events(Clear)
    assert call.probe.of(AudioHeardFrame)[-1].completed


async def test_the_agent_counts_as_speaking_while_it_speaks(call, tone):
    await call.push(*answer(tone(0.5, AGENT_RATE)))
    assert len(call.probe.of(BotStartedSpeakingFrame)) == 1
    assert not call.probe.of(BotStoppedSpeakingFrame)
    await call.clock.advance(1)
    assert len(call.probe.of(BotStoppedSpeakingFrame)) == 1


async def test_audio_of_changing_rates_and_without_an_answer_is_played_whole(call, tone):
    parts = [tone(0.1, rate) for rate in (16000, 24000, 8000)]
    for part, rate in zip(parts, (16000, 24000, 8000), strict=True):
        await call.push(OutputAudioRawFrame(part.tobytes(), rate, 1))
    await call.worker.queue_frame(EndFrame())
    await call.clock.advance(1)
    assert len(sent_audio(call.phone)) in (2400, 2560)
    assert not call.probe.of(AudioHeardFrame)


async def test_stereo_is_refused_with_the_reason(call, tone):
    await call.push(OutputAudioRawFrame(tone(0.1, 16000).tobytes(), 16000, 2))
    errors = call.probe.of(ErrorFrame)
    assert len(errors) == 1
    assert "expected mono, got 2 channels" in errors[0].error


async def test_keys_pressed_reach_the_pipeline(call):
    for sequence, digit in enumerate("5#A"):
        call.phone.hand(Dtmf("MZ" + "0" * 32, digit, 10 + sequence))
    await call.clock.settle()
    assert [frame.button.value for frame in call.probe.of(InputDTMFFrame)] == ["5", "#"]


async def test_goodbye_is_heard_to_its_end_before_the_line_closes(call, tone):
    await call.push(*answer(tone(1.0, AGENT_RATE)))
    await call.worker.queue_frame(EndFrame())
    await call.clock.advance(0.9)
    assert call.phone.closed_with is None
    await call.clock.advance(0.5)
    assert len(call.phone.played) == 8000
    assert call.phone.closed_with == (1000, "")
    assert call.line.cause is EndCause.AGENT_HUNG_UP
    await call.ended()


async def test_a_phone_that_never_returns_marks_does_not_keep_the_line_open(call, tone):
    call.phone.returns_marks = False
    await call.push(*answer(tone(0.5, AGENT_RATE)))
    await call.worker.queue_frame(EndFrame())
    await call.clock.advance(0.6)
    assert call.phone.closed_with is None
    await call.clock.advance(2.5)
    assert call.phone.closed_with == (1000, "")


@pytest.mark.parametrize(
    ("end", "cause"),
    [("hang_up", EndCause.CALLER_HUNG_UP), ("tear", EndCause.SOCKET_CLOSED)],
)
async def test_the_pipeline_ends_when_the_caller_is_gone(call, tone, end, cause):
    gone = []

    @call.transport.event_handler("on_client_disconnected")
    async def note(transport, line):
        gone.append(line)

    await call.push(*answer(tone(5.0, AGENT_RATE)))
    await call.clock.advance(0.3)
    getattr(call.phone, end)()
    await call.ended()
    assert call.line.cause is cause
    assert gone == [call.line]


async def test_a_caller_who_hangs_up_during_the_goodbye_ends_the_wait(call, tone):
    call.phone.returns_marks = False
    await call.push(*answer(tone(0.2, AGENT_RATE)))
    await call.worker.queue_frame(EndFrame())
    await call.clock.advance(0.3)
    call.phone.hang_up()
    await call.ended()
    assert call.line.cause is EndCause.CALLER_HUNG_UP


async def test_a_protocol_error_closes_the_line_with_its_reason_and_ends_the_pipeline(call):
    call.phone.hand_text('{"event":"media","streamSid":"MZ","media":{"payload":"?"}}')
    await call.ended()
    assert call.line.cause is EndCause.PROTOCOL_ERROR
    code, reason = call.phone.closed_with
    assert code == 1007
    assert "media." in reason


async def test_a_mark_that_was_never_sent_changes_nothing(call):
    call.phone.hand(MarkReturned("MZ" + "0" * 32, "not ours", 9))
    await call.clock.settle()
    assert not call.probe.of(AudioHeardFrame)
    assert call.line.cause is None


# ---- held for a moment


def lost(reference, played):
    """Samples of a reference that nobody heard, where what was played has one repetition."""
    begin = end = 0
    while begin < len(played) and played[begin] == reference[begin]:
        begin += 1
    while end < len(played) and played[-1 - end] == reference[-1 - end]:
        end += 1
    return len(reference) - begin - end


def phone_audio(spoken):
    resampler = Resampler(AGENT_RATE, 8000)
    whole = np.concatenate((resampler.push(spoken), resampler.flush()))
    return mulaw.encode(np.pad(whole, (0, -len(whole) % 160)))


@pytest.fixture
def chirp():
    """Rises from 300 to 1500 Hz: no two moments of it are the same."""
    t = np.arange(2 * AGENT_RATE) / AGENT_RATE
    return (8000 * np.sin(2 * np.pi * (300 * t + 300 * t * t))).astype(np.int16)


@pytest.mark.parametrize("at", [0.03, 0.71, 1.31, 1.95])
async def test_a_held_answer_goes_on_where_it_stopped_being_heard(call, chirp, at):
    await call.push(*answer(chirp))
    await call.clock.advance(at)
    await call.push(HoldSpeechFrame())
    held = len(call.phone.played)
    await call.clock.advance(0.6)
    # Silent within two frames, as at an interruption.
    assert len(call.phone.played) <= held + 160
    assert not any(frame.completed for frame in call.probe.of(AudioHeardFrame))
    await call.push(ResumeSpeechFrame())
    await call.clock.advance(3)
    played = bytes(call.phone.played)
    assert lost(phone_audio(chirp), played) <= 0
    assert len(played) <= len(phone_audio(chirp)) + 320
    heard = call.probe.of(AudioHeardFrame)
    assert [frame.completed for frame in heard] == [False] * (len(heard) - 1) + [True]
    assert not any(frame.interrupted for frame in heard)
    assert len(call.phone.events(Clear)) == 1


async def test_an_interruption_of_a_held_answer_counts_what_was_heard_before(call, chirp):
    await call.push(*answer(chirp))
    await call.clock.advance(0.91)
    await call.push(HoldSpeechFrame())
    await call.clock.advance(0.4)
    played = len(call.phone.played) / 8000
    await call.push(InterruptionFrame())
    await call.clock.advance(2)
    assert len(call.phone.played) / 8000 == played
    last = call.probe.of(AudioHeardFrame)[-1]
    assert last.interrupted
    assert played - 2.1 * FRAME <= last.seconds <= played
    # The next answer is heard from its beginning.
    await call.push(*answer(chirp, "a2"))
    await call.clock.advance(3)
    assert call.probe.of(AudioHeardFrame)[-1].completed
    assert bytes(call.phone.played[-len(phone_audio(chirp)) :]) == phone_audio(chirp)


async def test_what_is_made_while_an_answer_is_held_follows_it(call, chirp):
    first, *rest = answer(chirp)[1:]
    await call.push(TTSStartedFrame(context_id="a1"), first)
    await call.clock.advance(0.75)
    await call.push(HoldSpeechFrame(), *rest, *answer(chirp, "a2"))
    await call.clock.advance(0.3)
    await call.push(ResumeSpeechFrame())
    await call.clock.advance(5)
    both = phone_audio(chirp) * 2
    played = bytes(call.phone.played)
    assert played.endswith(phone_audio(chirp))
    assert lost(both, played) <= 0
    completed = [f.answer_id for f in call.probe.of(AudioHeardFrame) if f.completed]
    assert completed == ["a1", "a2"]


async def test_two_holds_in_a_row_lose_nothing(call, chirp):
    await call.push(*answer(chirp))
    for _ in range(2):
        await call.clock.advance(0.4)
        await call.push(HoldSpeechFrame())
        await call.clock.advance(0.05)
        await call.push(ResumeSpeechFrame())
        await call.push(HoldSpeechFrame())
        await call.push(ResumeSpeechFrame())
    await call.clock.advance(3)
    played = bytes(call.phone.played)
    assert len(played) >= len(phone_audio(chirp))
    assert played[-8000:] == phone_audio(chirp)[-8000:]
    assert call.probe.of(AudioHeardFrame)[-1].completed


async def test_a_call_that_ends_while_it_is_held_says_all_of_it(call, chirp):
    await call.push(*answer(chirp))
    await call.clock.advance(0.5)
    await call.push(HoldSpeechFrame())
    await call.worker.queue_frame(EndFrame())
    await call.clock.advance(4)
    await call.ended()
    assert lost(phone_audio(chirp), bytes(call.phone.played)) <= 0
