"""Which audio reaches the model."""

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.turn_audio import TurnAudio

FRAME = 4


class Caller:
    """Sends numbered samples, so that a lost or doubled one shows."""

    def __init__(self, pre_roll: int) -> None:
        self.audio = TurnAudio(pre_roll, patience=100)
        self.sent = 0
        self.now = 0.0
        self.got: list[float] = []

    def frames(self, count: int) -> None:
        for _ in range(count):
            frame = np.arange(self.sent, self.sent + FRAME, dtype=np.float32)
            self.sent += FRAME
            self.now += 1.0
            self._take(self.audio.take(frame, self.now))

    def starts(self, late: int = 0) -> None:
        """Speech is found; frames that came since have overtaken the report."""
        self._take(self.audio.speech_started(self.now - late))

    def stops(self, late: int = 0) -> None:
        self.audio.speech_stopped(self.now - late)

    def _take(self, pieces: list[NDArray[np.float32]]) -> None:
        for piece in pieces:
            self.got.extend(piece.tolist())


@pytest.fixture
def caller() -> Caller:
    return Caller(pre_roll=6)


def test_audio_from_before_the_vad_noticed_speech_is_not_lost(caller: Caller) -> None:
    caller.frames(10)
    caller.starts()
    caller.frames(2)
    assert caller.got == list(range(34, 48))


def test_audio_between_turns_is_not_sent(caller: Caller) -> None:
    caller.frames(10)
    assert caller.got == []


def test_silence_that_ends_a_turn_is_not_sent(caller: Caller) -> None:
    caller.starts()
    caller.frames(1)
    caller.stops()
    caller.frames(5)
    caller.audio.end_turn()
    assert caller.got == list(range(4))


def test_a_pause_inside_a_turn_is_sent_whole(caller: Caller) -> None:
    caller.starts()
    caller.frames(1)
    caller.stops()
    caller.frames(5)
    caller.starts()
    caller.frames(1)
    assert caller.got == list(range(28))


def test_the_next_turn_begins_with_its_own_pre_roll_and_repeats_nothing(caller: Caller) -> None:
    caller.starts()
    caller.frames(1)
    caller.stops()
    caller.frames(5)
    caller.audio.end_turn()
    caller.got.clear()
    caller.frames(1)
    caller.starts()
    assert caller.got == list(range(22, 28))


def test_pauses_do_not_count_as_speech(caller: Caller) -> None:
    caller.frames(3)
    caller.starts()
    caller.frames(2)
    caller.stops()
    caller.frames(5)
    caller.starts()
    caller.frames(1)
    caller.stops()
    assert caller.audio.spoken == 3 * FRAME
    caller.audio.end_turn()
    assert caller.audio.spoken == 0


def test_audio_that_overtook_the_report_of_speech_is_not_lost(caller: Caller) -> None:
    caller.frames(30)
    caller.starts(late=20)
    caller.frames(1)
    assert caller.got == list(range(34, 124))


def test_audio_that_overtook_the_report_of_silence_is_not_speech(caller: Caller) -> None:
    caller.starts()
    caller.frames(10)
    caller.stops(late=8)
    assert caller.audio.spoken == 2 * FRAME


def test_a_quiet_line_does_not_fill_the_memory(caller: Caller) -> None:
    caller.frames(1000)
    caller.starts(late=1000)
    assert len(caller.got) == 106
