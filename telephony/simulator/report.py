"""What a rehearsal found: the content of call.json."""

from typing import Any

from pydantic import BaseModel, computed_field


class Part(BaseModel):
    """A piece of a report. Verdicts are derived: what a file says of them is not read back."""


class Check(Part):
    """One expectation and what became of it.

    Attributes:
        name: The scenario's field.
        expected: What it asks for, in words.
        found: What there was, in words.
        passed: Whether it holds; None where nothing allows to tell, which does not count as held.
    """

    name: str
    expected: str
    found: str
    passed: bool | None


class Latency(Part):
    """Voice-to-voice time and its parts, in milliseconds; the parts add up to the whole.

    Attributes:
        voice_to_voice: From the end of the caller's last audible sample to the first audible sample
            of the answer as the phone plays it, both counted on the phone's own time axis.
        decision: Until the gateway held the caller's turn for over.
        tokenise: Then until the last of the caller's audio was tokenised, as the engine measured;
            0 where that was done before the decision.
        first_token: Then until the language model's first token, likewise.
        first_audio: Then until the gateway had the first piece of the answer's audio: speech
            tokens, their waveform, and the way from the engine.
        transport: Then until the phone played something audible: resampling, pacing, network, the
            phone's buffer, and silence at the beginning of the answer.
        saved: By so much longer it would have been had the answer not been begun before the
            decision.
    """

    voice_to_voice: float
    decision: float | None = None
    tokenise: float | None = None
    first_token: float | None = None
    first_audio: float | None = None
    transport: float | None = None
    saved: float | None = None


class BargeIn(Part):
    """The caller spoke over the agent.

    Attributes:
        after_ms: How long the agent's answer had been audible.
        silent_after_ms: From the caller's first audible sample to the agent's last one.
        resumed_after_ms: From the caller's last audible sample until the agent was heard again,
            negative if that was before; None if it was not.
        decided_after_ms: From the caller's first audible sample to the gateway's decision that
            this is an interruption.
        generated: What the agent was about to say.
        kept: What its history holds of that.
    """

    after_ms: float
    silent_after_ms: float
    resumed_after_ms: float | None = None
    decided_after_ms: float | None = None
    generated: str | None = None
    kept: str | None = None


class TurnReport(Part):
    """One turn: what the caller said and what came back. Times are seconds of the call.

    Attributes:
        index: Index in the scenario; None for the greeting.
        caller: The caller's words, or None for the greeting.
        speech: First and last audible moment of the caller's line; None if it was never spoken.
        answer: First and last audible moment of the agent's answer; None if there was none.
        agent: What the agent said, from its text channel; None without the agent's records.
        heard: What the agent's history holds of it, where its records say so.
        recognised: What an independent recogniser made out of the agent's audio, where the scenario
            asks for that.
        understood: The caller's words as the agent's model wrote them down, where it did.
        latency: None where nothing was answered, and for the greeting.
        barge_in: Where the line was spoken over the agent.
        checks: Every expectation with its verdict.
    """

    index: int | None
    caller: str | None
    speech: tuple[float, float] | None
    answer: tuple[float, float] | None
    agent: str | None = None
    heard: str | None = None
    recognised: str | None = None
    understood: str | None = None
    latency: Latency | None = None
    barge_in: BargeIn | None = None
    checks: list[Check] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Every check holds."""
        return all(check.passed for check in self.checks)


class MarkReport(Part):
    """A mark; times are seconds of the call."""

    name: str
    sent: float
    returned: float | None
    cleared: bool


class ErrorReport(Part):
    """An entry that Twilio would have logged; ``at`` is in Unix seconds."""

    code: int
    at: float
    detail: str


class Lateness(Part):
    """How late the simulator's own 20 ms ticks were, in milliseconds."""

    median: float
    p99: float
    worst: float


class CallReport(Part):
    """One rehearsed call.

    Attributes:
        scenario: Its name.
        call_sid: Twilio's identifier.
        dialled_at: Unix seconds.
        stream_started_at: Unix seconds of the call's second 0; None if no stream was opened.
        webhook_ms: How long the voice webhook took.
        connect_ms: How long the WebSocket took to open.
        duration: Seconds of media.
        cause: How the call ended.
        said: What Twilio's own voice said, because TwiML told it to.
        turns: The greeting, where the scenario expects one, and every turn.
        checks: What concerns the call as a whole.
        marks: Every mark.
        clears: Seconds of the call at which the server emptied the phone's buffer.
        gaps: Silences for want of audio in the middle of an answer: begin and end.
        unplayed: Seconds of audio that were sent and lost because the stream ended.
        errors: What Twilio would have logged.
        lateness: The simulator's own.
        agent_events: The agent's record of the call, as it was read.
    """

    scenario: str
    call_sid: str
    dialled_at: float
    stream_started_at: float | None
    webhook_ms: float | None
    connect_ms: float | None
    duration: float
    cause: str
    said: list[str]
    turns: list[TurnReport]
    checks: list[Check]
    marks: list[MarkReport]
    clears: list[float]
    gaps: list[tuple[float, float]]
    unplayed: float
    errors: list[ErrorReport]
    lateness: Lateness | None
    agent_events: list[dict[str, Any]]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Every check of the call and of every turn holds."""
        return all(check.passed for check in self.checks) and all(
            turn.passed for turn in self.turns
        )
