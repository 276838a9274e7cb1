"""Puts a call's trace, its script and the agent's records together into a report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from telephony.simulator.agent_records import Event
from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.caller import Spoken
from telephony.simulator.checks.answer import check_answer
from telephony.simulator.checks.barge_in import check_backchannel, check_barge_in
from telephony.simulator.checks.call import check_course, check_ending
from telephony.simulator.checks.database import check_database
from telephony.simulator.checks.judgement import check_judgement
from telephony.simulator.checks.outside import Outside
from telephony.simulator.checks.said import check_said
from telephony.simulator.checks.tools import describe_call
from telephony.simulator.checks.verdict import Unknown
from telephony.simulator.evidence import Answer, Evidence, Span
from telephony.simulator.expectation import Expectation, Judgement
from telephony.simulator.report import (
    CallReport,
    Check,
    ErrorReport,
    Lateness,
    MarkReport,
    TurnReport,
)
from telephony.simulator.scenario import Scenario
from telephony.simulator.trace import CallTrace, Cause, StreamTrace


class Assessment:
    """Judges a call, turn by turn while it goes on or as a whole when it is over."""

    def __init__(
        self,
        scenario: Scenario,
        stream: StreamTrace,
        spoken: Sequence[Spoken],
        events: Sequence[Event] | None,
        outside: Outside | None = None,
    ) -> None:
        """Look at what is known so far.

        Args:
            scenario: The script.
            stream: What the phone played and the caller said.
            spoken: The lines that were spoken, in order.
            events: The agent's record of the call, or None where there is none to read.
            outside: Who reads the audio and judges the conversation; None leaves out the checks
                that ask them, which take their time.
        """
        self._scenario = scenario
        self._evidence = Evidence(stream, spoken, events)
        self._outside = outside
        self._readings: dict[Span, str | Unknown] = {}

    def greeting(self) -> TurnReport:
        """What the agent said before the caller's first line."""
        expected = self._scenario.greeting
        expectation = expected.expect if expected else Expectation(answered=False)
        answer = self._evidence.answer(None)
        return TurnReport(
            index=None,
            caller=None,
            speech=None,
            **self._came_back(None, answer, expectation),
            checks=check_answer(expectation, answer) + self._asked(None, answer, expectation),
        )

    def turn(self, index: int) -> TurnReport:
        """A turn of the scenario.

        Args:
            index: Which one; it may not have been spoken.
        """
        script = self._scenario.turns[index]
        place = self._evidence.place_of(index)
        if place is None:
            refused = self._scenario.expect.cause in (Cause.REFUSED, Cause.UNREACHABLE)
            expected = "the line is not spoken" if refused else "the line is spoken"
            unsaid = Check(name="spoken", expected=expected, found="it was not", passed=refused)
            return TurnReport(
                index=index, caller=script.label, speech=None, answer=None, checks=[unsaid]
            )
        line = self._evidence.spoken[place]
        answer = self._evidence.answer(place)
        barge_in = self._evidence.barge_in(place)
        if script.backchannel:
            checks = check_backchannel(barge_in, (line.end - line.start) * 1000 / SAMPLE_RATE)
        else:
            checks = check_answer(script.expect, answer)
            if script.when.during_agent is not None:
                checks += check_barge_in(script.expect, barge_in)
        return TurnReport(
            index=index,
            caller=script.label,
            speech=_seconds(line.start, line.end),
            **self._came_back(place, answer, script.expect),
            latency=answer.latency,
            barge_in=barge_in,
            checks=checks + self._asked(place, answer, script.expect),
        )

    def turns(self) -> list[TurnReport]:
        """The greeting, where one is expected, and all turns."""
        greeting = [self.greeting()] if self._scenario.greeting is not None else []
        return greeting + [self.turn(index) for index in range(len(self._scenario.turns))]

    def course(self, turns: Sequence[TurnReport], seconds: float) -> list[Check]:
        """Judge what was said and done at any time.

        Args:
            turns: From :meth:`turns`.
            seconds: The call's duration.
        """
        expect = self._scenario.expect
        checks = check_course(expect, self._evidence, turns, seconds)
        if self._outside is None:
            return checks
        if expect.audio is not None:
            readings = [self._read(span) for span in self._evidence.sounds()]
            why = next((text for text in readings if isinstance(text, Unknown)), None)
            texts = [text for text in readings if isinstance(text, str)]
            checks += check_said(expect.audio, why or texts, "audio.")
        return checks + self._judged(expect.judge, len(self._evidence.spoken), self._outside)

    def _came_back(self, place: int | None, answer: Answer, expect: Expectation) -> dict[str, Any]:
        """Fields of a turn's report."""
        turns = self._evidence.turns(place)
        reading = None
        if self._outside is not None and expect.audio is not None and answer.span is not None:
            reading = _known(self._read(answer.span))
        return {
            "answer": _seconds(*answer.span) if answer.span else None,
            "agent": _known(answer.text),
            "heard": turns[-1].heard_text if turns else None,
            "understood": turns[-1].caller if turns else None,
            "recognised": reading,
        }

    def _asked(self, place: int | None, answer: Answer, expect: Expectation) -> list[Check]:
        """The checks for which somebody outside is asked."""
        if self._outside is None:
            return []
        checks = []
        if expect.audio is not None:
            reading = "" if answer.span is None else self._read(answer.span)
            texts = reading if isinstance(reading, Unknown) else [reading]
            checks += check_said(expect.audio, texts, "audio.")
        return checks + self._judged(expect.judge, 0 if place is None else place + 1, self._outside)

    def _judged(self, judgements: Sequence[Judgement], lines: int, outside: Outside) -> list[Check]:
        if not judgements:
            return []
        transcript = self._transcript(lines)
        return [check_judgement(judgement, transcript, outside) for judgement in judgements]

    def _transcript(self, lines: int) -> str | Unknown:
        """The conversation up to what came back after so many lines of the caller."""
        said = []
        for place in (None, *range(lines)):
            if place is not None:
                turn = self._evidence.spoken[place].turn
                said.append(f"caller: {self._scenario.turns[turn].label}")
            answer = self._evidence.answer(place)
            if not isinstance(answer.tools, Unknown):
                said += [f"(the agent calls {describe_call(call)})" for call in answer.tools]
            text = answer.text
            if isinstance(text, Unknown) and answer.span is not None:
                text = self._read(answer.span)
            if isinstance(text, Unknown) and answer.span is not None:
                return text
            if isinstance(text, str) and text:
                said.append(f"agent: {text}")
        return "\n".join(said)

    def _read(self, span: Span) -> str | Unknown:
        """What the recogniser makes out of the agent's audio; each stretch is read once."""
        if self._outside is None:
            return Unknown("the audio is read when the call is over")
        if span not in self._readings:
            self._readings[span] = self._outside.read(self._evidence.audio(span))
        return self._readings[span]


