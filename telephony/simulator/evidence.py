"""What is known about each line of a call: from the phone's audio and from the agent's records.

A place is the position of a spoken line among those of the call; None, in the place of one, is the
time before the first.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from telephony.simulator.agent_records import (
    AgentTurn,
    Event,
    ToolCall,
    agent_turns,
    tool_calls,
)
from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.caller import Spoken
from telephony.simulator.checks.verdict import NO_RECORDS, Unknown
from telephony.simulator.report import BargeIn, Latency
from telephony.simulator.trace import StreamTrace

Span = tuple[int, int]
"""First sample, and the sample after the last, at 8 kHz."""

_JOIN_MS = 200.0
"""Pauses shorter than this do not split an answer in two."""
_STILL_FED = 10
"""Frames in which audio must have come for the agent to be in the middle of an answer."""
_ROUNDING = 0.02
"""Seconds by which records and phone may disagree: one tick."""
_NOT_HEARD = Unknown("the agent's record does not say how much of it was heard")


@dataclass(frozen=True)
class Answer:
    """What came back at one place.

    Attributes:
        span: From its first to its last audible sample; None if nothing could be heard.
        text: What the agent said, from its text channel.
        heard: What its history holds as heard.
        tools: The calls of tools meanwhile.
        latency: Where voice-to-voice time could be measured.
        pause_ms: Longest silence inside; None if nothing could be heard.
        gap_ms: Longest silence for want of audio inside; likewise.
    """

    span: Span | None
    text: str | Unknown
    heard: str | Unknown
    tools: Sequence[ToolCall] | Unknown
    latency: Latency | None = None
    pause_ms: float | None = None
    gap_ms: float | None = None


class Evidence:
    """Looks at a call, while it goes on or when it is over.

    Attributes:
        spoken: The lines that were spoken; none ends after the call.
    """

    def __init__(
        self, stream: StreamTrace, spoken: Sequence[Spoken], events: Sequence[Event] | None
    ) -> None:
        """Look at what is known so far.

        Args:
            stream: What the phone played and the caller said.
            spoken: The lines that were spoken, in order.
            events: The agent's record of the call, or None where there is none to read.
        """
        self._stream = stream
        self._end = len(stream.agent) * 160
        self.spoken = [replace(line, end=min(line.end, self._end)) for line in spoken]
        # A record without an event is no record of this call.
        self._known = bool(events)
        self._turns = agent_turns(events or ())
        self._tools = tool_calls(events or ())
        self._audio = stream.agent_audio
        self._spans = audible_spans(self._audio, _JOIN_MS)

    def place_of(self, turn: int) -> int | None:
        """Where a turn of the scenario was spoken, if it was."""
        return next((at for at, line in enumerate(self.spoken) if line.turn == turn), None)

    def answer(self, place: int | None) -> Answer:
        """What came back after a line, or came before the first."""
        span = self._answer_span(place)
        turns = self.turns(place)
        begin, until = self._times(place)
        return Answer(
            span=span,
            text=self._if_known(_text(turns)),
            heard=self._if_known(_heard(turns)),
            tools=[call for call in self._tools if begin <= call.at < until]
            if self._known
            else NO_RECORDS,
            latency=self._latency(self.spoken[place], span, turns)
            if span is not None and place is not None
            else None,
            pause_ms=self._longest_pause(span),
            gap_ms=None if span is None else self.longest_gap(span),
        )

    def turns(self, place: int | None) -> list[AgentTurn]:
        """The agent's turns that belong to a line, by its records."""
        begin, until = self._times(place)
        return [turn for turn in self._turns if begin <= turn.started_at < until]

    def texts(self) -> list[str] | Unknown:
        """All that the agent said, answer by answer."""
        return [turn.text for turn in self._turns if turn.text] if self._known else NO_RECORDS

    def heard(self) -> list[str] | Unknown:
        """All that the agent's history holds as heard, answer by answer."""
        heard = [_heard([turn]) for turn in self._turns if turn.text]
        if not self._known:
            return NO_RECORDS
        known = [text for text in heard if not isinstance(text, Unknown)]
        return known if len(known) == len(heard) else _NOT_HEARD

    def tools(self) -> list[ToolCall] | Unknown:
        """All calls of tools."""
        return self._tools if self._known else NO_RECORDS

    def sounds(self) -> list[Span]:
        """Where the agent could be heard, one stretch for each line and one before the first."""
        starts = [0, *(line.start for line in self.spoken), self._end]
        found = []
        for begin, until in itertools.pairwise(starts):
            spans = [span for span in self._spans if begin <= span[0] < until]
            if spans:
                found.append((spans[0][0], spans[-1][1]))
        return found

    def audio(self, span: Span) -> NDArray[np.int16]:
        """int16 [n] at 8 kHz: what the phone played of the agent."""
        return self._audio[span[0] : span[1]]

    def longest_gap(self, within: Span | None = None) -> float:
        """Milliseconds of the longest silence for want of audio.

        Args:
            within: Where to look; None looks everywhere.

        Returns:
            0 if there is none.
        """
        begin, end = within or (0, self._end)
        gaps = [gap for gap in self._stream.gaps() if begin <= gap[0] and gap[1] <= end]
        return _milliseconds(max((gap[1] - gap[0] for gap in gaps), default=0))

    def longest_silence(self) -> float:
        """Milliseconds of the longest time, up to the last sound, in which nobody was heard."""
        longest, silent_since = 0, 0
        for begin, end in sorted([*self._spans, *((s.start, s.end) for s in self.spoken)]):
            longest = max(longest, begin - silent_since)
            silent_since = max(silent_since, end)
        return _milliseconds(longest)

    def barge_in(self, place: int) -> BargeIn | None:
        """What became of the answer that a line was spoken over; None if the agent was silent."""
        line = self.spoken[place]
        frame = line.start // 160
        # Talking, not merely heard a moment ago.
        fed = any(self._stream.fed[max(0, frame - _STILL_FED) : frame + 1])
        before = [span for span in self._spans if span[0] < line.start]
        if not (line.over_agent and fed and before):
            return None
        earlier = self.spoken[place - 1].end if place else 0
        answer = [span for span in before if span[0] >= earlier] or before[-1:]
        # The answer may pause just then and go on; what outlasts the line answers it.
        rest = [s for s in self._spans if line.start <= s[0] and s[1] <= line.end]
        silent = (before + rest)[-1][1]
        again = next((span[0] for span in self._spans if span[0] > silent), None)
        turns = self.turns(place - 1 if place else None)
        cut = [turn for turn in turns if turn.interrupted_at is not None]
        turn = cut[-1] if cut else None
        decided = None
        if turn is not None and turn.interrupted_at is not None:
            decided = (turn.interrupted_at - self._stream.wall(line.start)) * 1000
        return BargeIn(
            after_ms=_milliseconds(line.start - answer[0][0]),
            silent_after_ms=max(0.0, _milliseconds(silent - line.start)),
            resumed_after_ms=None if again is None else _milliseconds(again - line.end),
            decided_after_ms=decided,
            generated=turn.text if turn else None,
            kept=turn.heard_text if turn else None,
        )

    def _answer_span(self, place: int | None) -> Span | None:
        """The stretch from the first to the last audible sample of what answers a line.

        An answer that begins before the caller has finished, and goes on, counts: its time is
        negative.
        """
        after = 0 if place is None else place + 1
        until = self.spoken[after].start if after < len(self.spoken) else self._end
        if place is None:
            spans = [span for span in self._spans if span[0] < until]
        else:
            line = self.spoken[place]
            spans = [s for s in self._spans if line.start < s[0] < line.end < s[1]]
            spans += [s for s in self._spans if line.end <= s[0] < until]
        return (spans[0][0], spans[-1][1]) if spans else None

    def _times(self, place: int | None) -> tuple[float, float]:
        """Unix seconds of a line's first sound and of the next line's."""
        starts = [self._stream.wall(line.start) for line in self.spoken]
        after = 0 if place is None else place + 1
        begin = -np.inf if place is None else starts[place]
        return begin, starts[after] if after < len(starts) else np.inf

    def _if_known(self, text: str | Unknown) -> str | Unknown:
        return text if self._known else NO_RECORDS

    def _longest_pause(self, span: Span | None) -> float | None:
        if span is None:
            return None
        inside = [s for s in self._spans if span[0] <= s[0] and s[1] <= span[1]]
        pauses = (later[0] - earlier[1] for earlier, later in itertools.pairwise(inside))
        return _milliseconds(max(pauses, default=0))

    def _latency(self, line: Spoken, answer: Span, turns: Sequence[AgentTurn]) -> Latency:
        whole = _milliseconds(answer[0] - line.end)
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


def _text(turns: Sequence[AgentTurn]) -> str:
    return " ".join(turn.text for turn in turns if turn.text)


def _heard(turns: Sequence[AgentTurn]) -> str | Unknown:
    heard = [turn.heard_text for turn in turns if turn.text]
    known = [text for text in heard if text is not None]
    return " ".join(known) if len(known) == len(heard) else _NOT_HEARD


def _after(ahead: float, *parts: float) -> list[float]:
    """What is left of parts, seconds one after the other, when so many seconds have passed."""
    left = []
    for part in parts:
        left.append(max(0.0, part - ahead) * 1000)
        ahead = max(0.0, ahead - part)
    return left


def _milliseconds(samples: int) -> float:
    return samples * 1000 / SAMPLE_RATE
