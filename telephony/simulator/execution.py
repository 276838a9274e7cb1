"""Executes TwiML: one call, verb by verb, until nothing is left to do or it is told otherwise."""

from collections.abc import Mapping
from urllib.parse import urljoin

import aiohttp
import numpy as np
from numpy.typing import NDArray

from telephony.media_streams import FRAME_SECONDS, Start
from telephony.simulator.agent_http import AgentHttp, absolute
from telephony.simulator.audible import SAMPLE_RATE, Ear
from telephony.simulator.callee import Person
from telephony.simulator.caller import FRAME
from telephony.simulator.dialling import Dialling
from telephony.simulator.live_call import Document, Fetch, LiveCall, Program, Steered
from telephony.simulator.stream import NotConnected, Streams
from telephony.simulator.target import Target, new_sid
from telephony.simulator.trace import Cause, Digits, Key, StreamTrace
from telephony.simulator.twiml import TwiMLError, parse_twiml
from telephony.simulator.verbs import (
    Callback,
    Dial,
    Hangup,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    Stream,
    Verb,
)

MOST_DOCUMENTS = 100
"""A call that is sent on more often is taken for one that runs in a circle (error 11215)."""
SECONDS_PER_CHARACTER = 0.06
"""How fast Twilio's own voice is taken to speak; it is not heard here."""
DIGIT_SECONDS = 0.2
"""How long a touch tone and the pause after it take."""
_BEEP = (8000 * np.sin(np.arange(FRAME * 20) * 2 * np.pi * 1000 / SAMPLE_RATE)).astype(np.int16)


