"""Dialogues as people write them down: YAML scripts, with recordings where there are any.

A file holds one dialogue, or several parted by ``---``:

    instructions: You answer for Oak Street Clinic.   # optional, as are all but turns
    tools: [{name: book, description: ..., parameters: {...}}]
    split: held_out
    recording: call17.wav        # stereo, for turns that say when they are in it
    channels: [caller, agent]    # which is the left channel, which the right
    turns:
      - caller: Can I come on Monday?                      # to be spoken
      - agent: {text: One moment., begin: 3.2, end: 4.1}   # in the recording, in seconds
      - call: {name: book, arguments: {day: Monday}}
      - result: booked
      - agent: {text: You are booked., audio: booked.wav}  # a recording of its own, mono
      - caller: {text: thanks, typed: true}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import soundfile
import yaml
from pydantic import AfterValidator, field_validator, model_validator
from scipy.signal import resample_poly

from agent.sound import Audio
from agent.training.dialogues import ROLES, following
from agent.training.recipe import Section
from agent.training.shards import SAMPLE_RATE


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value)
    except TypeError as error:
        # YAML reads 2026-01-31 as a date.
        raise ValueError(f"{error}: write it in quotes") from None
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_json)]


class Said(Section):
    """What somebody says.

    Attributes:
        text: The words.
        audio: A mono recording of them.
        begin: Where they begin in the dialogue's recording, in seconds.
        end: Where they end in it.
        typed: Never spoken.
        style: How a text-to-token model is to say them; one that its training data had.
    """

    text: str
    audio: Path | None = None
    begin: float | None = None
    end: float | None = None
    typed: bool = False
    style: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.begin is None) != (self.end is None):
            raise ValueError("begin and end belong together")
        if self.begin is not None and self.end is not None and not 0 <= self.begin < self.end:
            raise ValueError(f"begin {self.begin} must be at least 0 and below end {self.end}")
        sources = [self.audio is not None, self.begin is not None, self.typed]
        if sum(sources) > 1:
            raise ValueError("only one of audio, begin and end, and typed")
        if not self.text.strip():
            raise ValueError("text is empty")
        return self


class Call(Section):
    """A tool that the agent calls."""

    name: str
    arguments: JsonObject


class Turn(Section):
    """One turn: exactly one of its fields is there."""

    caller: Said | None = None
    agent: Said | None = None
    call: Call | None = None
    result: str | None = None

    @field_validator("caller", "agent", mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_role(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a turn has exactly one of {', '.join(ROLES)}")
        if self.agent is not None and self.agent.typed:
            raise ValueError("an agent's turn is spoken, not typed")
        return self

    @property
    def role(self) -> str:
        """Which field is there."""
        (role,) = self.model_fields_set
        return role

    @property
    def said(self) -> Said | None:
        """What is said in it, if anything is."""
        return self.caller or self.agent


class Script(Section):
    """A dialogue; the module's text says how it is written."""

    instructions: str | None = None
    tools: tuple[JsonObject, ...] = ()
    split: Literal["train", "held_out"] | None = None
    recording: Path | None = None
    channels: tuple[Literal["caller", "agent"], Literal["caller", "agent"]] = ("caller", "agent")
    turns: list[Turn]

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.turns:
            raise ValueError("turns is empty")
        if len(set(self.channels)) != 2:
            raise ValueError("channels must name caller and agent")
        for number, tool in enumerate(self.tools):
            if not isinstance(tool.get("name"), str):
                raise ValueError(f"tools.{number}: 'name' must be text")
        before = None
        for number, turn in enumerate(self.turns):
            if turn.role not in following(before):
                raise ValueError(
                    f"turns.{number}: {turn.role!r} may not follow {before or 'the start'!r}"
                )
            if turn.said and turn.said.begin is not None and self.recording is None:
                raise ValueError(f"turns.{number}: begin and end need the field recording")
            before = turn.role
        if before != "agent":
            raise ValueError("the last turn must be the agent's")
        return self


def read_scripts(directory: Path) -> Iterator[tuple[str, Script]]:
    """Read all ``*.yaml`` files below a directory.

    Yields:
        (name, dialogue); the name is the file's, with the number of the dialogue in it.

    Raises:
        ValueError: There is none, one is no YAML, or a field of a dialogue is missing, unknown or
            wrong; names file, dialogue and field.
    """
    files = sorted(directory.rglob("*.yaml"))
    if not files:
        raise ValueError(f"{directory}: no *.yaml files below this directory")
    for path in files:
        try:
            documents = list(yaml.safe_load_all(path.read_text("utf-8")))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a YAML file: {error}") from error
        for number, document in enumerate(documents, 1):
            if not isinstance(document, dict):
                raise ValueError(f"{path}: dialogue {number} is no mapping with 'turns'")
            script = Script.checked(document, path, f"dialogue {number}")
            files_of = [("recording", script.recording)]
            files_of += [
                (f"turns.{n}.{turn.role}.audio", turn.said.audio)
                for n, turn in enumerate(script.turns)
                if turn.said
            ]
            for field, file in files_of:
                if file is not None and not file.is_file():
                    where = f"{path}: field 'dialogue {number}.{field}'"
                    raise ValueError(f"{where} names {file}, which is no file")
            yield f"{path.relative_to(directory)}#{number}", script


def read_audio(path: Path, channels: int) -> list[Audio]:
    """Read a recording, at 16 kHz.

    Args:
        path: Any file that libsndfile reads.
        channels: How many it must have.

    Returns:
        float32 [n] of each channel.

    Raises:
        ValueError: It cannot be read, is empty or has another number of channels.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{path}: not a recording ({error})") from error
    if samples.shape[1] != channels:
        raise ValueError(f"{path}: {samples.shape[1]} channel(s), expected {channels}")
    if not len(samples):
        raise ValueError(f"{path}: no samples")
    divisor = math.gcd(rate, SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        samples = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor, axis=0)
    return [np.ascontiguousarray(channel, dtype=np.float32) for channel in samples.T]
