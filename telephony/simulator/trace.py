"""What the loopback Twilio saw of one call."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from telephony.simulator.audible import SAMPLE_RATE

LONGEST_GAP_MS = 1000
"""Silence for want of audio, longer than this, is taken for a pause between answers."""


class Cause(StrEnum):
    """How a call ended."""

    CALLER_HUNG_UP = "the caller hung up"
    AGENT_HUNG_UP = "the agent hung up"
    STREAM_FAILED = "the media stream failed"
    REFUSED = "the call was refused"
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


@dataclass
class StreamTrace:
    """One media stream. Positions count samples at 8 kHz since ``started_at``.

    Attributes:
        stream_sid: Its identifier.
        started_at: Unix seconds of sample 0.
        caller: What the caller said, int16 frames of 160.
        agent: What the phone played, int16 frames of 160.
        fed: For each frame, how many of its samples came from the server.
        marks: In the order in which they came.
        clears: Where the server emptied the buffer.
        lateness: Seconds by which each tick came late; the simulator's own doing.
        unplayed: Samples that were still waiting when the stream ended.
        discarded: Samples that did not fit into the buffer.
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

    def wall(self, sample: int) -> float:
        """Unix seconds of a sample of the call."""
        return self.started_at + sample / SAMPLE_RATE

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
                cleared = any(dry_since <= clear <= start for clear in self.clears)
                if start - dry_since <= longest and not cleared:
                    gaps.append((dry_since, start))
                dry_since = None
            if 0 < samples < 160:
                dry_since = start + samples
            elif samples == 0 and dry_since is None and index and self.fed[index - 1] == 160:
                dry_since = start
        return gaps


@dataclass
class CallTrace:
    """One call.

    Attributes:
        call_sid: Its identifier.
        dialled_at: Unix seconds at which the webhook was called.
        webhook_seconds: How long the webhook took, or None if it did not answer.
        connect_seconds: How long the WebSocket took to open, or None.
        stream: The media stream, or None if there was none.
        said: What Twilio's own voice said, because TwiML told it to.
        transfers: Whom the caller was connected with, in order: numbers, SIP addresses,
            conferences.
        errors: What Twilio would have logged.
        cause: How it ended.
        ended_at: Unix seconds at which it had ended.
    """

    call_sid: str
    dialled_at: float
    webhook_seconds: float | None = None
    connect_seconds: float | None = None
    stream: StreamTrace | None = None
    said: list[str] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)
    errors: list[TwilioError] = field(default_factory=list)
    cause: Cause = Cause.UNREACHABLE
    ended_at: float = 0.0
