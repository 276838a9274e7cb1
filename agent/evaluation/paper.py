"""What the GLM-4-Voice paper reports for its 9 B model (arXiv 2412.02612v1, section 5).

Read in the paper's text: tables 3 to 5 are of the base model, which is not published; table 6 is of
the chat model, which is. Only figures of the same data set and of the same kind stand beside ours.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2412.02612v1"


@dataclass(frozen=True)
class Published:
    """One figure of the paper.

    Attributes:
        task: The task of ours that it belongs to.
        set: The data set.
        name: The figure's name, as ours where we measure the same.
        value: In its unit.
        unit: "%" or another.
        table: Where it stands.
    """

    task: str
    set: str
    name: str
    value: float
    unit: str
    table: int


PUBLISHED = (
    Published("cloze", "Topic-StoryCloze", "accuracy_speech_to_text", 93.6, "%", 3),
    Published("cloze", "Topic-StoryCloze", "accuracy_speech_to_speech", 82.9, "%", 3),
    Published("cloze", "StoryCloze", "accuracy_speech_to_text", 76.3, "%", 3),
    Published("cloze", "StoryCloze", "accuracy_speech_to_speech", 62.4, "%", 3),
    Published("qa", "Web Questions", "accuracy_text", 32.2, "%", 4),
    Published("qa", "Web Questions", "accuracy_speech", 15.9, "%", 4),
    Published("qa", "Llama Questions", "accuracy_text", 64.7, "%", 4),
    Published("qa", "Llama Questions", "accuracy_speech", 50.7, "%", 4),
    Published("qa", "TriviaQA", "accuracy_text", 39.1, "%", 4),
    Published("qa", "TriviaQA", "accuracy_speech", 26.5, "%", 4),
    Published("asr", "LibriSpeech test-clean", "wer", 2.82, "%", 5),
    Published("asr", "LibriSpeech test-other", "wer", 7.66, "%", 5),
    Published("asr", "AISHELL-1 test", "cer", 2.46, "%", 5),
    Published("tts", "LibriTTS test-clean", "wer", 5.64, "%", 5),
    Published("tts", "Seed-TTS test-en", "wer", 2.91, "%", 5),
    # The paper calls this one WER, too; what is counted in Mandarin it does not say.
    Published("tts", "Seed-TTS test-zh", "wer", 2.10, "%", 5),
    Published("chat", "General QA", "quality", 5.40, "of 10", 6),
    Published("chat", "Knowledge", "knowledge", 5.20, "of 10", 6),
    Published("chat", "General QA", "speech_against_text", 5.74, "%", 6),
    Published("chat", "General QA", "utmos", 4.45, "of 5", 6),
)


def published(task: str, name: str, part: str) -> Published | None:
    """The paper's figure of the same task, kind and data set, if there is one."""
    for one in PUBLISHED:
        if (one.task, one.name, one.set) == (task, name, part):
            return one
    return None
