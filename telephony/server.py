"""The gateway: Twilio's webhooks and media streams in one aiohttp application.

    POST /voice   what shall a new call do: connect to /media, or a sentence and hang up
    GET  /media   a call's media stream (WebSocket)
    POST /next    what shall a call do that the agent has left: ring somebody else, or end
    POST /status  how calls and streams went
    GET  /health  whether calls can be answered now

Calls share nothing but the process: whatever happens in one is caught, recorded and closed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from loguru import logger

from agent.events import CallObserver
from agent.settings import GatewaySettings
from agent.tools.call import Phone
from telephony import webhooks
from telephony.clock import Clock, SystemClock
from telephony.engine_health import EngineHealth
from telephony.line import EndCause, PhoneLine
from telephony.media_streams import CloseCode, ProtocolError
from telephony.records import CallRecorder, CallRecords, Redaction
from telephony.records.keeping import keeping
from telephony.rest import TwilioRest
from telephony.switchboard import LineBusyError, Switchboard
from telephony.transfers import LinePhone, Transfers
from telephony.transport import PhoneTransport

_LARGEST_BODY = 64 * 1024
_LARGEST_MESSAGE = 64 * 1024
_PING_SECONDS = 15.0
_SHUTDOWN_SECONDS = 5.0
_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


@dataclass(frozen=True)
class PhoneCall:
    """One call, as the agent may know it.

    Attributes:
        sid: Twilio's identifier of the call.
        stream_sid: Twilio's identifier of its media stream.
        account_sid: the account it belongs to.
        observer: the call's record.
        phone: what only the telephone can do.
    """

    sid: str
    stream_sid: str
    account_sid: str
    observer: CallObserver
    phone: Phone


AnswerCall = Callable[[PhoneTransport, PhoneCall], Awaitable[None]]
"""Runs one call to its end."""


@dataclass
class _Live:
    line: PhoneLine
    task: asyncio.Task[None] | None


@dataclass
class Gateway:
    """What the handlers share.

    Attributes:
        public_base_url: scheme and host as Twilio sees them; None until it is known.
        redaction: what is masked in the records.
        arriving: the records of calls whose socket has not opened.
    """

    answer_call: AnswerCall
    records: CallRecords
    engine: EngineHealth
    signature: webhooks.SignatureCheck
    switchboard: Switchboard
    transfers: Transfers
    clock: Clock
    public_base_url: str | None
    redaction: Redaction
    live: dict[str, _Live] = field(default_factory=dict)
    arriving: dict[str, CallRecorder] = field(default_factory=dict)

    def url(self, path: str) -> str:
        """The public address of a path.

        Raises:
            web.HTTPServiceUnavailable: if the public base URL is not known.
        """
        if self.public_base_url is None:
            raise web.HTTPServiceUnavailable(text="gateway.public_base_url is not set\n")
        return self.public_base_url + path


GATEWAY = web.AppKey("gateway", Gateway)


def create_app(
    settings: GatewaySettings,
    answer_call: AnswerCall,
    records: CallRecords,
    *,
    engine_ready: Callable[[], Awaitable[None]],
    clock: Clock | None = None,
    redaction: Redaction | None = None,
) -> web.Application:
    """Build the gateway.

    Args:
        settings: public base URL, auth token, number of calls.
        answer_call: runs one call's pipeline on the transport until the call ends. What it raises
            ends that call alone.
        records: where calls are recorded.
        engine_ready: returns if the engine can answer a call, raises if it cannot.
        clock: paces the calls' audio and ages tokens.
        redaction: what is masked in the records; None: nothing.

    Raises:
        ValueError: if there is no auth token.
    """
    clock = clock or SystemClock()
    token = settings.read_auth_token()
    by_rest = settings.transfer == "rest"
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[GATEWAY] = Gateway(
        answer_call=answer_call,
        records=records,
        engine=EngineHealth(engine_ready, clock),
        signature=webhooks.SignatureCheck(token),
        switchboard=Switchboard(settings.max_calls, clock),
        transfers=Transfers(TwilioRest(token, settings.rest_url) if by_rest else None),
        clock=clock,
        public_base_url=settings.public_base_url,
        redaction=redaction or Redaction(),
    )
    app.router.add_post("/voice", _voice)
    app.router.add_get("/media", _media)
    app.router.add_post("/next", _next)
    app.router.add_post("/status", _status)
    app.router.add_get("/health", _health)
    app.cleanup_ctx.append(lambda app: keeping(records))
    app.on_shutdown.append(_hang_up_all)
    return app


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve the gateway; on leaving, end the calls and stop.

    Args:
        app: from :func:`create_app`.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Yields:
        The public base URL: the configured one, else the address that is listened on.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        gateway = app[GATEWAY]
        if gateway.public_base_url is None:
            gateway.public_base_url = f"http://{host}:{runner.addresses[0][1]}"
        yield gateway.public_base_url
    finally:
        await runner.cleanup()


async def _voice(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await _signed_form(gateway, request)
    call_sid = form.get("CallSid")
    if not call_sid:
        raise web.HTTPBadRequest(text="CallSid: expected the call's identifier\n")
    _begin_record(gateway, call_sid, form)
    try:
        token = gateway.switchboard.admit(call_sid)
    except LineBusyError:
        logger.bind(call_sid=call_sid).warning("Call refused: no line is free")
        _end_record(gateway, call_sid, "busy")
        return _twiml(webhooks.refusal_twiml(webhooks.BUSY))
    if not await gateway.engine.reachable():
        gateway.switchboard.release(call_sid)
        logger.bind(call_sid=call_sid).error("Call refused: the engine is not reachable")
        _end_record(gateway, call_sid, "engine_unreachable")
        return _twiml(webhooks.refusal_twiml(webhooks.APOLOGY))
    return _twiml(
        webhooks.connect_twiml(
            webhooks.websocket_url(gateway.url(""), "/media"),
            {webhooks.TOKEN_PARAMETER: token},
            status_url=gateway.url("/status"),
            next_url=gateway.url("/next"),
        )
    )


async def _next(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await _signed_form(gateway, request)
    return _twiml(gateway.transfers.next_twiml(form.get("CallSid", "")))


async def _status(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await _signed_form(gateway, request)
    call_sid = form.get("CallSid", "")
    if form.get("StreamEvent") == "stream-error":
        logger.bind(call_sid=call_sid).warning("Twilio reports an error of the stream")
    if form.get("CallStatus") in _OVER:
        gateway.transfers.forget(call_sid)
        live = gateway.live.get(call_sid)
        if live is not None:
            await live.line.hang_up(EndCause.CALLER_HUNG_UP)
        else:
            gateway.switchboard.release(call_sid)
            _end_record(gateway, call_sid, EndCause.CALLER_HUNG_UP)
    return web.Response(status=204)


async def _health(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    reachable = await gateway.engine.reachable()
    body = {
        "engine": "reachable" if reachable else "unreachable",
        "active_calls": gateway.switchboard.active,
        "draining": gateway.switchboard.draining,
    }
    healthy = reachable and not gateway.switchboard.draining
    return web.json_response(body, status=200 if healthy else 503)


async def _media(request: web.Request) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    gateway.signature.require(request, webhooks.websocket_url(gateway.url(""), "/media"))
    websocket = web.WebSocketResponse(
        max_msg_size=_LARGEST_MESSAGE, heartbeat=_PING_SECONDS, timeout=1.0, compress=False
    )
    await websocket.prepare(request)
    try:
        line = await PhoneLine.answer(websocket)
        call_sid = line.start.call_sid
        if not gateway.switchboard.connect(
            call_sid, line.start.parameters.get(webhooks.TOKEN_PARAMETER, "")
        ):
            raise ProtocolError(CloseCode.POLICY_VIOLATION, "start: no valid token for this call")
    except ProtocolError as error:
        logger.bind(code=error.code, reason=error.reason).warning("Media stream refused")
        await websocket.close(code=error.code, message=error.reason.encode())
        return websocket
    gateway.live[call_sid] = _Live(line, asyncio.current_task())
    try:
        await _run_call(gateway, line)
    finally:
        del gateway.live[call_sid]
        gateway.switchboard.release(call_sid)
    return websocket


async def _run_call(gateway: Gateway, line: PhoneLine) -> None:
    start = line.start
    recorder: CallRecorder | None = None
    phone = LinePhone(line, gateway.transfers)
    try:
        recorder = gateway.arriving.pop(start.call_sid, None) or _new_record(
            gateway, start.call_sid, {}
        )
        recorder.event("call_started", call_sid=start.call_sid)
        logger.bind(call_sid=start.call_sid).info("Call started")
        call = PhoneCall(start.call_sid, start.stream_sid, start.account_sid, recorder, phone)
        await gateway.answer_call(PhoneTransport(line, clock=gateway.clock), call)
        await line.hang_up(EndCause.AGENT_HUNG_UP)
    except Exception as error:
        logger.bind(call_sid=start.call_sid).exception("Call failed")
        if recorder is not None:
            recorder.event("error", message=f"{type(error).__name__}: {error}")
        await line.hang_up(EndCause.ERROR, CloseCode.INTERNAL_ERROR, "internal error")
    finally:
        cause = phone.cause(line.cause or EndCause.SHUTDOWN)
        if recorder is not None:
            if cause is EndCause.TRANSFERRED:
                recorder.event("call_transferred", to=phone.transferred_to)
            recorder.close(cause)
        logger.bind(call_sid=start.call_sid, cause=cause).info("Call ended")


def _new_record(gateway: Gateway, call_sid: str, form: Mapping[str, str]) -> CallRecorder:
    return gateway.records.open(
        call_sid,
        caller=form.get("From"),
        called=form.get("To"),
        account_sid=form.get("AccountSid"),
        redaction=gateway.redaction,
    )


def _begin_record(gateway: Gateway, call_sid: str, form: Mapping[str, str]) -> None:
    """Begin the record of a call that comes, unless its webhook is repeated."""
    for sid in [sid for sid in gateway.arriving if not gateway.switchboard.is_expected(sid)]:
        if sid != call_sid:
            _end_record(gateway, sid, "never_connected")
    if call_sid in gateway.arriving or call_sid in gateway.live:
        return
    try:
        gateway.arriving[call_sid] = _new_record(gateway, call_sid, form)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error


def _end_record(gateway: Gateway, call_sid: str, cause: str) -> None:
    recorder = gateway.arriving.pop(call_sid, None)
    if recorder is not None:
        recorder.close(cause)


async def _hang_up_all(app: web.Application) -> None:
    gateway = app[GATEWAY]
    gateway.switchboard.draining = True
    for call_sid in list(gateway.arriving):
        _end_record(gateway, call_sid, EndCause.SHUTDOWN)
    live = list(gateway.live.values())
    await asyncio.gather(
        *(
            call.line.hang_up(EndCause.SHUTDOWN, CloseCode.GOING_AWAY, "the gateway stops")
            for call in live
        )
    )
    tasks = {call.task for call in live if call.task is not None}
    if tasks:
        _, running = await asyncio.wait(tasks, timeout=_SHUTDOWN_SECONDS)
        for task in running:
            task.cancel()


async def _signed_form(gateway: Gateway, request: web.Request) -> Mapping[str, str]:
    """The fields of a form that Twilio signed.

    Raises:
        web.HTTPForbidden: if it is not signed, or not a form of text fields.
    """
    form = await request.post()
    if not all(isinstance(value, str) for value in form.values()):
        raise web.HTTPForbidden(text="expected a form of text fields\n")
    gateway.signature.require(request, gateway.url(request.path), form)
    return {name: str(value) for name, value in form.items()}


def _twiml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml")
