"""What interrupts the agent: the strategy alone, with a detector that says what the test says."""

import numpy as np
import pytest
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import (
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from agent.interruption import InterruptionStrategy
from agent.noise_floor import NoiseFloor
from agent.turn_taking import TurnTakingSettings

RATE = 16_000
WINDOW = 512
SECONDS = WINDOW / RATE
START_SECS = 0.2


def sound(level: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, WINDOW).astype(np.int16)


class Detector:
    state = VADState.QUIET


class Agent:
    """Speaks, or not, and can be held."""

    def __init__(self) -> None:
        self.speaks, self.leaves, self.held = True, False, False
        self.resumed: list[tuple[float, float]] = []

    def is_leaving(self) -> bool:
        return self.leaves

    async def hold(self) -> bool:
        self.held = self.held or self.speaks
        return self.speaks

    async def resume(self, spoken: float, paused: float) -> None:
        self.held = False
        self.resumed.append((spoken, paused))


class Line:
    def __init__(self, **settings: float) -> None:
        self.agent, self.detector, self.turns = Agent(), Detector(), 0
        self.strategy = InterruptionStrategy(
            TurnTakingSettings(**settings), self.detector, START_SECS, self.agent
        )
        self.strategy.add_event_handler("on_user_turn_started", self._start)

    async def _start(self, *_: object) -> None:
        self.turns += 1
        self.agent.held = False
        await self.strategy.handle_user_turn_started()

    async def hear(self, seconds: float, state: VADState, level: float = 3000) -> None:
        """So much audio, and what the detector makes of all of it."""
        for _ in range(round(seconds / SECONDS)):
            began = self.detector.state is VADState.QUIET and state is VADState.SPEAKING
            ended = self.detector.state is not VADState.QUIET and state is VADState.QUIET
            self.detector.state = state
            await self.strategy.process_frame(InputAudioRawFrame(sound(level).tobytes(), RATE, 1))
            if began:
                await self.strategy.process_frame(VADUserStartedSpeakingFrame(start_secs=0.2))
            if ended:
                await self.strategy.process_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))

    async def silence(self, seconds: float) -> None:
        await self.hear(seconds, VADState.QUIET, 10)

    async def says(self, seconds: float, level: float = 3000) -> None:
        """As the detector tells of it: late by its start_secs, and with silence at the end."""
        await self.hear(seconds - START_SECS, VADState.SPEAKING, level)
        await self.hear(START_SECS, VADState.STOPPING, 10)
        await self.silence(2 * SECONDS)


async def test_a_backchannel_holds_the_agent_and_does_not_interrupt() -> None:
    line = Line()
    await line.silence(1)
    await line.hear(0.1, VADState.SPEAKING)
    assert line.agent.held
    await line.hear(0.2, VADState.STOPPING, 10)
    assert line.agent.held
    await line.silence(0.1)
    assert line.turns == 0
    ((spoken, paused),) = line.agent.resumed
    assert spoken == pytest.approx(0.2 + 0.1 - SECONDS, abs=SECONDS)
    assert paused == pytest.approx(0.3, abs=2 * SECONDS)


async def test_silence_after_a_word_does_not_make_it_an_interruption() -> None:
    line = Line(interrupt_after_secs=0.45)
    await line.silence(1)
    await line.says(0.35)
    assert (line.turns, len(line.agent.resumed)) == (0, 1)


async def test_a_caller_who_goes_on_speaking_interrupts_once() -> None:
    line = Line(interrupt_after_secs=0.5)
    await line.silence(1)
    await line.hear(0.25, VADState.SPEAKING)
    assert line.turns == 0
    await line.hear(1.0, VADState.SPEAKING)
    assert line.turns == 1
    await line.silence(0.5)
    assert line.agent.resumed == []


async def test_a_sound_no_louder_than_the_line_does_not_interrupt_however_long() -> None:
    line = Line(interrupt_after_secs=0.5)
    await line.hear(1, VADState.QUIET, 300)
    await line.hear(5, VADState.SPEAKING, 320)
    assert line.turns == 0
    # Nor does it keep the agent silent for as long as it lasts.
    ((_, paused),) = line.agent.resumed
    assert paused < 2


async def test_who_insists_with_short_words_interrupts() -> None:
    line = Line(interrupt_after_secs=0.5)
    await line.silence(1)
    await line.says(0.35)
    await line.silence(0.3)
    await line.says(0.35)
    assert (line.turns, len(line.agent.resumed)) == (1, 1)


async def test_two_backchannels_far_apart_do_not_add_up() -> None:
    line = Line(interrupt_after_secs=0.5)
    await line.silence(1)
    for _ in range(2):
        await line.says(0.35)
        await line.silence(2)
    assert (line.turns, len(line.agent.resumed)) == (0, 2)


async def test_when_the_agent_has_done_a_short_word_is_a_turn_at_once() -> None:
    line = Line()
    line.agent.speaks = False
    await line.silence(1)
    await line.hear(SECONDS, VADState.SPEAKING)
    assert line.turns == 1


async def test_nobody_interrupts_a_goodbye() -> None:
    line = Line()
    line.agent.leaves = True
    await line.silence(1)
    await line.says(3)
    assert (line.turns, line.agent.resumed) == (0, [])


async def test_a_goodbye_that_begins_while_the_agent_is_held_is_not_interrupted() -> None:
    line = Line()
    await line.silence(1)
    await line.hear(0.1, VADState.SPEAKING)
    line.agent.leaves = True
    await line.hear(2, VADState.SPEAKING)
    assert line.turns == 0


async def test_a_limit_of_nothing_lets_everything_interrupt_at_once() -> None:
    line = Line(interrupt_after_secs=0)
    await line.silence(1)
    await line.hear(SECONDS, VADState.SPEAKING)
    assert (line.turns, line.agent.held) == (1, False)


async def test_within_a_turn_nothing_is_held() -> None:
    line = Line()
    line.agent.speaks = False
    await line.silence(1)
    await line.says(0.5)
    line.agent.speaks = True
    await line.says(0.5)
    assert line.turns == 1
    assert not line.agent.held


def test_the_noise_floor_falls_at_once_and_rises_slowly() -> None:
    floor = NoiseFloor()
    assert floor.margin(sound(3000), 1.0) == 0
    assert floor.margin(sound(30), 1.0) == 0
    assert floor.margin(sound(3000), 1.0) == pytest.approx(37, abs=1)
    assert floor.margin(np.zeros(WINDOW, np.int16), 1.0) == 0
    # Not below what any line has.
    assert floor.margin(np.ones(WINDOW, np.int16), 1.0) == 0
