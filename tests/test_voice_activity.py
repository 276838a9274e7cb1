"""Silero shared by many calls, against Pipecat's own analyzer with a model for each."""

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from numpy.typing import NDArray
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams, VADState

from agent.settings import VADSettings
from agent.turn_models import SharedModels
from agent.voice_activity import SAMPLE_RATE, WINDOW, SharedSilero, SpeechMemory
from telephony import simulator as demo

FRAME = 320


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


LINES = sorted((Path(demo.__file__).parent / "demo" / "lines").glob("*.wav"))


def line(noise: float) -> NDArray[np.int16]:
    """All that the demo's caller says, with pauses, at 16 kHz over a line of so much noise."""
    pause = np.zeros(SAMPLE_RATE * 3 // 2, np.int16)
    parts = [part for path in LINES for part in (pause, soundfile.read(path, dtype="int16")[0])]
    clean = np.concatenate(parts)
    return (clean + np.random.default_rng(3).normal(0, noise, len(clean))).astype(np.int16)


def frames(samples: NDArray[np.int16]) -> list[bytes]:
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [frame.tobytes() for frame in whole]


def turns(states: list[VADState]) -> list[int]:
    """The frames at which the caller begins to count as speaking, and ends."""
    speaking, changes = False, []
    for index, state in enumerate(states):
        if state in (VADState.SPEAKING, VADState.QUIET) and speaking != (
            state is VADState.SPEAKING
        ):
            speaking = not speaking
            changes.append(index)
    return changes


@pytest.mark.parametrize(("noise", "frames_apart"), [(0.0, 1), (1.0, 8), (20.0, 0), (200.0, 1)])
async def test_a_call_is_judged_as_by_pipecats_analyzer_however_many_there_are(
    models: SharedModels, noise: float, frames_apart: int
) -> None:
    """On a line with noise that counts as silence, the model is reset at other moments."""
    settings = VADSettings()
    params = VADParams(
        confidence=settings.confidence,
        start_secs=settings.start_secs,
        stop_secs=settings.stop_secs,
        min_volume=settings.min_volume,
    )
    speech = line(noise)
    # Calls that began at different moments: no two hear the same at the same time.
    calls = [frames(np.roll(speech, -shift * SAMPLE_RATE)) for shift in (0, 3, 7)]

    async def judged(analyzer: SileroVADAnalyzer, call: list[bytes]) -> list[int]:
        analyzer.set_sample_rate(SAMPLE_RATE)
        states = [await analyzer.analyze_audio(frame) for frame in call]
        await analyzer.cleanup()
        return turns(states)

    alone = [await judged(SileroVADAnalyzer(params=params), call) for call in calls]
    together = await asyncio.gather(*(judged(models.vad(settings), call) for call in calls))
    for ours, theirs in zip(together, alone, strict=True):
        assert len(theirs) > 2 * len(LINES) - 2
        assert len(ours) == len(theirs)
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= frames_apart


async def test_a_silent_line_costs_no_run_of_the_model(models: SharedModels) -> None:
    session = Counting(models.silero._session)
    shared = SharedModels(SharedSilero(session), models.smart_turn)  # type: ignore[arg-type]
    vad = shared.vad(VADSettings())
    vad.set_sample_rate(SAMPLE_RATE)
    for _ in range(100):
        assert await vad.analyze_audio(bytes(2 * FRAME)) is VADState.QUIET
    assert not session.runs


class Counting:
    """A session that notes how many windows each run had."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.runs: list[int] = []

    def run(self, names: object, inputs: dict[str, NDArray[np.float32]]) -> object:
        self.runs.append(len(inputs["input"]))
        return self._session.run(names, inputs)


async def test_calls_that_ask_together_are_answered_by_one_run(models: SharedModels) -> None:
    session = Counting(models.silero._session)
    silero = SharedSilero(session)  # type: ignore[arg-type]
    windows = np.random.default_rng(0).normal(0, 900, (5, WINDOW)).astype(np.int16)
    alone = [silero.judge(window, SpeechMemory()) for window in windows]
    session.runs.clear()
    memories = [SpeechMemory() for _ in windows]
    asked = zip(windows, memories, strict=True)
    together = await asyncio.gather(*(silero.ask(window, memory) for window, memory in asked))
    assert session.runs == [5]
    assert together == pytest.approx(alone, abs=1e-5)


async def test_a_call_that_gave_up_leaves_the_others_their_answer(models: SharedModels) -> None:
    silero, memory = SharedSilero(models.silero._session), SpeechMemory()
    window = np.zeros(WINDOW, np.int16)
    gone = asyncio.create_task(silero.ask(window, SpeechMemory()))
    stays = asyncio.create_task(silero.ask(window, memory))
    await asyncio.sleep(0)
    gone.cancel()
    assert 0 <= await stays < 0.5
    assert gone.cancelled() or gone.cancelling()


class Broken:
    def run(self, names: object, inputs: object) -> object:
        raise RuntimeError("no memory")


async def test_a_run_that_fails_is_told_to_whoever_waits_for_it() -> None:
    silero = SharedSilero(Broken())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no memory"):
        await silero.ask(np.zeros(WINDOW, np.int16), SpeechMemory())