class Execution:
    """Runs one answered or ringing call."""

    def __init__(
        self,
        call: LiveCall,
        person: Person,
        target: Target,
        http: AgentHttp,
        session: aiohttp.ClientSession,
        dialling: Dialling,
        streams: Streams,
    ) -> None:
        """Prepare a call.

        Args:
            call: The call.
            person: Who is on the phone.
            target: Where the agent's addresses are reached, and what signs.
            http: Asks the agent.
            session: Opens WebSockets.
            dialling: Connects the call with others.
            streams: Opens its media stream.
        """
        self._call = call
        self._person = person
        self._target = target
        self._http = http
        self._session = session
        self._dialling = dialling
        self._streams = streams

    async def run(self, program: Program | None) -> None:
        """Execute documents until one of them ends the call."""
        call = self._call
        documents = 0
        while program is not None:
            documents += 1
            if documents > MOST_DOCUMENTS:
                call.error(11215, "the call is sent from one document to the next without end")
                return
            try:
                program = await self._execute(program)
                if call.steering.is_set() and call.trace.cause is not Cause.CALLER_HUNG_UP:
                    program = call.obey()
            except Steered:
                program = call.obey()
            except TwiMLError as error:
                call.error(error.code, str(error))
                return

    async def _execute(self, program: Program) -> Program | None:
        """Execute one document; what comes next, or None: Twilio hangs up."""
        call = self._call
        if isinstance(program, Fetch):
            document = await self._http.document(call, program)
            if document is None:
                return None
        else:
            document = program
        verbs = parse_twiml(document.text)
        if call.trace.cause is Cause.UNREACHABLE:
            call.trace.cause = Cause.REFUSED
        for place, verb in enumerate(verbs):
            if call.steering.is_set():
                raise Steered
            if isinstance(verb, Reject) and place == 0 and call.status == "ringing":
                call.trace.status = "busy" if verb.reason == "busy" else "no-answer"
                return None
            if call.status == "ringing":
                call.progress("answered", "in-progress")
            if isinstance(verb, Hangup | Reject):
                return None
            following = await self._verb(verb, document)
            if following is not None:
                return following
            if call.trace.cause is Cause.CALLER_HUNG_UP:
                return None
        return None

    async def _verb(self, verb: Verb, document: Document) -> Program | None:
        """Execute a verb; the document that it leads to, or None to go on with the next verb."""
        call = self._call
        match verb:
            case Say(text=text, loop=loop):
                call.trace.said.append(text)
                await self._repeat(loop, len(text) * SECONDS_PER_CHARACTER)
            case Pause(seconds=seconds):
                await call.pass_time(seconds)
            case Play(url=str(url), loop=loop):
                address = urljoin(document.url, url)
                call.trace.played.append(address)
                audio = await self._http.sound(call, address)
                await self._repeat(loop, len(audio) / SAMPLE_RATE, audio)
            case Play(digits=str(digits), loop=loop):
                await self.send_digits(digits, loop)
            case Redirect(url=url, method=method):
                return Fetch(urljoin(document.url, url), method)
            case Dial():
                told = await self._dialling.dial(call, verb, document.url)
                return _next(document, verb.action, told)
            case Record():
                return await self._record(verb, document)
            case Stream():
                call.trace.cause = await self._connect(verb, document)
                if call.trace.cause is Cause.CALLER_HUNG_UP:
                    return None
                if call.steering.is_set():
                    raise Steered
                return _next(document, verb.action, {})
        return None

    async def send_digits(self, digits: str, loop: int = 1) -> None:
        """Press keys in the person's ear; ``w`` waits half a second."""
        self._call.trace.digits.append(Digits(digits, self._call.clock.time()))
        waits = digits.lower().count("w")
        await self._repeat(loop, waits * 0.5 + (len(digits) - waits) * DIGIT_SECONDS)

    async def _repeat(
        self, loop: int, seconds: float, heard: NDArray[np.int16] | None = None
    ) -> None:
        """Let the same thing last so often; 0: as long as the call."""
        if not seconds:
            return
        repeated = 0
        while not loop or repeated < loop:
            await self._call.pass_time(seconds, heard)
            repeated += 1

    async def _connect(self, noun: Stream, document: Document) -> Cause:
        call, trace = self._call, self._call.trace
        stream_sid = new_sid("MZ")
        callback = absolute(document.url, noun.status_callback)
        about = {
            "AccountSid": call.account_sid,
            "CallSid": call.sid,
            "StreamSid": stream_sid,
            "StreamName": noun.name or stream_sid,
        }

        def failed(code: int, detail: str) -> Cause:
            call.error(code, detail)
            error = {"StreamEvent": "stream-error", "StreamError": f"{code} {detail}"}
            call.notify(callback, {**about, **error})
            return Cause.STREAM_FAILED

        dialled = call.clock.time()
        try:
            socket = await self._streams.open(
                self._session,
                self._target.reach(noun.url),
                {"X-Twilio-Signature": self._target.signature(noun.url)},
                trace,
            )
        except NotConnected as error:
            return failed(error.code, error.detail)
        trace.connect_seconds = call.clock.time() - dialled
        trace.stream = trace.stream or StreamTrace(stream_sid, call.clock.time())
        call.notify(callback, {**about, "StreamEvent": "stream-started"})
        start = Start(
            stream_sid=stream_sid,
            call_sid=call.sid,
            account_sid=call.account_sid,
            parameters=noun.parameters,
        )
        stream = socket.stream(
            call.clock,
            trace,
            trace.stream,
            start,
            network=call.network,
            tap=call.tap,
            ending=call.steering,
        )
        cause = await stream.run(self._person)
        call.notify(callback, {**about, "StreamEvent": "stream-stopped"})
        return cause

    async def _record(self, verb: Record, document: Document) -> Program | None:
        call = self._call
        callback = absolute(document.url, verb.recording_callback)
        if verb.play_beep:
            await call.pass_time(len(_BEEP) / SAMPLE_RATE, _BEEP)
        recording = call.record("RecordVerb", callback=callback)
        try:
            digits, anything = await self._listen(verb)
        finally:
            call.finish_recording(recording)
        if not anything and digits != "hangup":
            return None
        about = {
            "RecordingSid": recording.sid,
            "RecordingUrl": call.recording_url(recording),
            "RecordingDuration": str(round(recording.seconds)),
            "Digits": digits,
        }
        following = _next(document, verb.action or Callback(document.url), about)
        if digits == "hangup":
            call.trace.cause = Cause.CALLER_HUNG_UP
            if following is not None:
                # Twilio still asks; what the answer says reaches nobody any more.
                await self._http.document(call, following)
            return None
        return following

    async def _listen(self, verb: Record) -> tuple[str, bool]:
        """Let the person speak: the key that ended it (or ``hangup``), and if anything was said."""
        call, person = self._call, self._person
        stream = call.trace.stream = call.trace.stream or StreamTrace("", call.clock.time())
        begun = call.clock.time()
        stream.begin(begun)
        ear, silence = Ear(), np.zeros(FRAME, np.int16)
        while ear.position < verb.max_length * SAMPLE_RATE:
            if person.keys:
                key = person.keys.popleft()
                stream.keys.append(Key(key, stream.position))
                if key in verb.finish_on_key:
                    return key, ear.last_audible is not None
            said = person.tick(silence)
            if said is None:
                return "hangup", ear.last_audible is not None
            stream.add(said, silence, 0)
            call.tap(said, silence)
            ear.hear(said)
            if ear.silent_for >= verb.timeout * SAMPLE_RATE:
                break
            due = begun + ear.position / SAMPLE_RATE
            await call.clock.sleep(min(FRAME_SECONDS, max(0.0, due - call.clock.time())))
            if call.steering.is_set():
                raise Steered
        return "", ear.last_audible is not None


def _next(
    document: Document, action: Callback | None, parameters: Mapping[str, str]
) -> Fetch | None:
    """The document that a verb's action leads to, if it has one."""
    callback = absolute(document.url, action)
    if callback is None or not callback.url:
        return None
    return Fetch(callback.url, callback.method, parameters)
