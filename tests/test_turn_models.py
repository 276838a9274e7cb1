"""Silero and smart-turn over a spoken line, shared between calls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState
from pipecat.audio.vad.vad_analyzer import VADState

from agent.settings import TurnSettings, VADSettings
from agent.turn_models import SAMPLE_RATE, Pauses, SharedModels

FRAME = 320
Chunks = list[bytes]


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture(scope="module")
def question() -> Chunks:
    """Half a second of silence, "What are your opening hours?", two seconds of silence."""
    path = Path(__file__).parent / "data" / "opening_hours.wav"
    speech, rate = soundfile.read(path, dtype="int16")
    assert rate == SAMPLE_RATE
    parts = [np.zeros(rate // 2, np.int16), speech, np.zeros(2 * rate, np.int16)]
    return cut(np.concatenate(parts))


def cut(samples: NDArray[np.int16]) -> Chunks:
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [chunk.tobytes() for chunk in whole]


async def states(models: SharedModels, *calls: Chunks) -> list[list[VADState]]:
    """What the detector of each call says after each frame, the calls taking turns."""
    detectors = [models.vad(VADSettings()) for _ in calls]
    for detector in detectors:
        detector.set_sample_rate(SAMPLE_RATE)
    said: list[list[VADState]] = [[] for _ in calls]
    for frames in zip(*calls, strict=True):
        for detector, frame, states in zip(detectors, frames, said, strict=True):
            states.append(await detector.analyze_audio(frame))
    return said


async def test_speech_is_found_where_it_is(models: SharedModels, question: Chunks) -> None:
    (said,) = await states(models, question)
    speaking = [index for index, state in enumerate(said) if state is VADState.SPEAKING]
    seconds = [index * FRAME / SAMPLE_RATE for index in speaking]
    assert 0.5 < seconds[0] < 1.1
    assert 1.8 < seconds[-1] < 2.8
    assert said[-1] is VADState.QUIET


async def test_a_call_hears_nothing_of_the_call_beside_it(
    models: SharedModels, question: Chunks
) -> None:
    quiet = [bytes(2 * FRAME)] * len(question)
    (alone,) = await states(models, question)
    beside, silent = await states(models, question, quiet)
    assert beside == alone
    assert set(silent) == {VADState.QUIET}


class FirstNo:
    """Finds a turn unfinished at first, and finished when it is asked again."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, audio: object) -> dict[str, float]:
        self.asked += 1
        return {"prediction": int(self.asked > 1), "probability": 0.5}


async def decide(
    models: SharedModels, question: Chunks, judge: Callable[[object], dict[str, float]] | None
) -> float:
    """Seconds of silence until the turn is over; the VAD reports silence after 0.2 s of it."""
    turn, vad = TurnSettings(max_wait_secs=1.0), VADSettings()
    analyzer = models.turn_analyzer(turn, vad)
    analyzer.set_sample_rate(SAMPLE_RATE)
    if judge is not None:
        analyzer._predict_endpoint = judge  # type: ignore[method-assign,assignment]
    (said,) = await states(models, question)
    last = max(index for index, state in enumerate(said) if state is VADState.SPEAKING)
    spoke = False
    try:
        for index, frame in enumerate(question):
            speaking = index <= last and (spoke or said[index] is VADState.SPEAKING)
            spoke |= speaking
            state = analyzer.append_audio(frame, speaking)
            if index == last + 1:
                state, _ = await analyzer.analyze_end_of_turn()
            if analyzer._asked is not None:
                analyzer._asked.result()
            if state is EndOfTurnState.COMPLETE:
                return vad.stop_secs + (index - last - 1) * FRAME / SAMPLE_RATE
    finally:
        await analyzer.cleanup()
    raise AssertionError("the turn never ended")


async def test_a_finished_question_is_not_waited_for(
    models: SharedModels, question: Chunks
) -> None:
    assert await decide(models, question, None) < 0.5


async def test_a_turn_found_unfinished_is_looked_at_again_before_the_wait_is_over(
    models: SharedModels, question: Chunks
) -> None:
    judge = FirstNo()
    seconds = await decide(models, question, judge)
    assert judge.asked == 2
    assert seconds == pytest.approx(0.3, abs=0.05)


async def test_a_turn_that_never_sounds_finished_ends_after_the_longest_wait(
    models: SharedModels, question: Chunks
) -> None:
    seconds = await decide(models, question, lambda _: {"prediction": 0, "probability": 0.0})
    assert seconds == pytest.approx(1.0, abs=0.05)


async def test_short_pauses_and_their_ends_are_told(models: SharedModels, question: Chunks) -> None:
    """Before the VAD calls the pause silence, and only once it has lasted long enough."""
    told: list[tuple[int, bool]] = []
    index = 0
    settings = VADSettings(stop_secs=0.5)
    detector = models.vad(settings, Pauses(0.1, lambda silent: told.append((index, silent))))
    detector.set_sample_rate(SAMPLE_RATE)
    (said,) = await states(models, question)
    last = max(i for i, state in enumerate(said) if state is VADState.SPEAKING)
    # The question, a pause of 0.3 s, and the question's second half.
    frames = [*question[: last + 15], *question[last - 30 : last + 60]]

    async def listen() -> list[VADState]:
        nonlocal index
        heard = []
        for index, frame in enumerate(frames):  # noqa: B007 (the callback reads it)
            heard.append(await detector.analyze_audio(frame))
        await detector.cleanup()
        return heard

    heard = await listen()
    ends = [(at, silent) for at, silent in told if at > last]
    assert [silent for _, silent in ends] == [True, False, True]
    quiet = next(i for i, state in enumerate(heard) if i > last and state is VADState.QUIET)
    begins = [i for i, state in enumerate(heard) if state is VADState.STOPPING and i > last]
    assert 3 <= ends[0][0] - begins[0] <= 6
    assert ends[2][0] < quiet - 10


def test_models_are_loaded_once_however_many_calls_there_are(models: SharedModels) -> None:
    first, second = (models.vad(VADSettings()) for _ in range(2))
    assert first._silero is second._silero
    assert first._model.state is not second._model.state
    turns = [models.turn_analyzer(TurnSettings(), VADSettings()) for _ in range(2)]
    assert turns[0]._session is turns[1]._session
