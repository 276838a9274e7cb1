"""Scripted scenarios of Pipecat's evals (``turns:``), placed as phone calls.

Pipecat's own reader reads them: what it refuses is refused here. Its harness talks to a bot over
RTVI and sees the events inside it; on the phone there is sound, and the agent's text where its
records can be read. What can be told from those becomes an expectation. An event that only says
that the bot heard the caller is implied by its answer and asks for nothing of its own; what nobody
on a phone could tell is listed as not judged.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.expectation import Expectation, Judgement, Tool, Tools
from telephony.simulator.preparation import read_sound
from telephony.simulator.scenario import (
    AfterAgent,
    AfterCaller,
    DuringAgent,
    Greeting,
    Moment,
    Scenario,
    Turn,
)
from telephony.simulator.spoken_text import cache_directory

if TYPE_CHECKING:
    from pipecat.evals.script import EvalExpectation, EvalScriptScenario, EvalScriptTurn

_TEXTS = {"response", "llm_response", "tts_response"}
_ANSWERS = _TEXTS | {"llm_started", "bot_started_speaking"}
_OF_THE_CALLER = {
    "user_started_speaking",
    "user_stopped_speaking",
    "vad_user_started_speaking",
    "vad_user_stopped_speaking",
    "user_transcription",
}
_LISTENS_MS = 10_000
"""How long a turn without input lasts that names no time of its own."""
_PATIENCE_MS = 20_000
"""Pipecat waits a minute for an event; nobody stays on a silent phone so long."""
_LONGEST_MS = 600_000
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


def load(path: Path) -> tuple[Scenario, ...]:
    """Read the scripted scenarios of a file of Pipecat's evals.

    Args:
        path: The YAML file.

    Raises:
        ValueError: Pipecat refuses the file, it holds only simulated callers, or a scenario never
            says anything; the message names the file.
    """
    with warnings.catch_warnings(record=True):
        # Pipecat warns of its own old parts, and of files in its older shape, which it reads.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Its evals bring in its services: nobody else shall wait for them.
        from pipecat.evals.scenario import EvalScenarioFile, EvalScriptScenario

        try:
            scenarios = EvalScenarioFile.load(path).scenarios
        except OSError as error:
            raise ValueError(f"{path}: {error}") from error
    scripted = [one for one in scenarios if isinstance(one, EvalScriptScenario)]
    if not scripted:
        raise ValueError(f"{path}: only simulated callers (persona), expected scripted turns")
    return tuple(_scenario(one, path) for one in scripted)


def _scenario(script: "EvalScriptScenario", path: Path) -> Scenario:
    turns = list(script.turns)
    greeting = None
    if turns and _only_waits(turns[0]):
        greeting = Greeting(expect=_expectation(turns.pop(0).expect))
    said = [_turn(group) for group in _together(turns)]
    if not said:
        raise ValueError(f"{path}: {script.name}: the caller never says anything")
    not_judged = [text for turn in script.turns for text in _not_judged(turn)]
    if script.context:
        not_judged.append("context: the agent starts from its own")
    # Whoever is interrupted at once must have been heard before.
    if greeting is None and said[0].when.during_agent is not None:
        greeting = Greeting()
    return Scenario(
        name=script.name,
        greeting=greeting,
        turns=tuple(said),
        patience_ms=_PATIENCE_MS,
        longest_ms=_LONGEST_MS,
        not_judged=tuple(not_judged),
    )


def _only_waits(turn: "EvalScriptTurn") -> bool:
    return turn.user is None and turn.dtmf is None


def _asks_for_an_answer(turn: "EvalScriptTurn") -> bool:
    return any(e.event in _ANSWERS or e.calls is not None for e in turn.expect)


def _together(turns: Sequence["EvalScriptTurn"]) -> Iterator[list["EvalScriptTurn"]]:
    """Turns that one breath takes.

    Somebody who goes on after a pause in which nothing is expected says one thing, with a pause
    in it: nobody is to answer in between.
    """
    group: list[EvalScriptTurn] = []
    for turn in turns:
        goes_on = (
            group
            and turn.send_after is not None
            and turn.send_after.event in (None, *_OF_THE_CALLER)
            and not _asks_for_an_answer(group[-1])
            and all(t.user is not None and t.audio is None for t in (group[-1], turn))
        )
        if group and not goes_on:
            yield group
            group = []
        group.append(turn)
    if group:
        yield group


def _turn(group: Sequence["EvalScriptTurn"]) -> Turn:
    first, last = group[0], group[-1]
    expect = _expectation(last.expect)
    if _only_waits(first):
        longest = max((e.within_ms or 0 for e in first.expect), default=0)
        return Turn(silence_ms=longest or _LISTENS_MS, when=_when(first), expect=expect)
    if first.dtmf is not None:
        return Turn(digits=first.dtmf, when=_when(first), expect=expect)
    text = _text(first)
    for turn in group[1:]:
        pause = turn.send_after.delay_ms if turn.send_after else 0
        text += f' <break time="{pause}ms"/> {_text(turn)}'
    return Turn(say=text, wav=_recording(first), when=_when(first), expect=expect)


def _text(turn: "EvalScriptTurn") -> str:
    parts = turn.parts or [turn.user or ""]
    return " ".join(p if isinstance(p, str) else f'<break time="{p}ms"/>' for p in parts)


def _recording(turn: "EvalScriptTurn") -> Path | None:
    """A turn's recording as a WAV file of the phone's rate: Pipecat takes any format and rate."""
    if turn.audio is None:
        return None
    source = Path(turn.audio)
    sound = read_sound(source)
    name = hashlib.sha256(sound.tobytes()).hexdigest()[:32]
    path = cache_directory() / "pipecat" / f"{name}.wav"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound.clip(-1.0, 1.0), SAMPLE_RATE, "PCM_16")
    return path


def _when(turn: "EvalScriptTurn") -> Moment:
    after = turn.send_after
    if after is None:
        return Moment(after_agent=AfterAgent())
    if after.event is None or after.event in _OF_THE_CALLER:
        return Moment(after_caller=AfterCaller(after_ms=after.delay_ms))
    if after.event in ("llm_started", "bot_started_speaking"):
        return Moment(during_agent=DuringAgent(after_ms=after.delay_ms))
    # What comes at the end of an answer, or is known to no phone: after the answer.
    return Moment(after_agent=AfterAgent(silence_ms=max(20, after.delay_ms)))


def _expectation(asked: Sequence["EvalExpectation"]) -> Expectation:
    answers = [e for e in asked if e.event in _ANSWERS]
    absent = any(e.absent for e in answers)
    texts = [e for e in answers if e.event in _TEXTS and not e.absent]
    contained = [_spaced(e.text_contains) for e in texts if e.text_contains is not None]
    excluded = [_spaced(e.text_excludes) for e in texts if e.text_excludes is not None]
    times = [e.within_ms for e in answers if e.within_ms is not None and not e.absent]
    called = [
        Tool(name=call.name, arguments=call.args or {})
        for e in asked
        if e.event == "function_call" and not e.absent
        for call in e.calls or ()
        if call.name is not None
    ]
    return Expectation(
        answered=bool(texts) or not absent,
        matches="".join(f"(?s:(?=.*{one}))" for one in contained) or None,
        never_matches="|".join(excluded) or None,
        answer_within_ms=min(times, default=None),
        tools=Tools(called=tuple(called)) if called else None,
        judge=tuple(Judgement(criterion=e.eval) for e in texts if e.eval is not None),
    )


def _spaced(text: str) -> str:
    """A regular expression for a text in its letters' case, with any space between its words."""
    return "(?-i:" + r"\s+".join(re.escape(word) for word in text.split()) + ")"


def _not_judged(turn: "EvalScriptTurn") -> Iterator[str]:
    if turn.image is not None:
        yield "image: a phone has none"
    for asked in turn.expect:
        if asked.event in _OF_THE_CALLER:
            if asked.text_contains is not None:
                yield f"{asked.event}: “{asked.text_contains}”"
        elif asked.event == "function_call":
            if (
                asked.absent
                or asked.eval is not None
                or any(c.name is None for c in asked.calls or ())
            ):
                yield f"function_call: {asked.eval or 'any or none'}"
        elif asked.event not in _ANSWERS:
            yield asked.event
