"""The gateway: Twilio's webhooks and media streams in one aiohttp application.

    POST /voice      what shall a new call do: connect to /media, or what the reception decides
    GET  /media      a call's media stream (WebSocket)
    POST /next       what shall a call do that the agent has left: ring somebody else, or end
    POST /forwarded  what shall a call do that comes back from another number
    POST /status     how calls and streams went
    GET  /health     whether calls can be answered now

and what telephony/transfer_routes.py, telephony/outbound/, telephony/operators.py and
telephony/wires/ add.

Calls share nothing but the process: whatever happens in one is caught, recorded and closed there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from loguru import logger

from agent.events import JSON, CallObserver
from agent.failure import EngineLost
from agent.settings import GatewaySettings
from agent.tools.call import Phone
from telephony import webhooks
from telephony.agents import Agent, Agents
from telephony.call_socket import CallSocket
from telephony.capacity import Capacity
from telephony.clock import Clock, SystemClock
from telephony.ending import Live, drained, end_in_time
from telephony.engine_health import EngineHealth
from telephony.limits import Addresses, MessageRate
from telephony.line import EndCause, PhoneLine
from telephony.media_streams import CloseCode, ProtocolError
from telephony.operators import add_operator_routes
from telephony.reception import Arrival, PrepareCall, Prepared, Reception
from telephony.recorders import recording
from telephony.records import CallRecords
from telephony.records.keeping import keeping
from telephony.rest import TwilioRest
from telephony.shared_switchboard import SharedSwitchboard
from telephony.switchboard import Switchboard
from telephony.telephone import Telephone
from telephony.transfer_routes import add_transfer_routes
from telephony.transfers import Transfers
from telephony.transport import PhoneTransport
from telephony.wires.routes import AnswerLine, add_wire_routes

_LARGEST_BODY = 64 * 1024
_LARGEST_MESSAGE = 64 * 1024
_PING_SECONDS = 15.0
_SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class PhoneCall:
    """One call, as the agent may know it.

    Attributes:
        sid: Twilio's identifier of the call.
        stream_sid: Twilio's identifier of its media stream.
        account_sid: the account it belongs to.
        observer: the call's record.
        phone: what only the telephone can do.
        agent: who answers it, as its settings were when the call came.
        prepared: what was begun for it; closed when the call has ended.
        ending: gets the words to say before the call is ended from outside.
        notices: gets words to say in the next gap.
        give_up: ends the call because the caller says nothing.
    """

    sid: str
    stream_sid: str
    account_sid: str
    observer: CallObserver
    phone: Phone
    agent: Agent
    prepared: Prepared | None
    ending: asyncio.Future[str]
    notices: asyncio.Queue[str]
    give_up: Callable[[], None]


AnswerCall = Callable[[PhoneTransport, PhoneCall], Awaitable[None]]
"""Runs one call to its end."""
OpenSwitchboard = Callable[[Callable[[], int], Clock], Switchboard | SharedSwitchboard]
"""Opens a switchboard with a limit of calls."""


@dataclass
class Gateway:
    """What the handlers share.

    Attributes:
        public_base_url: scheme and host as Twilio sees them; None until it is known.
    """

    answer_call: AnswerCall
    records: CallRecords
    settings: GatewaySettings
    engine: EngineHealth
    signature: webhooks.SignatureCheck
    switchboard: Switchboard | SharedSwitchboard
    transfers: Transfers
    capacity: Capacity
    addresses: Addresses
    rest: TwilioRest
    clock: Clock
    public_base_url: str | None
    reception: Reception = field(init=False)
    live: dict[str, Live] = field(default_factory=dict)

    def url(self, path: str) -> str:
        """The public address of a path.

        Raises:
            web.HTTPServiceUnavailable: if the public base URL is not known.
        """
        if self.public_base_url is None:
            raise web.HTTPServiceUnavailable(text="gateway.public_base_url is not set\n")
        return self.public_base_url + path

    def note(self, call_sid: str, name: str, **fields: JSON) -> bool:
        """Add an event to a call's record, whether it is over or not; false: no call of ours."""
        live = self.live.get(call_sid)
        if live is None or live.recorder is None:
            return self.reception.afterwards(call_sid, name, **fields)
        live.recorder.event(name, **fields)
        return True


GATEWAY = web.AppKey("gateway", Gateway)


