"""The evaluation's items and the directory they are read from; docs/evaluation.md describes both.

A directory holds one JSONL file a task, ``TASK.jsonl``, one item a line, and sound files that the
items name. Sounds are read when an item is used, so a set may be larger than the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
import soundfile
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agent.evaluation.text import Language
from agent.sound import SAMPLE_RATE, Audio, phone_band, resampled

Measure: TypeAlias = Literal["rate", "pitch", "energy"]


def _in_directory(path: Path, info: ValidationInfo) -> Path:
    path = info.context["directory"] / path if info.context else path
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    return path


Text: TypeAlias = Annotated[str, Field(pattern=r"\S")]
SoundFile: TypeAlias = Annotated[Path, AfterValidator(_in_directory)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Part):
    """What the model is asked: a recording, typed words, or words that it must say.

    Attributes:
        audio: The recording.
        text: Typed words.
        say: Words to be said as they stand.
        words: What the recording says, where something reads it (an LLM judge).
        system: Another system prompt.
        phone_band: Send the recording through an 8 kHz mu-law line first.
    """

    audio: SoundFile | None = None
    text: Text | None = None
    say: Text | None = None
    words: Text | None = None
    system: Text | None = None
    phone_band: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.audio, self.text, self.say)) != 1:
            raise ValueError("expected exactly one of audio, text, say")
        return self

    @property
    def written(self) -> str | None:
        """The question in writing, if it is known."""
        return self.words or self.text or self.say


class Ending(_Part):
    """One way a story goes on, spoken, written or both."""

    audio: SoundFile | None = None
    text: Text | None = None
    phone_band: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.audio is None and self.text is None:
            raise ValueError("expected audio, text or both")
        return self


class Item(_Part):
    """What all items have.

    Attributes:
        id: Its name, one of a kind in its file.
        set: The data set it is from; figures are given for each.
        language: Of what is said.
    """

    id: Text
    set: Text
    language: Language = "en"


class ClozeItem(Item):
    """Which of two endings is likelier after a context?

    Attributes:
        context: The recording before the endings; None where the endings' recordings hold it.
        prompt: "plain" continues the recording; "dialogue" has the ending as an answer to it.
        right: The ending that was written for it.
        wrong: Another one.
    """

    context: SoundFile | None = None
    phone_band: bool = False
    prompt: Literal["plain", "dialogue"] = "plain"
    right: Ending
    wrong: Ending

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.prompt == "dialogue":
            if self.context is None:
                raise ValueError("prompt 'dialogue' needs a context")
            if self.right.text is None or self.wrong.text is None:
                raise ValueError("prompt 'dialogue' needs the text of both endings")
        return self


class QuestionItem(Item):
    """A question with the answers that count as right."""

    question: Turn
    answers: Annotated[tuple[Text, ...], Field(min_length=1)]


class RecordingItem(Item):
    """A recording and what is said in it."""

    audio: SoundFile
    phone_band: bool = False
    text: Text


class TextItem(Item):
    """A text to be said."""

    text: Text


class ChatItem(Item):
    """A question for a judge; with answers, it asks for a fact and the judge is told them."""

    question: Turn
    answers: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.question.written is None:
            raise ValueError("question.words is missing: the judge reads it")
        return self


class StyleItem(Item):
    """The same question without and with a wish for a style, and what should change.

    Attributes:
        plain: Without.
        styled: With, for example in its system prompt or its words.
        expect: In which direction the answer's rate, pitch or energy should go.
    """

    plain: Turn
    styled: Turn
    expect: Annotated[dict[Measure, Literal["higher", "lower"]], Field(min_length=1)]


class SpokenItem(Item):
    """A recording to be answered."""

    audio: SoundFile
    phone_band: bool = False


AnyItem = TypeVar("AnyItem", bound=Item)
ITEMS: dict[str, type[Item]] = {
    "cloze": ClozeItem,
    "qa": QuestionItem,
    "asr": RecordingItem,
    "tts": TextItem,
    "chat": ChatItem,
    "style": StyleItem,
    "latency": SpokenItem,
}


def load_sound(path: Path, on_the_phone: bool = False) -> Audio:
    """Read a sound file of any rate and number of channels.

    Returns:
        float32 [n] at 16 kHz, channels averaged.

    Raises:
        ValueError: The file cannot be read or has no samples.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not len(samples):
        raise ValueError(f"{path}: no samples")
    audio = np.ascontiguousarray(samples.mean(axis=1))
    if on_the_phone:
        return phone_band(audio, rate)
    return audio if rate == SAMPLE_RATE else resampled(audio, rate)


def parse_item(task: str, value: Any, directory: Path, where: str) -> Item:
    """Check one item.

    Args:
        task: Which kind it is.
        value: Its fields.
        directory: What its paths start from; its name is the default for the field ``set``.
        where: File and line, for messages.

    Raises:
        ValueError: Names file, line and field.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, found {type(value).__name__}")
    try:
        return ITEMS[task].model_validate(
            {"set": directory.resolve().name, **value}, context={"directory": directory}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {f'field {field!r}: ' if field else ''}{message}") from error


def read_directory(task: str, directory: Path) -> list[Item] | None:
    """Read a task's items; None if the directory has no file for the task.

    Raises:
        ValueError: A line is no JSON object or has a wrong field, or an id comes twice; the message
            names file, line and field.
    """
    path = directory / f"{task}.jsonl"
    if not path.is_file():
        return None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    values = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values.append((where, json.loads(line)))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg})") from error
    return parse_items(task, values, directory)


def parse_items(task: str, values: Iterable[tuple[str, Any]], directory: Path) -> list[Item]:
    """Check items, each with where it stands, as :func:`parse_item`; ids must differ."""
    items: dict[str, Item] = {}
    for where, value in values:
        item = parse_item(task, value, directory, where)
        if item.id in items:
            raise ValueError(f"{where}: field 'id': {item.id!r} comes twice")
        items[item.id] = item
    return list(items.values())
