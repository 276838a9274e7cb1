"""Runs of tau2-bench, said again over the phone.

A task of tau2-bench is an instruction to a language model that plays the caller: there is nothing
in it to be spoken. The results of a run are a conversation, though: of voice runs the caller's own
audio is kept, tick by tick; of text runs its words, which a synthetic voice speaks. Either way the
caller says what it said then, whatever is answered now, so a run measures hearing, timing and
wording, not tau2-bench's reward. Of that, what must be said is expected; what lies in tau2-bench's
own environment is listed as not judged.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from telephony import mulaw
from telephony.simulator.audible import audible_windows
from telephony.simulator.expectation import CallExpectation, Judgement, Tool, Tools
from telephony.simulator.part import explain
from telephony.simulator.scenario import AfterAgent, Greeting, Moment, Scenario, Turn
from telephony.simulator.spoken_text import Voice, cache_directory

_ACCENTS = {
    "matt_delaney": "espeak-ng:en-us+m3",
    "lisa_brenner": "espeak-ng:en-us+f2",
    "mildred_kaplan": "espeak-ng:en-us+f5",
    "arjun_roy": "espeak-ng:bn+m2",
    "wei_lin": "espeak-ng:cmn+f2",
    "mamadou_diallo": "espeak-ng:fr-fr+m1",
    "priya_patil": "espeak-ng:mr+f3",
}
"""Voices for its personas, where their own audio is not kept."""
_INSIDE = ("DB", "ENV_ASSERTION")
"""Parts of the reward that lie in its own environment."""
_SIGNALS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")


class _Read(BaseModel):
    """A piece of somebody else's file, of which only some fields are used here."""

    model_config = ConfigDict(extra="ignore")


class _AudioFormat(_Read):
    encoding: str = "ulaw"
    sample_rate: int = 8000
    channels: int = 1


class _Message(_Read):
    role: str
    content: str | None = None
    contains_speech: bool = True
    audio_content: str | None = None
    audio_format: _AudioFormat | None = None
    audio_path: Path | None = None
    audio_script_gold: str | None = None


class _Tick(_Read):
    user_chunk: _Message | None = None


class _Environment(_Read):
    persona_name: str | None = None
    background_noise_file: str | None = None


class _Simulation(_Read):
    id: str
    task_id: str | int
    messages: list[_Message] | None = None
    ticks: list[_Tick] | None = None
    speech_environment: _Environment | None = None


class _Criteria(_Read):
    actions: list[dict[str, Any]] | None = None
    env_assertions: list[dict[str, Any]] | None = None
    communicate_info: list[str] | None = None
    nl_assertions: list[str] | None = None
    reward_basis: list[str] = ["DB", "COMMUNICATE"]


class _Task(_Read):
    id: str | int
    evaluation_criteria: _Criteria | None = None


class _Results(_Read):
    tasks: list[_Task]
    simulations: list[_Simulation] = []


def load(path: Path) -> tuple[Scenario, ...]:
    """Read the runs in a results file.

    Args:
        path: ``results.json``, with the simulations in it or in ``simulations/`` beside it.

    Returns:
        One scenario for each simulation in which the caller said something.

    Raises:
        ValueError: The file cannot be read or is none of tau2-bench's results; the message names
            the file and what is wrong.
    """
    results = _read(path, _Results)
    simulations = results.simulations or [
        _read(file, _Simulation) for file in sorted((path.parent / "simulations").glob("*.json"))
    ]
    tasks = {str(task.id): task for task in results.tasks}
    scenarios = []
    for simulation in simulations:
        turns = tuple(_turns(simulation, path.parent))
        if turns:
            scenarios.append(_scenario(simulation, tasks.get(str(simulation.task_id)), turns))
    if not scenarios:
        raise ValueError(
            f"{path}: no simulation in which a caller speaks; tasks alone hold nothing to be said"
        )
    return tuple(scenarios)