def create_app(
    settings: GatewaySettings,
    answer_call: AnswerCall,
    records: CallRecords,
    *,
    engine_ready: Callable[[], Awaitable[None]],
    engine_carries: Callable[[], float | None] = lambda: None,
    agents: Agents | None = None,
    prepare: PrepareCall = lambda agent: None,
    clock: Clock | None = None,
    now: Callable[[], float] = time.time,
    open_switchboard: OpenSwitchboard = Switchboard,
) -> web.Application:
    """Build the gateway.

    Args:
        settings: public base URL, secrets, limits.
        answer_call: runs one call's pipeline on the transport until the call ends. What it raises
            ends that call alone.
        records: where calls are recorded.
        engine_ready: returns if the engine can answer a call, raises if it cannot.
        engine_carries: answers that the engine can keep in playback at once; None: not known.
        agents: who answers which number; by default one agent answers every number.
        prepare: begins what can be begun for a call while its socket is awaited.
        clock: paces the calls' audio and ages tokens.
        now: Unix time, by which agents have their hours.
        open_switchboard: opens the switchboard; another one where processes share it.

    Raises:
        ValueError: if there is no auth token, or a secret's file cannot be used, or another
            carrier's wire cannot be opened.
    """
    clock = clock or SystemClock()
    token = settings.read_auth_token()
    rest = TwilioRest(token, settings.rest_url, clock)
    addresses = Addresses(settings.connections_per_address, settings.trusted_proxies)
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[addresses.limit])
    capacity = Capacity(settings.max_calls, settings.talk_share, engine_carries)
    switchboard = open_switchboard(capacity.limit, clock)
    gateway = app[GATEWAY] = Gateway(
        answer_call=answer_call,
        records=records,
        settings=settings,
        engine=EngineHealth(engine_ready, clock),
        signature=webhooks.SignatureCheck(token),
        switchboard=switchboard,
        transfers=Transfers(
            rest, lambda path: gateway.url(path), clock, switchboard.documents, settings.transfer
        ),
        capacity=capacity,
        addresses=addresses,
        rest=rest,
        clock=clock,
        public_base_url=settings.public_base_url,
    )
    gateway.reception = Reception(
        agents or Agents({"agent": Agent()}),
        gateway.switchboard,
        gateway.engine,
        records,
        clock,
        transfers=gateway.transfers,
        now=now,
        url=gateway.url,
        prepare=prepare,
    )
    add_transfer_routes(app, gateway.transfers, gateway.note, signed_form)
    app.router.add_post("/voice", _voice)
    app.router.add_post("/forwarded", _forwarded)
    app.router.add_get("/media", _media)
    app.router.add_post("/status", _status)
    app.router.add_get("/health", _health)
    add_operator_routes(app, gateway, settings.read_operator_token())
    add_wire_routes(app, gateway, _carry, now)
    app.cleanup_ctx.append(lambda app: keeping(records))
    app.on_shutdown.append(_hang_up_all)
    return app


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, *, shared: bool = False
) -> AsyncIterator[str]:
    """Serve the gateway; on leaving, end the calls and stop.

    Args:
        app: from :func:`create_app`.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        shared: other processes listen there too, and the kernel deals out the connections.

    Yields:
        The public base URL: the configured one, else the address that is listened on.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_port=shared or None).start()
        gateway = app[GATEWAY]
        if gateway.public_base_url is None:
            gateway.public_base_url = f"http://{host}:{runner.addresses[0][1]}"
        yield gateway.public_base_url
    finally:
        await runner.cleanup()


async def _voice(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await signed_form(request)
    number = _call_sid(form), form.get("To", ""), form.get("From", "")
    return webhooks.twiml_response(
        await gateway.reception.receive(*number, form.get("AccountSid", ""))
    )


async def _forwarded(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await signed_form(request)
    status = form.get("DialCallStatus", "")
    return webhooks.twiml_response(
        gateway.reception.forwarded(_call_sid(form), form.get("To", ""), status)
    )


async def _status(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    form = await signed_form(request)
    call_sid = form.get("CallSid", "")
    if form.get("StreamEvent") == "stream-error":
        logger.bind(call_sid=call_sid).warning("Twilio reports an error of the stream")
    if form.get("CallStatus") in webhooks.CALL_OVER:
        await call_over(gateway, call_sid)
    return web.Response(status=204)


async def call_over(gateway: Gateway, call_sid: str) -> None:
    """A call has ended, as Twilio says."""
    gateway.transfers.forget(call_sid)
    live = gateway.live.get(call_sid)
    if live is not None:
        await live.line.hang_up(EndCause.CALLER_HUNG_UP)
    else:
        # Where another process has it, its socket tells that one.
        await gateway.reception.leave(call_sid, EndCause.CALLER_HUNG_UP)


async def _health(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    reachable = await gateway.engine.reachable()
    body = {
        "engine": "reachable" if reachable else "unreachable",
        "active_calls": gateway.switchboard.active,
        "workers": gateway.switchboard.workers,
        "draining": gateway.switchboard.draining,
    }
    healthy = reachable and not gateway.switchboard.draining
    return web.json_response(body, status=200 if healthy else 503)


async def _media(request: web.Request) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    gateway.signature.require(request, webhooks.websocket_url(gateway.url(""), "/media"))
    return await _carry(gateway, request, PhoneLine.answer)


async def _carry(gateway: Gateway, request: web.Request, answer: AnswerLine) -> web.StreamResponse:
    """Carry a call over its WebSocket, from the upgrade to the end."""
    websocket = CallSocket(
        max_msg_size=_LARGEST_MESSAGE, heartbeat=_PING_SECONDS, timeout=1.0, compress=False
    )
    await websocket.prepare(request)
    try:
        rate = MessageRate(gateway.settings.messages_per_second, gateway.clock)
        line = await answer(websocket, allows=rate.allows)
        call_sid = line.start.call_sid
        arrival = gateway.reception.connect(
            call_sid, line.start.parameters.get(webhooks.TOKEN_PARAMETER, "")
        )
        if arrival is None:
            raise ProtocolError(CloseCode.POLICY_VIOLATION, "start: no valid token for this call")
    except ProtocolError as error:
        logger.bind(code=error.code, reason=error.reason).warning("Media stream refused")
        await websocket.close(code=error.code, message=error.reason.encode())
        return websocket
    gateway.addresses.is_call(request)
    live = Live(
        line,
        arrival.agent_name,
        arrival.agent,
        gateway.clock.time(),
        asyncio.get_running_loop().create_future(),
        arrival.recorder,
        asyncio.current_task(),
    )
    gateway.live[call_sid] = live
    try:
        await _run_call(gateway, live, arrival)
    finally:
        del gateway.live[call_sid]
        gateway.switchboard.release(call_sid)
    return websocket


async def _run_call(gateway: Gateway, live: Live, arrival: Arrival) -> None:
    line, start = live.line, live.line.start
    limit = asyncio.create_task(end_in_time(live, gateway.clock))
    try:
        recorder = live.recorder = gateway.reception.record_of(start, arrival)
        waited = {"waited": live.since - arrival.arrived} if arrival.waited else {}
        recorder.event("call_started", call_sid=start.call_sid, agent=live.agent_name, **waited)
        logger.bind(call_sid=start.call_sid, agent=live.agent_name).info("Call started")
        sounds = recording(
            live.agent.phone.recording, line, gateway.rest, gateway.url("/recording"), recorder
        )
        async with sounds as sound:
            telephone = live.telephone = Telephone(
                line, recorder, live.agent, gateway.transfers, sound, gateway.clock
            )
            call = PhoneCall(
                start.call_sid,
                start.stream_sid,
                start.account_sid,
                telephone.observer,
                telephone,
                live.agent,
                arrival.prepared,
                live.ending,
                live.notices,
                live.give_up,
            )
            await gateway.answer_call(telephone.transport, call)
        await line.hang_up(EndCause.AGENT_HUNG_UP)
    except EngineLost:
        await line.hang_up(EndCause.ENGINE)
        if line.cause is EndCause.AGENT_HUNG_UP:
            line.cause = EndCause.ENGINE
    except Exception as error:
        logger.bind(call_sid=start.call_sid).exception("Call failed")
        if live.recorder is not None:
            live.recorder.event("error", message=f"{type(error).__name__}: {error}")
        await line.hang_up(EndCause.ERROR, CloseCode.INTERNAL_ERROR, "internal error")
    finally:
        limit.cancel()
        cause = live.cause()
        if live.recorder is not None:
            if cause is EndCause.TRANSFERRED and live.telephone is not None:
                live.recorder.event("call_transferred", to=live.telephone.transferred_to)
            live.recorder.close(cause)
            gateway.reception.ended(start.call_sid, live.recorder)
        logger.bind(call_sid=start.call_sid, cause=cause).info("Call ended")
        if arrival.prepared is not None:
            await arrival.prepared.close()
        # Until then the call keeps its place, and a gateway that drains goes on.
        await gateway.transfers.settled(start.call_sid, line.cause)


async def drain(app: web.Application, seconds: float) -> None:
    """Take no more calls, and let those that run come to their end.

    Args:
        app: from :func:`create_app`.
        seconds: after which the agents say goodbye. What is left a little later is ended when the
            application is closed.
    """
    gateway = app[GATEWAY]
    await drained(gateway.switchboard, gateway.live, gateway.clock, seconds)


async def _hang_up_all(app: web.Application) -> None:
    gateway = app[GATEWAY]
    gateway.switchboard.draining = True
    await gateway.reception.close()
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


async def signed_form(request: web.Request) -> Mapping[str, str]:
    """The fields of a form that Twilio signed.

    Raises:
        web.HTTPForbidden: if it is not signed, or not a form of text fields.
    """
    gateway = request.app[GATEWAY]
    form = await request.post()
    if not all(isinstance(value, str) for value in form.values()):
        raise web.HTTPForbidden(text="expected a form of text fields\n")
    gateway.signature.require(request, gateway.url(request.path), form)
    return {name: str(value) for name, value in form.items()}


def _call_sid(form: Mapping[str, str]) -> str:
    call_sid = form.get("CallSid")
    if not call_sid:
        raise web.HTTPBadRequest(text="CallSid: expected the call's identifier\n")
    return call_sid
