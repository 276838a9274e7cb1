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

FRAME = 320


@pytest.fixture(scope="module")
def models() -> SharedModels:
    return SharedModels.load()


@pytest.fixture(scope="module")
def speech() -> NDArray[np.int16]:
    """Six seconds: a question in a quiet room, and once more."""
    path = Path(__file__).parent / "data" / "opening_hours.wav"
    question, rate = soundfile.read(path, dtype="int16")
    assert rate == SAMPLE_RATE
    pause = np.zeros(SAMPLE_RATE, np.int16)
    clean = np.concatenate([pause, question, pause, pause, question])[: 6 * SAMPLE_RATE]
    noise = np.random.default_rng(3).normal(0, 20, len(clean))
    return (clean + noise).astype(np.int16)


def frames(samples: NDArray[np.int16]) -> list[bytes]:
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [frame.tobytes() for frame in whole]


async def test_a_call_is_judged_as_by_pipecats_analyzer_however_many_there_are(
    models: SharedModels, speech: NDArray[np.int16]
) -> None:
    settings = VADSettings()
    params = VADParams(
        confidence=settings.confidence,
        start_secs=settings.start_secs,
        stop_secs=settings.stop_secs,
        min_volume=settings.min_volume,
    )
    # Calls that began at different moments: no two hear the same at the same time.
    calls = [frames(np.roll(speech, -shift * SAMPLE_RATE)) for shift in range(5)]

    async def said(analyzer: SileroVADAnalyzer, call: list[bytes]) -> list[VADState]:
        analyzer.set_sample_rate(SAMPLE_RATE)
        states = [await analyzer.analyze_audio(frame) for frame in call]
        await analyzer.cleanup()
        return states

    alone = [await said(SileroVADAnalyzer(params=params), call) for call in calls]
    together = await asyncio.gather(*(said(models.vad(settings), call) for call in calls))
    assert VADState.SPEAKING in alone[0]
    assert list(together) == alone


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
    silero = SharedSilero(session)
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
