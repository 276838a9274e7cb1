"""The caller's audio on its way to turn detection."""

import numpy as np
import pytest

from telephony import mulaw
from telephony.hearing import QUIET_SECONDS, WINDOWS_IN_QUIET, Hearing
from telephony.resampler import Resampler

WINDOW = 512
FRAME = 160
SILENCE = b"\xff" * FRAME


def messages(samples, length=FRAME):
    payload = mulaw.encode(samples)
    return [payload[begin : begin + length] for begin in range(0, len(payload), length)]


@pytest.mark.parametrize("length", [160, 320, 480, 8000])
def test_nothing_is_lost_and_whole_windows_leave_however_the_audio_comes(tone, length):
    spoken = tone(2.0, 8000)
    hearing = Hearing(16000, WINDOW)
    pieces = [hearing.hear(message) for message in messages(spoken, length)]
    assert all(len(piece) % (2 * WINDOW) == 0 for piece in pieces)
    heard = np.frombuffer(b"".join(pieces), np.int16)
    whole = Resampler(8000, 16000).push(mulaw.decode(mulaw.encode(spoken)))
    np.testing.assert_array_equal(heard, whole[: len(heard)])
    assert len(whole) - len(heard) < WINDOW


def test_a_window_leaves_with_the_message_that_completes_it(tone):
    spoken = tone(1.0, 8000)
    hearing, resampler = Hearing(16000, WINDOW), Resampler(8000, 16000)
    given = left = 0
    for message in messages(spoken):
        given += len(resampler.push(mulaw.decode(message)))
        left += len(hearing.hear(message)) // 2
        assert left == given - given % WINDOW


def test_a_quiet_line_costs_a_third_of_the_frames_and_speech_waits_for_none(tone):
    hearing = Hearing(16000, WINDOW)
    quiet = [hearing.hear(SILENCE) for _ in range(round(6 / 0.02))]
    lengths = [len(piece) // 2 // WINDOW for piece in quiet if piece]
    assert set(lengths) == {1, WINDOWS_IN_QUIET}
    assert lengths.count(1) == pytest.approx(QUIET_SECONDS * 16000 / WINDOW, abs=2)
    while hearing.hear(SILENCE):
        pass
    hearing.hear(SILENCE)
    held = hearing.hear(messages(tone(0.02, 8000))[0])
    assert held, "the beginning of speech waits behind the silence before it"
    for message in messages(tone(0.3, 8000)):
        assert len(hearing.hear(message)) // 2 in (0, WINDOW)


def test_the_pause_that_ends_a_turn_is_heard_window_by_window(tone):
    hearing = Hearing(16000, WINDOW)
    for message in messages(tone(0.5, 8000)):
        hearing.hear(message)
    pause = [hearing.hear(SILENCE) for _ in range(round(1.9 / 0.02))]
    assert {len(piece) // 2 for piece in pause} == {0, WINDOW}
