"""Calls that the agent asks for: ringing, answering machine detection, and what follows."""

from dataclasses import dataclass

from telephony.simulator.callee import Callee
from telephony.simulator.execution import Execution
from telephony.simulator.live_call import Fetch, LiveCall, Program, Steered
from telephony.simulator.trace import Cause
from telephony.simulator.verbs import Callback


@dataclass(frozen=True)
class Detection:
    """Answering machine detection.

    Attributes:
        mode: ``Enable`` or ``DetectMessageEnd``.
        timeout: Seconds after which the answer is ``unknown``.
        asynchronous: The call goes on meanwhile.
        callback: Told the outcome of an asynchronous one, or None.
    """

    mode: str
    timeout: float = 30.0
    asynchronous: bool = False
    callback: Callback | None = None


@dataclass(frozen=True)
class RecordingRequest:
    """How to record.

    Attributes:
        channels: 1 or 2.
        track: ``both``, ``inbound`` or ``outbound``.
        callback: Told about the recording, or None.
    """

    channels: int = 1
    track: str = "both"
    callback: Callback | None = None


@dataclass(frozen=True)
class CallRequest:
    """What the REST API was asked to do.

    Attributes:
        to: Whom to call.
        from_: The number that is shown.
        program: What the call does when it is answered.
        status_callback: Told of the events that it names, or None.
        timeout: Seconds for which it rings.
        time_limit: Longest duration in seconds.
        send_digits: Keys that are pressed when it is answered, or None.
        detection: Whether a machine answers is found out, or None.
        recording: How the call is recorded from when it is answered, or None.
    """

    to: str
    from_: str
    program: Program
    status_callback: Callback | None = None
    timeout: float = 60.0
    time_limit: float = 14400.0
    send_digits: str | None = None
    detection: Detection | None = None
    recording: RecordingRequest | None = None


class OutboundCall:
    """One call from the request to its end."""

    def __init__(
        self, call: LiveCall, request: CallRequest, callee: Callee, execution: Execution
    ) -> None:
        """Prepare a call.

        Args:
            call: The call.
            request: What was asked for.
            callee: What happens when the number is called.
            execution: Executes what the agent answers.
        """
        self._call = call
        self._request = request
        self._callee = callee
        self._execution = execution

    async def run(self) -> None:
        """Ring, and if somebody answers, do what the agent wants."""
        call, request = self._call, self._request
        call.trace.cause = Cause.NOT_ANSWERED
        try:
            status = await self._ring()
        except Steered:
            call.obey()
            call.trace.status = "canceled"
            return
        if status != "in-progress":
            call.trace.status = status
            return
        call.trace.cause = Cause.UNREACHABLE
        call.progress("answered", "in-progress")
        call.limit(request.time_limit)
        if request.recording is not None:
            call.record("OutboundAPI", **vars(request.recording))
        program: Program | None = request.program
        try:
            if request.send_digits:
                await self._execution.send_digits(request.send_digits)
            if request.detection is not None:
                program = await self._detect(request.detection, request.program)
        except Steered:
            program = call.obey()
        await self._execution.run(program)

    async def _ring(self) -> str:
        """The CallStatus with which the ringing ends."""
        call, callee = self._call, self._callee
        call.progress("initiated", "queued")
        if callee.outcome == "failed":
            await call.pass_time(callee.ring_ms / 1000)
            return "failed"
        call.progress("ringing", "ringing")
        in_time = callee.ring_ms / 1000 <= self._request.timeout
        if callee.outcome == "no-answer" or not in_time:
            await call.pass_time(self._request.timeout)
            return "no-answer"
        await call.pass_time(callee.ring_ms / 1000)
        return "busy" if callee.outcome == "busy" else "in-progress"

    async def _detect(self, detection: Detection, program: Program) -> Program:
        """Find out who answers: before the call goes on, or beside it."""
        call = self._call
        if detection.asynchronous:
            call.meanwhile("detection", self._detect_meanwhile(detection))
            return program
        seconds = self._seconds(detection)
        await call.pass_time(seconds)
        about = self._found(detection, seconds)
        if isinstance(program, Fetch):
            return Fetch(program.url, program.method, about, program.fallback)
        return program

    async def _detect_meanwhile(self, detection: Detection) -> None:
        call = self._call
        seconds = self._seconds(detection)
        await call.clock.sleep(seconds)
        about = self._found(detection, seconds)
        if detection.callback is None:
            call.error(21262, "machine detection was asked for, but not where to send the outcome")
        ids = {"AccountSid": call.account_sid, "CallSid": call.sid}
        call.notify(detection.callback, {**ids, **about})

    def _seconds(self, detection: Detection) -> float:
        return min(self._callee.detection_ms / 1000, detection.timeout)

    def _found(self, detection: Detection, seconds: float) -> dict[str, str]:
        in_time = self._callee.detection_ms / 1000 <= detection.timeout
        answer = self._callee.detected(detection.mode) if in_time else "unknown"
        self._call.trace.answered_by = answer
        return {"AnsweredBy": answer, "MachineDetectionDuration": str(round(seconds * 1000))}
