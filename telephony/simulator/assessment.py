"""Puts a call's trace, its script and the agent's records together into a report."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from telephony.simulator.agent_records import AgentTurn, Event, agent_turns
from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.caller import Spoken
from telephony.simulator.checks import check_answer, check_barge_in
from telephony.simulator.report import (
    BargeIn,
    CallReport,
    Check,
    ErrorReport,
    Latency,
    Lateness,
    MarkReport,
    TurnReport,
)
from telephony.simulator.scenario import Expectation, Scenario
from telephony.simulator.trace import CallTrace, Cause, StreamTrace

_JOIN_MS = 200.0
"""Pauses shorter than this do not split an answer in two."""
_STILL_FED = 10
"""Frames in which audio must have come for the agent to be in the middle of an answer."""
_ROUNDING = 0.02
"""Seconds by which records and phone may disagree: one tick."""


class Assessment:
    """Judges a call, turn by turn while it goes on or as a whole when it is over."""

    def __init__(
        self,
        scenario: Scenario,
        stream: StreamTrace,
        spoken: Sequence[Spoken],
        events: Sequence[Event] | None,
    ) -> None:
        """Look at what is known so far.

        Args:
            scenario: The script.
            stream: What the phone played and the caller said.
            spoken: The lines that were spoken, in order.
            events: The agent's record of the call, or None where there is none to read.
        """
        self._scenario = scenario
        self._stream = stream
        samples = len(stream.agent) * 160
        self._spoken = [replace(line, end=min(line.end, samples)) for line in spoken]
        self._known = events is not None
        self._turns = agent_turns(events or ())
        self._spans = audible_spans(stream.agent_audio, _JOIN_MS)
        self._end = samples

    def greeting(self) -> TurnReport:
        """What the agent said before the caller's first line."""
        until = self._spoken[0].start if self._spoken else self._end
        heard = self._heard(0, until)
        turns = self._answers(None)
        expected = self._scenario.greeting
        expectation = expected.expect if expected else Expectation(answered=False)
        text = self._text(turns)
        return TurnReport(
            index=None,
            caller=None,
            speech=None,
            answer=heard,
            agent=text,
            heard=turns[-1].heard_text if turns else None,
            checks=check_answer(expectation, heard is not None, text, None),
        )

    def turn(self, index: int) -> TurnReport:
        """A turn of the scenario.

        Args:
            index: Which one; it may not have been spoken.
        """
        script = self._scenario.turns[index]
        place = next((i for i, line in enumerate(self._spoken) if line.turn == index), None)
        if place is None:
            unsaid = Check(
                name="spoken", expected="the line is spoken", found="it was not", passed=False
            )
            return TurnReport(
                index=index, caller=script.label, speech=None, answer=None, checks=[unsaid]
            )
        line = self._spoken[place]
        following = self._spoken[place + 1] if place + 1 < len(self._spoken) else None
        answer = self._answer_to(line, following)
        turns = self._answers(place)
        text = self._text(turns)
        latency = self._latency(line, answer, turns) if answer else None
        checks = check_answer(script.expect, answer is not None, text, latency)
        barge_in = self._barge_in(place) if self._over_agent(line) else None
        if script.when.during_agent is not None:
            checks += check_barge_in(script.expect, barge_in)
        return TurnReport(
            index=index,
            caller=script.label,
            speech=_seconds(line.start, line.end),
            answer=_seconds(*answer) if answer else None,
            agent=text,
            heard=turns[-1].heard_text if turns else None,
            understood=turns[-1].caller if turns else None,
            latency=latency,
            barge_in=barge_in,
            checks=checks,
        )

    def turns(self) -> list[TurnReport]:
        """The greeting, where one is expected, and all turns."""
        reports = [self.turn(index) for index in range(len(self._scenario.turns))]
        if self._scenario.greeting is not None:
            reports.insert(0, self.greeting())
        return reports

    def _heard(self, begin: int, until: int) -> tuple[float, float] | None:
        spans = [span for span in self._spans if begin <= span[0] < until]
        return _seconds(spans[0][0], spans[-1][1]) if spans else None

    def _answer_to(self, line: Spoken, following: Spoken | None) -> tuple[int, int] | None:
        """The stretch from the first to the last audible sample of what answers a line.

        An answer that begins before the caller has finished, and goes on, counts: its time is
        negative.
        """
        until = following.start if following else self._end
        early = [s for s in self._spans if line.start < s[0] < line.end < s[1]]
        later = [s for s in self._spans if line.end <= s[0] < until]
        spans = early + later
        return (spans[0][0], spans[-1][1]) if spans else None

    def _answers(self, place: int | None) -> list[AgentTurn]:
        """The agent's turns that belong to the line spoken at a place (None: to the greeting)."""
        starts = [self._stream.wall(line.start) for line in self._spoken]
        begin = -np.inf if place is None else starts[place]
        first_after = 0 if place is None else place + 1
        until = starts[first_after] if first_after < len(starts) else np.inf
        return [turn for turn in self._turns if begin <= turn.started_at < until]

    def _text(self, turns: Sequence[AgentTurn]) -> str | None:
        if not self._known:
            return None
        return " ".join(turn.text for turn in turns if turn.text)

    def _latency(
        self, line: Spoken, answer: tuple[int, int], turns: Sequence[AgentTurn]
    ) -> Latency:
        whole = (answer[0] - line.end) * 1000 / SAMPLE_RATE
        heard_at = self._stream.wall(answer[0]) + _ROUNDING
        decided = [t for t in turns if t.decided_at is not None and t.decided_at <= heard_at]
        turn = decided[-1] if decided else None
        if turn is None or turn.decided_at is None or turn.first_audio_at is None:
            return Latency(voice_to_voice=whole)
        decision = (turn.decided_at - self._stream.wall(line.end)) * 1000
        engine = (turn.first_audio_at - turn.decided_at) * 1000
        tokenise, first_token = _after(turn.ahead, turn.tokenise or 0.0, turn.first_token or 0.0)
        return Latency(
            voice_to_voice=whole,
            decision=decision,
            tokenise=tokenise,
            first_token=first_token,
            first_audio=engine - tokenise - first_token,
            transport=whole - decision - engine,
            saved=turn.saved * 1000,
        )

    def _over_agent(self, line: Spoken) -> bool:
        """Whether the agent was talking, not merely heard a moment ago, when a line started."""
        frame = line.start // 160
        return line.over_agent and any(self._stream.fed[max(0, frame - _STILL_FED) : frame + 1])

    def _barge_in(self, place: int) -> BargeIn | None:
        line = self._spoken[place]
        before = [span for span in self._spans if span[0] < line.start]
        if not before:
            return None
        earlier = self._spoken[place - 1].end if place else 0
        answer = [span for span in before if span[0] >= earlier] or before[-1:]
        # The answer may pause just then and go on; what outlasts the line answers it.
        rest = [s for s in self._spans if line.start <= s[0] and s[1] <= line.end]
        silent = (before + rest)[-1][1]
        turns = self._answers(place - 1 if place else None)
        cut = [turn for turn in turns if turn.interrupted_at is not None]
        turn = cut[-1] if cut else None
        decided = None
        if turn is not None and turn.interrupted_at is not None:
            decided = (turn.interrupted_at - self._stream.wall(line.start)) * 1000
        return BargeIn(
            after_ms=(line.start - answer[0][0]) * 1000 / SAMPLE_RATE,
            silent_after_ms=max(0.0, (silent - line.start) * 1000 / SAMPLE_RATE),
            decided_after_ms=decided,
            generated=turn.text if turn else None,
            kept=turn.heard_text if turn else None,
        )


