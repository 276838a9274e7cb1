"""Executes ``<Dial>``: calls the far end as the phone book has it, and connects the two sides."""

from collections.abc import Callable

from telephony.simulator.agent_http import absolute
from telephony.simulator.callee import Callee
from telephony.simulator.live_call import LiveCall, Steered
from telephony.simulator.target import new_sid
from telephony.simulator.trace import CallTrace, Cause, DialTrace, Digits
from telephony.simulator.verbs import Callback, Conference, Dial, Number


class Dialling:
    """Connects calls with others."""

    def __init__(
        self, callee: Callable[[str], Callee], register: Callable[[LiveCall], None]
    ) -> None:
        """Prepare to dial.

        Args:
            callee: Who answers a number or a conference.
            register: Is handed every call that is made.
        """
        self._callee = callee
        self._register = register

    async def dial(self, call: LiveCall, verb: Dial, base_url: str) -> dict[str, str]:
        """Connect a call with the far end, until one of them has had enough.

        Args:
            call: The call.
            verb: Whom to call.
            base_url: From which the verb's relative addresses start.

        Returns:
            What the verb's action is told.

        Raises:
            Steered: The call was told to do something else.
        """
        conference = verb.conference
        trace = DialTrace(
            to=(conference.name,) if conference else tuple(n.number for n in verb.numbers),
            conference=conference is not None,
            caller_id=verb.caller_id or call.from_,
            at=call.clock.time(),
        )
        call.trace.dials.append(trace)
        if conference is not None:
            return await self._join(call, conference, trace, base_url)
        return await self._call_numbers(call, verb, trace, base_url)

    async def _call_numbers(
        self, call: LiveCall, verb: Dial, trace: DialTrace, base_url: str
    ) -> dict[str, str]:
        legs = [self._leg(call, trace, number, base_url) for number in verb.numbers]
        for leg in legs:
            leg.progress("initiated", "queued")
            leg.progress("ringing", "ringing")
        ring = {leg.sid: self._callee(leg.to).ring_ms / 1000 for leg in legs}
        answering = [
            leg
            for leg in legs
            if self._callee(leg.to).outcome == "answered" and ring[leg.sid] <= verb.timeout
        ]
        try:
            if not answering:
                return await self._in_vain(call, verb, trace, legs)
            leg = min(answering, key=lambda leg: ring[leg.sid])
            await call.pass_time(ring[leg.sid])
            for other in legs:
                if other is not leg:
                    self._end(other, "canceled")
            leg.progress("answered", "in-progress")
            trace.answered_by, trace.answered_at = leg.to, call.clock.time()
            await self._talk(call, verb, trace, leg, base_url)
        except Steered:
            for leg in legs:
                if not leg.over.is_set():
                    self._end(leg, "completed" if leg.status == "in-progress" else "canceled")
            raise
        self._end(leg, "completed")
        trace.outcome = "completed"
        return {
            "DialCallStatus": "completed",
            "DialCallSid": leg.sid,
            "DialCallDuration": str(leg.duration),
            "DialBridged": "true",
        }

    async def _in_vain(
        self, call: LiveCall, verb: Dial, trace: DialTrace, legs: list[LiveCall]
    ) -> dict[str, str]:
        """Nobody answers: wait for the last to turn the call down, or for the timeout."""
        waited = 0.0
        for leg in legs:
            callee = self._callee(leg.to)
            refused = callee.outcome in ("busy", "failed") and callee.ring_ms / 1000 <= verb.timeout
            waited = max(waited, callee.ring_ms / 1000 if refused else verb.timeout)
            trace.outcome = callee.outcome if refused else "no-answer"
        await call.pass_time(waited)
        for leg in legs:
            self._end(leg, trace.outcome or "no-answer")
        return {
            "DialCallStatus": trace.outcome or "no-answer",
            "DialCallSid": legs[-1].sid,
            "DialBridged": "false",
        }

    async def _talk(
        self, call: LiveCall, verb: Dial, trace: DialTrace, leg: LiveCall, base_url: str
    ) -> None:
        """The two sides talk; nothing of it is heard here."""
        call.trace.cause = Cause.TRANSFERRED
        number = next(n for n in verb.numbers if n.number == leg.to)
        if number.send_digits:
            call.trace.digits.append(Digits(number.send_digits, call.clock.time()))
        recording = None
        if verb.record != "do-not-record":
            recording = call.record(
                "DialVerb",
                channels=2 if verb.record.endswith("dual") else 1,
                callback=absolute(base_url, verb.recording_callback),
            )
        begun = call.clock.time()
        try:
            longest = min(self._callee(leg.to).stays_ms / 1000, verb.time_limit)
            await call.pass_time(longest, until=leg.steering)
        finally:
            trace.seconds = call.clock.time() - begun
            if recording is not None:
                call.finish_recording(recording)

    async def _join(
        self, call: LiveCall, noun: Conference, trace: DialTrace, base_url: str
    ) -> dict[str, str]:
        """Wait in a conference for somebody to come, and talk."""
        callback = absolute(base_url, noun.status_callback)
        sid = new_sid("CF")
        told = 0

        def tell(event: str) -> None:
            nonlocal told
            told += 1
            if callback is None or event not in (
                f"conference-{name}" if name in ("start", "end") else f"participant-{name}"
                for name in callback.events or ("start", "end")
            ):
                return
            about = {
                "AccountSid": call.account_sid,
                "CallSid": call.sid,
                "ConferenceSid": sid,
                "FriendlyName": noun.name,
                "SequenceNumber": str(told),
                "StatusCallbackEvent": event,
                "Muted": str(noun.muted).lower(),
                "StartConferenceOnEnter": str(noun.start_on_enter).lower(),
                "EndConferenceOnExit": str(noun.end_on_exit).lower(),
            }
            call.notify(Callback(callback.url, callback.method), about)

        callee = self._callee(noun.name)
        tell("participant-join")
        try:
            await call.pass_time(callee.ring_ms / 1000)
            if callee.outcome == "answered":
                trace.answered_by, trace.answered_at = noun.name, call.clock.time()
                call.trace.cause = Cause.TRANSFERRED
                tell("conference-start")
            begun = call.clock.time()
            try:
                await call.pass_time(callee.stays_ms / 1000)
            finally:
                if trace.answered_at is not None:
                    trace.seconds = call.clock.time() - begun
        finally:
            tell("participant-leave")
            tell("conference-end")
        trace.outcome = "answered"
        return {"DialCallStatus": "answered", "ConferenceSid": sid}

    def _leg(self, call: LiveCall, trace: DialTrace, number: Number, base_url: str) -> LiveCall:
        leg = LiveCall(
            # What goes wrong with it is logged where somebody looks.
            CallTrace(new_sid("CA"), call.clock.time(), errors=call.trace.errors),
            call.account_sid,
            "outbound-dial",
            trace.caller_id,
            number.number,
            call.clock,
            call.tell,
            parent_sid=call.sid,
            status_callback=absolute(base_url, number.status_callback),
        )
        leg.speak_through(call)
        self._register(leg)
        return leg

    def _end(self, leg: LiveCall, status: str) -> None:
        leg.trace.ended_at = leg.clock.time()
        leg.progress("completed", status)
        leg.over.set()
