"""Adapters: the public data sets as they are published, read into the evaluation's items.

Nothing is copied or converted; the items name the files where they lie. What each layout looks like
and where that was read is in docs/evaluation.md.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.evaluation.items import Item, parse_items, read_directory

_Values: TypeAlias = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Layout:
    """A published layout: the one task it is for, and how to read it."""

    task: str
    read: Callable[[Path], _Values]


def _librispeech(directory: Path) -> _Values:
    """Read ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` and the FLAC files beside it."""
    for path in _found(directory, "**/*.trans.txt"):
        # test-clean is two levels above its chapters, wherever the data set was unpacked.
        part = path.resolve().parents[2].name
        for where, name, text in _transcript(path):
            audio = path.parent / f"{name}.flac"
            yield where, _recording(name, f"LibriSpeech {part}", audio.absolute(), text)


def _aishell(directory: Path) -> _Values:
    """Read ``wav/test/SPEAKER/ID.wav`` with ``transcript/aishell_transcript_v0.8.txt``."""
    (path,) = _found(directory, "transcript/aishell_transcript_v0.8.txt")
    texts = {name: (where, text) for where, name, text in _transcript(path)}
    for audio in _found(directory, "wav/test/*/*.wav"):
        if audio.stem not in texts:
            continue  # the transcript leaves a few recordings out
        where, text = texts[audio.stem]
        item = _recording(audio.stem, "AISHELL-1 test", audio.absolute(), text)
        yield where, item | {"language": "zh"}


def _recording(name: str, part: str, audio: Path, text: str) -> dict[str, Any]:
    return {"id": name, "set": part, "audio": str(audio), "text": text}


def _llama_questions(directory: Path) -> _Values:
    """Read ``llama_questions_300.tsv`` and the WAV files beside it."""
    (path,) = _found(directory, "llama_questions_300.tsv")
    for where, row in _table(path, "\t", ("Questions", "Answer", "Wav Filename")):
        answers = [row["Answer"].strip()]
        name = row["Wav Filename"].strip()
        yield where, _question("Llama Questions", name, row["Questions"], answers)


def _web_questions(directory: Path) -> _Values:
    """Read OpenAudioBench's ``web_questions.csv`` and its folder ``audios``."""
    (path,) = _found(directory, "web_questions.csv")
    for where, row in _table(path, ",", ("question", "answers", "audio_filename")):
        answers = [answer.strip() for answer in row["answers"].split(";") if answer.strip()]
        name = f"audios/{row['audio_filename'].strip()}"
        yield where, _question("Web Questions", name, row["question"], answers)


def _triviaqa(directory: Path) -> _Values:
    """Read OpenAudioBench's ``trivia_qa.csv`` and its folder ``audios``."""
    (path,) = _found(directory, "trivia_qa.csv")
    columns = (
        "question",
        "answer_normalized_value",
        "answer_normalized_aliases",
        "audio_filename",
    )
    for where, row in _table(path, ",", columns):
        aliases = row["answer_normalized_aliases"].split(",")
        answers = [row["answer_normalized_value"].strip(), *map(str.strip, aliases)]
        name = f"audios/{row['audio_filename'].strip()}"
        answers = list(dict.fromkeys(filter(None, answers)))
        yield where, _question("TriviaQA", name, row["question"], answers)


def _question(part: str, audio: str, words: str, answers: list[str]) -> dict[str, Any]:
    question = {"audio": audio, "words": words.strip()}
    return {"id": Path(audio).stem, "set": part, "question": question, "answers": answers}


def _storycloze(directory: Path) -> _Values:
    """Read ``sSC`` and ``tSC``: whole stories ``NUMBER_...correct...wav`` and ``...incorrect...``.

    The recordings hold context and ending together, so the stories are compared whole.
    """
    _found(directory, "[st]SC/*.wav")
    for folder, part in (("sSC", "StoryCloze"), ("tSC", "Topic-StoryCloze")):
        stories: defaultdict[str, dict[str, Path]] = defaultdict(dict)
        for path in sorted((directory / folder).glob("*.wav")):
            kind = "wrong" if "incorrect" in path.stem.lower() else "right"
            if "correct" not in path.stem.lower() or kind in stories[path.stem.split("_")[0]]:
                raise ValueError(
                    f"{path}: expected one file NUMBER_...correct....wav and one "
                    "NUMBER_...incorrect....wav a story"
                )
            stories[path.stem.split("_")[0]][kind] = path.absolute()
        for number, story in stories.items():
            where = f"{directory / folder}, story {number}"
            endings: dict[str, Any] = {k: {"audio": str(p)} for k, p in story.items()}
            yield where, {"id": f"{folder} {number}", "set": part, **endings}


def _found(directory: Path, pattern: str) -> list[Path]:
    paths = sorted(directory.glob(pattern))
    if not paths:
        raise ValueError(f"{directory}: nothing matches {pattern}")
    return paths


def _transcript(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield where, name and text of a file with a name and a text in every line."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        yield f"{path}, line {number}", name, text.strip()


def _table(
    path: Path, delimiter: str, columns: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if delimiter == "\t":
            # A quotation mark inside a tab-separated field is only a quotation mark.
            rows = csv.DictReader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.DictReader(file, delimiter=delimiter)
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise ValueError(f"{path}, line 1: column {missing[0]!r} is missing")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if empty := [name for name in columns if row[name] is None]:
                raise ValueError(f"{where}: column {empty[0]!r} is missing")
            yield where, row


LAYOUTS = {
    "librispeech": Layout("asr", _librispeech),
    "aishell": Layout("asr", _aishell),
    "llama-questions": Layout("qa", _llama_questions),
    "web-questions": Layout("qa", _web_questions),
    "triviaqa": Layout("qa", _triviaqa),
    "storycloze": Layout("cloze", _storycloze),
}


def read_items(task: str, directory: Path, layout: str | None = None) -> list[Item] | None:
    """Read a task's items from a directory.

    Args:
        task: The task.
        directory: The data.
        layout: A name from :data:`LAYOUTS`; None for the evaluation's own format.

    Returns:
        The items in order; None if the directory has none for this task.

    Raises:
        ValueError: No such directory, or something in it is not as it should be; the message names
            the file, and line and field where there are any.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory")
    if layout is None:
        return read_directory(task, directory)
    adapter = LAYOUTS[layout]
    if task != adapter.task:
        return None
    return parse_items(task, adapter.read(directory), directory)
