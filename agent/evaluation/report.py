"""A run's report as JSON and Markdown; :mod:`agent.evaluation.page` makes the page of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.evaluation.paper import PUBLISHED, SOURCE, published
from agent.evaluation.results import Figure, TaskResult

TITLES = {
    "cloze": "Speech language modelling",
    "qa": "Spoken question answering",
    "asr": "Recognition of speech",
    "tts": "Speech of given texts",
    "chat": "Conversation",
    "style": "Style obedience",
    "latency": "Latency",
}
LABELS = {
    "accuracy_speech_to_speech": "right ending, speech to speech",
    "accuracy_speech_to_text": "right ending, speech to text",
    "accuracy_text": "right answer in the text",
    "accuracy_text_exact": "the text is the answer and nothing else",
    "accuracy_speech": "right answer heard in the speech",
    "wer": "word error rate",
    "cer": "character error rate",
    "quality": "quality, by a language model",
    "knowledge": "correct answers, by a language model",
    "speech_against_text": "word errors of the speech against its own text",
    "utmos": "naturalness, by UTMOS (not measured here)",
    "obeyed_rate": "pace went the way it should",
    "obeyed_pitch": "pitch went the way it should",
    "obeyed_energy": "energy went the way it should",
    "change_rate": "pace, change the way it should go",
    "change_pitch": "pitch, change the way it should go",
    "change_energy": "energy, change the way it should go",
    "words_kept": "same words with and without the instruction",
    "tokenise": "recording's last token, after its end",
    "first_token": "then the answer's first token",
    "first_audio": "then its first sound",
    "total": "from the recording's end to the first sound",
    "real_time_factor": "time for the answer over its sound",
}


@dataclass
class Report:
    """Everything a run found.

    Attributes:
        checkpoint: What was evaluated.
        data: On what.
        settings: How, by name.
        results: One a task asked for, also for those that could not run.
    """

    checkpoint: str
    data: str
    settings: dict[str, Any]
    results: list[TaskResult] = field(default_factory=list)

    def to_json(self) -> str:
        """All of it, the items included."""
        document = asdict(self)
        for result in document["results"]:
            for figure in result["figures"]:
                same = published(result["task"], figure["name"], figure["set"])
                figure["paper"] = None if same is None else same.value
        document["paper"] = {"source": SOURCE, "figures": [asdict(one) for one in PUBLISHED]}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """Its figures, notes and the paper's figures, without the items."""
        lines = ["# Evaluation", "", f"Checkpoint `{self.checkpoint}`, data `{self.data}`.", ""]
        lines += [f"{name}: {value}  " for name, value in self.settings.items()]
        for result in self.results:
            lines += ["", f"## {TITLES[result.task]} (`{result.task}`)", ""]
            if result.figures:
                lines += _table(HEADER, [row(result.task, figure) for figure in result.figures])
            else:
                lines.append("**Not run.**")
            lines += ["", *(f"- {note}" for note in result.notes)] if result.notes else []
            if rows := paper_rows(result.task):
                lines += ["", f"{PAPER_TITLE}:", ""]
                lines += _table(PAPER_HEADER, rows)
        return "\n".join(lines) + "\n"


HEADER = ("set", "figure", "value", "interval", "items", "paper's, GLM-4-Voice 9B")
PAPER_HEADER = ("set", "figure", "the paper's value", "table")
PAPER_TITLE = f"The paper's figures for its 9 B model ({SOURCE}), on its own data sets"


def row(task: str, figure: Figure) -> tuple[str, ...]:
    """A figure as cells under :data:`HEADER`."""
    same = published(task, figure.name, figure.set)
    interval = "–"
    if figure.low is not None and figure.high is not None:
        interval = f"{number(figure.low, figure.unit)} to {number(figure.high, figure.unit)}"
    return (
        figure.set,
        LABELS[figure.name],
        f"{number(figure.value, figure.unit)} {figure.unit}".strip(),
        interval,
        str(figure.count),
        "–" if same is None else f"{same.value:g} {same.unit}",
    )


def paper_rows(task: str) -> list[tuple[str, ...]]:
    """The paper's figures of a task as cells under :data:`PAPER_HEADER`."""
    return [
        (one.set, LABELS[one.name], f"{one.value:g} {one.unit}", str(one.table))
        for one in PUBLISHED
        if one.task == task
    ]


def number(value: float, unit: str) -> str:
    """As many places as are worth showing."""
    places = {"%": 1, "ms": 0 if abs(value) >= 100 else 1}.get(unit, 2)
    return f"{value:.{places}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
