"""A call that is under way: what is known of it, and how it is steered from outside."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telephony.clock import Clock
from telephony.simulator.network import Network
from telephony.simulator.recordings import Recording
from telephony.simulator.target import new_sid
from telephony.simulator.trace import CallTrace, Cause, TwilioError
from telephony.simulator.verbs import Callback

API_VERSION = "2010-04-01"
OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""CallStatus of a call that has ended."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Fetch:
    """TwiML that a URL answers.

    Attributes:
        url: Its address.
        method: ``GET`` or ``POST``.
        parameters: What is sent beside the call's own parameters.
        fallback: Asked instead when it fails, or None.
    """

    url: str
    method: str = "POST"
    parameters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    fallback: Callback | None = None


@dataclass(frozen=True)
class Document:
    """TwiML, and the URL that its relative addresses start from."""

    text: str
    url: str = ""


@dataclass(frozen=True)
class End:
    """The call is to end, and why."""

    cause: Cause


Program = Fetch | Document
Tell = Callable[["LiveCall", Callback, Mapping[str, str]], Coroutine[Any, Any, None]]


class Steered(Exception):
    """An instruction from outside interrupts what the call was doing."""


@dataclass
class LiveCall:
    """One call.

    Attributes:
        trace: What happens in it.
        account_sid: Whose it is.
        direction: Twilio's: ``inbound``, ``outbound-api`` or ``outbound-dial``.
        from_: The number that calls.
        to: The number that is called.
        clock: Tells the time and waits.
        tell: Sends a callback.
        network: What the network does to its media.
        parent_sid: The call whose ``<Dial>`` made this one, or None.
        status_callback: Told of the events that it names.
        over: Set when it has ended and its callbacks have been sent.
        steering: Set while an instruction waits to be followed.
    """

    trace: CallTrace
    account_sid: str
    direction: str
    from_: str
    to: str
    clock: Clock
    tell: Tell
    network: Network = field(default_factory=Network)
    parent_sid: str | None = None
    status_callback: Callback | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    steering: asyncio.Event = field(default_factory=asyncio.Event)
    _instruction: Program | End | None = None
    _sequence: int = 0
    _callbacks: asyncio.TaskGroup | None = None
    _background: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def sid(self) -> str:
        """Its identifier."""
        return self.trace.call_sid

    @property
    def status(self) -> str:
        """Twilio's CallStatus."""
        return self.trace.status

    @property
    def duration(self) -> int:
        """Whole seconds since it was answered."""
        if self.trace.answered_at is None:
            return 0
        return round((self.trace.ended_at or self.clock.time()) - self.trace.answered_at)

    def parameters(self) -> dict[str, str]:
        """What every webhook and callback about it holds."""
        parameters = {
            "AccountSid": self.account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": self.sid,
            "CallStatus": self.status,
            "Called": self.to,
            "Caller": self.from_,
            "Direction": self.direction,
            "From": self.from_,
            "To": self.to,
        }
        if self.parent_sid is not None:
            parameters["ParentCallSid"] = self.parent_sid
        return parameters

    # ---- what happens

    def progress(self, event: str, status: str, **more: str) -> None:
        """Go on to a status and tell whoever asked for the event."""
        self.trace.status = status
        if status == "in-progress":
            self.trace.answered_at = self.clock.time()
        callback = self.status_callback
        if callback is None or event not in (callback.events or ("completed",)):
            return
        told = {
            **self.parameters(),
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._sequence),
            "Timestamp": formatdate(self.clock.time(), usegmt=True),
            **more,
        }
        if event == "initiated":
            told["CallStatus"] = event
        if status in OVER:
            told |= {"CallDuration": str(self.duration), "Duration": str(-(-self.duration // 60))}
        if self.trace.answered_by is not None:
            told.setdefault("AnsweredBy", self.trace.answered_by)
        self._sequence += 1
        self.notify(callback, told)

    def notify(self, callback: Callback | None, parameters: Mapping[str, str]) -> None:
        """Send a callback; the call neither waits for it nor depends on it, but outlives it."""
        if callback is not None and self._callbacks is not None:
            self._callbacks.create_task(self.tell(self, callback, parameters))

    def speak_through(self, parent: "LiveCall") -> None:
        """Send callbacks as long as the call that dialled this one can."""
        self._callbacks = parent._callbacks

    def error(self, code: int, detail: str) -> None:
        """Log what Twilio logs."""
        self.trace.errors.append(TwilioError(code, self.clock.time(), detail))

    # ---- recordings

    def record(self, source: str, **settings: Any) -> Recording:
        """Begin a recording.

        Args:
            source: Who asks for it, as Twilio names that.
            settings: Fields of ``Recording``.
        """
        recording = Recording(new_sid("RE"), self.sid, source, self.clock.time(), **settings)
        self.trace.recordings.append(recording)
        self.tell_of(recording)
        return recording

    def tell_of(self, recording: Recording) -> None:
        """Send a recording's status to whoever asked for it."""
        callback = recording.callback
        if callback is None or recording.status not in (callback.events or ("completed",)):
            return
        told = {
            "AccountSid": self.account_sid,
            "CallSid": self.sid,
            "RecordingSid": recording.sid,
            "RecordingStatus": recording.status,
            "RecordingChannels": str(recording.channels),
            "RecordingSource": recording.source,
            "RecordingTrack": recording.track,
            "RecordingStartTime": formatdate(recording.started_at, usegmt=True),
        }
        if recording.status == "completed":
            told["RecordingDuration"] = str(round(recording.seconds))
            told["RecordingUrl"] = self.recording_url(recording)
        self.notify(callback, told)

    def recording_url(self, recording: Recording) -> str:
        """Where Twilio keeps it."""
        host = "https://api.twilio.com"
        return f"{host}/{API_VERSION}/Accounts/{self.account_sid}/Recordings/{recording.sid}"

    def finish_recording(self, recording: Recording) -> None:
        """End a recording, if it has not ended."""
        if recording.running:
            recording.finish()
            self.tell_of(recording)

    def tap(self, said: NDArray[np.int16], heard: NDArray[np.int16]) -> None:
        """Hand both sides of a stretch of the call to its recordings."""
        for recording in self.trace.recordings:
            recording.hear(said, heard)

    # ---- steering

    def steer(self, instruction: Program | End) -> None:
        """Interrupt what the call does and have it do something else."""
        self._instruction = instruction
        self.steering.set()

    def obey(self) -> Program | None:
        """Take the instruction that waits; None ends the call."""
        instruction, self._instruction = self._instruction, None
        self.steering.clear()
        if isinstance(instruction, End):
            self.trace.cause = instruction.cause
            return None
        return instruction

    async def pass_time(
        self,
        seconds: float,
        heard: NDArray[np.int16] | None = None,
        until: asyncio.Event | None = None,
    ) -> None:
        """Let time pass on the line.

        Args:
            seconds: How much.
            heard: int16 [n] at 8 kHz: what the phone plays meanwhile; None or the end of it is
                silence.
            until: Something else that ends it early.

        Raises:
            Steered: An instruction came.
        """
        begun = self.clock.time()
        waits = {
            self.clock.sleep(seconds),
            self.steering.wait(),
            *([until.wait()] if until else []),
        }
        tasks = {asyncio.ensure_future(wait) for wait in waits}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        samples = round((self.clock.time() - begun) * 8000)
        silence = np.zeros(samples, np.int16)
        played = silence if heard is None else np.concatenate([heard[:samples], silence])[:samples]
        self.tap(silence, played)
        if self.steering.is_set():
            raise Steered

    def limit(self, seconds: float) -> None:
        """End the call so long after it was answered; a new limit replaces the last."""

        async def end() -> None:
            answered = self.trace.answered_at or self.clock.time()
            await self.clock.sleep(max(0.0, answered + seconds - self.clock.time()))
            self.steer(End(Cause.TIME_LIMIT))

        self.meanwhile("limit", end())

    def meanwhile(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the call; it is dropped when the call ends."""
        earlier = self._background.pop(name, None)
        if earlier is not None:
            earlier.cancel()
        self._background[name] = asyncio.create_task(work)

    async def lead(self, story: Coroutine[Any, Any, None]) -> None:
        """Run the call to its end, and tell who asked how it went.

        Args:
            story: What happens in it; leaves the status alone, or at the one it ended with.
        """
        try:
            async with asyncio.TaskGroup() as callbacks:
                self._callbacks = callbacks
                try:
                    await story
                except asyncio.CancelledError:
                    self.trace.cause = Cause.BROKEN_OFF
                    raise
                finally:
                    await self._finish()
        finally:
            self.over.set()

    async def _finish(self) -> None:
        trace = self.trace
        for task in self._background.values():
            task.cancel()
        await asyncio.gather(*self._background.values(), return_exceptions=True)
        trace.ended_at = self.clock.time()
        if trace.cause is Cause.REDIRECTED:
            # It went elsewhere, and what was there came to its end.
            trace.cause = Cause.AGENT_HUNG_UP
        for recording in trace.recordings:
            self.finish_recording(recording)
        ended = {"in-progress": "completed", "ringing": "failed", "queued": "failed"}
        self.progress("completed", ended.get(self.status, self.status))
