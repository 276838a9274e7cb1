"""The loopback Twilio: dials a number whose webhook and media stream are a server of ours.

Signatures, form fields and error codes follow Twilio's references for voice webhooks, TwiML and
Media Streams.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import TracebackType

import aiohttp

from telephony.clock import Clock
from telephony.media_streams import Start
from telephony.simulator.caller import Caller
from telephony.simulator.stream import MediaStream
from telephony.simulator.target import Target, new_sid
from telephony.simulator.trace import CallTrace, Cause, StreamTrace, TwilioError
from telephony.simulator.twiml import (
    Hangup,
    Pause,
    Reject,
    Say,
    Stream,
    TwiMLError,
    Verb,
    parse_twiml,
)

WEBHOOK_SECONDS = 15.0
"""How long Twilio waits for a voice webhook."""
CONNECT_SECONDS = 10.0
"""How long it waits for the WebSocket to open."""

_Tell = Callable[[str | None, Mapping[str, str]], None]


class LoopbackTwilio:
    """Places calls, as many at once as are asked for. An async context manager."""

    def __init__(self, target: Target, clock: Clock) -> None:
        """Prepare to call a server.

        Args:
            target: Whom to call.
            clock: Tells the time and waits; paces the media.
        """
        self._target = target
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "LoopbackTwilio":
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open_session.close()
        self._session = None

    def new_call(self) -> CallTrace:
        """A call that has not been placed yet; its identifier is already known."""
        return CallTrace(call_sid=new_sid("CA"), dialled_at=self._clock.time())

    async def place(self, call: CallTrace, caller: Caller, from_: str, to: str) -> None:
        """Place a call and stay until it is over.

        What goes wrong on the way is part of the trace and raises nothing.

        Args:
            call: From ``new_call``; receives everything that happens.
            caller: Who speaks and listens.
            from_: The caller's number.
            to: The number called.
        """
        call.dialled_at = self._clock.time()
        parameters = self._parameters(call, from_, to)
        async with asyncio.TaskGroup() as callbacks:
            tell = partial(self._tell, callbacks)
            try:
                document = await self._ask(call, {**parameters, "CallStatus": "ringing"})
                if document is not None:
                    await self._execute(call, caller, parse_twiml(document), tell)
            except TwiMLError as error:
                self._error(call, error.code, str(error))
            except asyncio.CancelledError:
                call.cause = Cause.BROKEN_OFF
                raise
            finally:
                call.ended_at = self._clock.time()
                status = "completed" if call.stream else "failed"
                duration = str(round(call.ended_at - call.dialled_at))
                ended = {**parameters, "CallStatus": status, "CallDuration": duration}
                tell(self._target.status_url, ended)

    async def _ask(self, call: CallTrace, parameters: Mapping[str, str]) -> str | None:
        url = self._target.voice_url
        try:
            async with self._post(url, parameters, WEBHOOK_SECONDS) as response:
                document = await response.text()
                call.webhook_seconds = self._clock.time() - call.dialled_at
                if response.status // 100 != 2:
                    self._error(call, 11200, f"the webhook answered {response.status}")
                    return None
                if response.content_type not in ("text/xml", "application/xml"):
                    self._error(call, 12300, f"the webhook answered {response.content_type}")
                    return None
                return document
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            self._error(call, 11205, f"the webhook cannot be reached: {_reason(error)}")
            return None

    async def _execute(
        self, call: CallTrace, caller: Caller, verbs: list[Verb], tell: _Tell
    ) -> None:
        """Execute verbs in order; without any left, Twilio hangs up."""
        call.cause = Cause.REFUSED
        for verb in verbs:
            match verb:
                case Say(text=text):
                    call.said.append(text)
                case Pause(seconds=seconds):
                    await self._clock.sleep(seconds)
                case Hangup() | Reject():
                    break
                case Stream():
                    call.cause = await self._connect(call, caller, verb, tell)
                    if call.cause is Cause.CALLER_HUNG_UP:
                        break

    async def _connect(self, call: CallTrace, caller: Caller, noun: Stream, tell: _Tell) -> Cause:
        stream_sid = new_sid("MZ")
        about = {
            "AccountSid": self._target.account_sid,
            "CallSid": call.call_sid,
            "StreamSid": stream_sid,
            "StreamName": noun.name or stream_sid,
        }
        dialled = self._clock.time()
        try:
            socket = await self._open_session.ws_connect(
                self._target.reach(noun.url),
                headers={"X-Twilio-Signature": self._target.signature(noun.url)},
            )
        except aiohttp.WSServerHandshakeError as error:
            detail = f"the WebSocket was not opened: HTTP {error.status}"
            return self._failed(call, noun, about, tell, 31920, detail)
        except (aiohttp.ClientError, TimeoutError) as error:
            detail = f"the WebSocket cannot be reached: {_reason(error)}"
            return self._failed(call, noun, about, tell, 31901, detail)
        call.connect_seconds = self._clock.time() - dialled
        call.stream = StreamTrace(stream_sid, self._clock.time())
        tell(noun.status_callback, {**about, "StreamEvent": "stream-started"})
        start = Start(
            stream_sid=stream_sid,
            call_sid=call.call_sid,
            account_sid=self._target.account_sid,
            parameters=noun.parameters,
        )
        cause = await MediaStream(socket, self._clock, call, call.stream, start).run(caller)
        tell(noun.status_callback, {**about, "StreamEvent": "stream-stopped"})
        return cause

    def _failed(
        self,
        call: CallTrace,
        noun: Stream,
        about: Mapping[str, str],
        tell: _Tell,
        code: int,
        detail: str,
    ) -> Cause:
        self._error(call, code, detail)
        error = {"StreamEvent": "stream-error", "StreamError": f"{code} {detail}"}
        tell(noun.status_callback, {**about, **error})
        return Cause.STREAM_FAILED

    def _tell(
        self, callbacks: asyncio.TaskGroup, url: str | None, parameters: Mapping[str, str]
    ) -> None:
        if url is not None:
            callbacks.create_task(self._call_back(url, parameters))

    async def _call_back(self, url: str, parameters: Mapping[str, str]) -> None:
        """Send a callback. As with Twilio, the call does not depend on its answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._post(url, parameters, CONNECT_SECONDS):
                pass

    @contextlib.asynccontextmanager
    async def _post(
        self, url: str, parameters: Mapping[str, str], seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._open_session.post(
            self._target.reach(url),
            data=dict(parameters),
            headers={"X-Twilio-Signature": self._target.signature(url, parameters)},
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            yield response

    def _parameters(self, call: CallTrace, from_: str, to: str) -> dict[str, str]:
        return {
            "AccountSid": self._target.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call.call_sid,
            "Called": to,
            "Caller": from_,
            "Direction": "inbound",
            "From": from_,
            "To": to,
        }

    def _error(self, call: CallTrace, code: int, detail: str) -> None:
        call.errors.append(TwilioError(code, self._clock.time(), detail))

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("LoopbackTwilio is used outside of 'async with'")
        return self._session


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
