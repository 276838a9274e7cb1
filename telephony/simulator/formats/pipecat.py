"""Scripted scenarios of Pipecat's evals (``turns:``), placed as phone calls.

Pipecat's own reader reads them: what it refuses is refused here. Its harness talks to a bot over
RTVI and sees events inside it; on the phone there is sound, and the agent's text where its records
can be read. What can be told from those becomes expectations, the rest is listed as not judged.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telephony.simulator.scenario import Scenario


def load(path: Path) -> tuple[Scenario, ...]:
    raise ValueError(path)


_ANSWERS = {"response", "llm_response", "tts_response", "llm_started", "bot_started_speaking"}
_AFTER_CALLER = {
    "user_started_speaking",
    "user_stopped_speaking",
    "vad_user_started_speaking",
    "vad_user_stopped_speaking",
    "user_transcription",
}
_AFTER_AGENT = {"bot_stopped_speaking"}
_LISTEN_MS = 10_000
"""How long a turn listens that only waits, where it names no time of its own."""
_FIELDS = {"user", "dtmf", "send_after", "audio", "image"}


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether a YAML file's mapping is a file of Pipecat's evals."""
    if "scenarios" in content or "persona" in content:
        return True
    turns = content.get("turns")
    if not isinstance(turns, list):
        return False
    mappings = [turn for turn in turns if isinstance(turn, dict)]
    return any(_FIELDS & turn.keys() or isinstance(turn.get("expect"), list) for turn in mappings)