def assess_call(
    scenario: Scenario,
    trace: CallTrace,
    spoken: Sequence[Spoken],
    events: Sequence[Event] | None,
) -> CallReport:
    """Report on a call that is over.

    Args:
        scenario: The script.
        trace: What the loopback Twilio saw.
        spoken: The lines that were spoken.
        events: The agent's record, or None where there is none to read.
    """
    stream = trace.stream or StreamTrace("", trace.dialled_at)
    checks = [
        Check(
            name="cause",
            expected=str(Cause.CALLER_HUNG_UP),
            found="; ".join([str(trace.cause), *(f"Twilio said: {text}" for text in trace.said)]),
            passed=trace.cause is Cause.CALLER_HUNG_UP,
        ),
        Check(
            name="errors",
            expected="nothing in Twilio's error log",
            found=", ".join(f"{error.code} {error.detail}" for error in trace.errors) or "nothing",
            passed=not trace.errors,
        ),
    ]
    return CallReport(
        scenario=scenario.name,
        call_sid=trace.call_sid,
        dialled_at=trace.dialled_at,
        stream_started_at=trace.stream.started_at if trace.stream else None,
        webhook_ms=_milliseconds(trace.webhook_seconds),
        connect_ms=_milliseconds(trace.connect_seconds),
        duration=len(stream.agent) * 160 / SAMPLE_RATE,
        cause=str(trace.cause),
        said=list(trace.said),
        turns=Assessment(scenario, stream, spoken, events).turns(),
        checks=checks,
        marks=[
            MarkReport(
                name=mark.name,
                sent=mark.sent / SAMPLE_RATE,
                returned=None if mark.returned is None else mark.returned / SAMPLE_RATE,
                cleared=mark.cleared,
            )
            for mark in stream.marks
        ],
        clears=[position / SAMPLE_RATE for position in stream.clears],
        gaps=[_seconds(*gap) for gap in stream.gaps()],
        unplayed=stream.unplayed / SAMPLE_RATE,
        errors=[ErrorReport(code=e.code, at=e.at, detail=e.detail) for e in trace.errors],
        lateness=_lateness(stream.lateness),
        agent_events=[
            {"at": event.at, "event": event.name, **event.fields} for event in events or ()
        ],
    )


def _after(ahead: float, *parts: float) -> list[float]:
    """What is left of parts, seconds one after the other, when so many seconds have passed."""
    left = []
    for part in parts:
        left.append(max(0.0, part - ahead) * 1000)
        ahead = max(0.0, ahead - part)
    return left


def _lateness(seconds: Sequence[float]) -> Lateness | None:
    if not seconds:
        return None
    median, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return Lateness(median=float(median), p99=float(p99), worst=max(seconds) * 1000)


def _seconds(begin: int, end: int) -> tuple[float, float]:
    return begin / SAMPLE_RATE, end / SAMPLE_RATE


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
