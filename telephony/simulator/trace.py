"""What the loopback Twilio saw of one call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.recordings import Recording

LONGEST_GAP_MS = 1000
"""Silence for want of audio, longer than this, is taken for a pause between answers."""


class Cause(StrEnum):
    """How a call ended."""

    CALLER_HUNG_UP = "the caller hung up"
    AGENT_HUNG_UP = "the agent hung up"
    STREAM_FAILED = "the media stream failed"
    REFUSED = "the call was refused"
    TRANSFERRED = "the call was transferred"
    REDIRECTED = "the call was redirected"
    TIME_LIMIT = "the time limit was reached"
    NOT_ANSWERED = "nobody answered"
    BROKEN_OFF = "the rehearsal was broken off"
    UNREACHABLE = "the webhook did not answer"


@dataclass(frozen=True)
class TwilioError:
    """An entry of Twilio's error log.

    Attributes:
        code: Twilio's number for it.
        at: Unix seconds.
        detail: What happened.
    """

    code: int
    at: float
    detail: str


@dataclass
class Mark:
    """A mark on its way.

    Attributes:
        name: As the server named it.
        sent: Sample of the call at which it came from the server.
        returned: Sample of the call at which it went back, or None.
        cleared: It went back because of a clear, not because its audio was played.
    """

    name: str
    sent: int
    returned: int | None = None
    cleared: bool = False


@dataclass(frozen=True)
class Key:
    """A key that the caller pressed, and the sample of the call at which."""

    digit: str
    sample: int


@dataclass
class StreamTrace:
    """The media of a call. Positions count samples at 8 kHz since ``started_at``.

    A call that is redirected may have several streams, and ``<Record>`` listens without one: their
    samples follow one another as if no time had passed between them; ``wall`` knows better.

    Attributes:
        stream_sid: The first stream's identifier.
        started_at: Unix seconds of sample 0.
        caller: What the caller said, int16 frames of 160.
        agent: What the phone played, int16 frames of 160.
        fed: For each frame, how many of its samples came from the server.
        marks: In the order in which they came.
        clears: Where the server emptied the buffer.
        lateness: Seconds by which each tick came late; the simulator's own doing.
        unplayed: Samples that were still waiting when the stream ended.
        discarded: Samples that did not fit into the buffer.
        keys: What the caller pressed.
        segments: First sample and Unix seconds of each stretch that followed on the last without
            a pause; made by ``begin``.
    """

    stream_sid: str
    started_at: float
    caller: list[NDArray[np.int16]] = field(default_factory=list)
    agent: list[NDArray[np.int16]] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    clears: list[int] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    unplayed: int = 0
    discarded: int = 0
    keys: list[Key] = field(default_factory=list)
    segments: list[tuple[int, float]] = field(default_factory=list)

    def begin(self, at: float) -> None:
        """Say that the next sample is that of a time, in Unix seconds."""
        if not self.agent:
            self.started_at = at
        self.segments.append((self.position, at))

    def add(self, said: NDArray[np.int16], heard: NDArray[np.int16], fed: int) -> None:
        """Go on by one frame of 160 samples: said, heard, and how many of those were sent."""
        self.caller.append(said)
        self.agent.append(heard)
        self.fed.append(fed)

    @property
    def position(self) -> int:
        """Samples so far."""
        return len(self.agent) * 160

    def wall(self, sample: int) -> float:
        """Unix seconds of a sample of the call."""
        begun = [segment for segment in self.segments if segment[0] <= sample]
        first, at = begun[-1] if begun else (0, self.started_at)
        return at + (sample - first) / SAMPLE_RATE

    @property
    def caller_audio(self) -> NDArray[np.int16]:
        """int16 [n]: the caller's side of the call."""
        return np.concatenate(self.caller) if self.caller else np.zeros(0, np.int16)

    @property
    def agent_audio(self) -> NDArray[np.int16]:
        """int16 [n]: the agent's side as it was heard on the phone."""
        return np.concatenate(self.agent) if self.agent else np.zeros(0, np.int16)

    def gaps(self) -> list[tuple[int, int]]:
        """Where the phone ran dry in the middle of something.

        Returns:
            Pairs (first sample, sample after the last) of silence that was played because nothing
            had come, no longer than ``LONGEST_GAP_MS`` and with no clear in it.
        """
        gaps: list[tuple[int, int]] = []
        dry_since: int | None = None
        for index, samples in enumerate(self.fed):
            start = index * 160
            if samples and dry_since is not None:
                longest = LONGEST_GAP_MS * SAMPLE_RATE // 1000
                breaks = [*self.clears, *(first for first, _ in self.segments[1:])]
                cleared = any(dry_since <= place <= start for place in breaks)
                if start - dry_since <= longest and not cleared:
                    gaps.append((dry_since, start))
                dry_since = None
            if 0 < samples < 160:
                dry_since = start + samples
            elif samples == 0 and dry_since is None and index and self.fed[index - 1] == 160:
                dry_since = start
        return gaps


@dataclass(frozen=True)
class Request:
    """A webhook or a callback.

    Attributes:
        url: Where it went, as the server was given it.
        parameters: Its form.
        at: Unix seconds.
        status: The HTTP status of the answer; None if there was none.
    """

    url: str
    parameters: Mapping[str, str]
    at: float
    status: int | None


@dataclass
class DialTrace:
    """A ``<Dial>``.

    Attributes:
        to: The numbers, or the conference's name.
        conference: It was a conference.
        caller_id: The number that was shown.
        at: Unix seconds.
        outcome: Twilio's DialCallStatus: ``completed``, ``answered`` (a conference), ``busy``,
            ``no-answer``, ``failed``; None if the call went elsewhere before that was known.
        answered_by: Which of the numbers answered, or None.
        answered_at: Unix seconds, or None.
        seconds: How long the two sides talked.
    """

    to: tuple[str, ...]
    conference: bool
    caller_id: str
    at: float
    outcome: str | None = None
    answered_by: str | None = None
    answered_at: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Digits:
    """Touch tones that the agent's side sent, and when in Unix seconds."""

    digits: str
    at: float


@dataclass
class CallTrace:
    """One call.

    Attributes:
        call_sid: Its identifier.
        dialled_at: Unix seconds at which the webhook was called.
        webhook_seconds: How long the first webhook took, or None if it did not answer.
        connect_seconds: How long the (last) WebSocket took to open, or None.
        stream: The media, or None if there was none.
        said: What Twilio's own voice said, because TwiML told it to.
        errors: What Twilio would have logged.
        cause: How it ended.
        ended_at: Unix seconds at which it had ended.
        status: Twilio's CallStatus.
        answered_at: Unix seconds at which it was answered, or None.
        answered_by: What answering machine detection found (AnsweredBy), or None.
        played: URLs that ``<Play>`` played.
        digits: Touch tones sent by ``<Play digits>``, ``<Number sendDigits>`` and ``SendDigits``.
        dials: Every ``<Dial>``.
        recordings: Every recording of it, whoever asked for it.
        requests: Every webhook and callback, in the order of the answers.
    """

    call_sid: str
    dialled_at: float
    webhook_seconds: float | None = None
    connect_seconds: float | None = None
    stream: StreamTrace | None = None
    said: list[str] = field(default_factory=list)
    errors: list[TwilioError] = field(default_factory=list)
    cause: Cause = Cause.UNREACHABLE
    ended_at: float = 0.0
    status: str = "queued"
    answered_at: float | None = None
    answered_by: str | None = None
    played: list[str] = field(default_factory=list)
    digits: list[Digits] = field(default_factory=list)
    dials: list[DialTrace] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