def asks_outside(scenario: Scenario) -> bool:
    """Whether a scenario's checks ask a recogniser, a judge or a database, and take their time."""
    expectations = [turn.expect for turn in scenario.turns]
    if scenario.greeting is not None:
        expectations.append(scenario.greeting.expect)
    return bool(scenario.expect.database) or any(
        expect.audio or expect.judge for expect in [*expectations, scenario.expect]
    )


def assess_call(
    scenario: Scenario,
    trace: CallTrace,
    spoken: Sequence[Spoken],
    events: Sequence[Event] | None,
    outside: Outside | None = None,
) -> CallReport:
    """Report on a call that is over.

    Args:
        scenario: The script.
        trace: What the loopback Twilio saw.
        spoken: The lines that were spoken.
        events: The agent's record, or None where there is none to read.
        outside: Who reads the audio and judges the conversation, by default whom the environment
            names. Of a rehearsal that was broken off neither they nor databases are asked.
    """
    stream = trace.stream or StreamTrace("", trace.dialled_at)
    over = trace.cause is not Cause.BROKEN_OFF
    asked = (outside or Outside()) if over else None
    assessment = Assessment(scenario, stream, spoken, events, asked)
    turns = assessment.turns()
    duration = len(stream.agent) * 160 / SAMPLE_RATE
    checks = check_ending(scenario.expect, trace) + assessment.course(turns, duration)
    if over:
        checks += [check_database(database) for database in scenario.expect.database]
    return CallReport(
        scenario=scenario.name,
        call_sid=trace.call_sid,
        dialled_at=trace.dialled_at,
        stream_started_at=trace.stream.started_at if trace.stream else None,
        webhook_ms=_milliseconds(trace.webhook_seconds),
        connect_ms=_milliseconds(trace.connect_seconds),
        duration=duration,
        cause=str(trace.cause),
        said=list(trace.said),
        turns=turns,
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


def _lateness(seconds: Sequence[float]) -> Lateness | None:
    if not seconds:
        return None
    median, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return Lateness(median=float(median), p99=float(p99), worst=max(seconds) * 1000)


def _seconds(begin: int, end: int) -> tuple[float, float]:
    return begin / SAMPLE_RATE, end / SAMPLE_RATE


def _known(text: str | Unknown) -> str | None:
    return None if isinstance(text, Unknown) else text


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