def _read(path: Path, model: type[Any]) -> Any:
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: not as tau2-bench writes it: {explain(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from None


def _scenario(simulation: _Simulation, task: _Task | None, turns: tuple[Turn, ...]) -> Scenario:
    environment = simulation.speech_environment or _Environment()
    accent = _ACCENTS.get(environment.persona_name or "")
    criteria = (task.evaluation_criteria if task else None) or _Criteria(reward_basis=[])
    not_judged = [f"reward: {part}" for part in criteria.reward_basis if part in _INSIDE]
    if environment.background_noise_file and any(turn.wav is None for turn in turns):
        not_judged.append(f"behind the caller: {environment.background_noise_file}")
    return Scenario(
        name=f"tau2 task {simulation.task_id} / {simulation.id}",
        # In tau2-bench it is always the agent who speaks first.
        greeting=Greeting(),
        turns=turns,
        voice=Voice(name=accent) if accent else None,
        expect=_expectation(criteria),
        not_judged=tuple(not_judged),
    )


def _expectation(criteria: _Criteria) -> CallExpectation:
    """What a call can tell of the reward: what was said, and tools where each call counts."""
    basis = criteria.reward_basis
    actions = criteria.actions if "ACTION" in basis else None
    called = tuple(
        Tool(name=action["name"], arguments=action.get("arguments") or {})
        for action in actions or ()
        if action.get("requestor", "assistant") == "assistant"
    )
    judged = criteria.nl_assertions if "NL_ASSERTION" in basis else None
    return CallExpectation(
        words=tuple((criteria.communicate_info or ()) if "COMMUNICATE" in basis else ()),
        tools=Tools(called=called) if called else None,
        judge=tuple(Judgement(criterion=text) for text in judged or ()),
    )


def _turns(simulation: _Simulation, folder: Path) -> Iterator[Turn]:
    when = Moment(after_agent=AfterAgent())
    if simulation.ticks:
        for text, path in _utterances(simulation.ticks):
            yield Turn(say=text, wav=path, when=when)
        return
    for message in simulation.messages or ():
        text = _words(message.audio_script_gold or message.content or "")
        if message.role == "user" and text:
            path = message.audio_path
            kept = None if path is None or not (folder / path).exists() else folder / path
            yield Turn(say=text, wav=kept, when=when)


def _words(text: str) -> str:
    for signal in _SIGNALS:
        text = text.replace(signal, " ")
    return " ".join(text.split())


def _utterances(ticks: list[_Tick]) -> Iterator[tuple[str, Path | None]]:
    """Each stretch of ticks in which the caller speaks: its words, and its audio where kept."""

    def speaks(tick: _Tick) -> bool:
        return tick.user_chunk is not None and tick.user_chunk.contains_speech

    for speech, group in groupby(ticks, key=speaks):
        chunks = [tick.user_chunk for tick in group if tick.user_chunk is not None]
        text = _words("".join(chunk.content or "" for chunk in chunks))
        if speech and text:
            yield text, _recording(chunks)


def _recording(chunks: list[_Message]) -> Path | None:
    parts = [_samples(chunk) for chunk in chunks]
    if any(part is None for part in parts):
        return None
    audio = np.concatenate([part for part in parts if part is not None])
    if not audible_windows(audio).any():
        return None
    path = cache_directory() / "tau2" / f"{hashlib.sha256(audio.tobytes()).hexdigest()[:32]}.wav"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, _rate(chunks[0]), "PCM_16")
    return path


def _rate(chunk: _Message) -> int:
    return (chunk.audio_format or _AudioFormat()).sample_rate


def _samples(chunk: _Message) -> NDArray[np.int16] | None:
    """int16 [n]; None where no audio is kept, or in a format of no phone."""
    form = chunk.audio_format or _AudioFormat()
    if not chunk.audio_content or form.channels != 1 or form.sample_rate not in (8000, 16000):
        return None
    try:
        data = base64.b64decode(chunk.audio_content, validate=True)
    except binascii.Error:
        return None
    if form.encoding == "ulaw":
        return mulaw.decode(data)
    if form.encoding == "pcm_s16le":
        return np.frombuffer(data, "<i2").astype(np.int16)
    return None
