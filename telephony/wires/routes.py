"""The gateway's doors for other carriers; each is there only where the settings name the carrier.

    POST /wire/{carrier}                       what shall a new call do (Exotel: GET, a key behind)
    POST /wire/{carrier}/forwarded             what shall a call do that comes back
    GET  /wire/{carrier}/stream/{call}/{token} a call's WebSocket

A socket is let in by the token that its call was given at the webhook, good once and for 30
seconds. It stands in the path: not every carrier hands parameters on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from loguru import logger

from agent.wire_settings import CarrierName, WireSettings
from telephony.line import PhoneLine
from telephony.webhooks import websocket_url
from telephony.wires.carrier import Addresses, Carrier, Webhook
from telephony.wires.exotel import Exotel
from telephony.wires.line import CarrierLine
from telephony.wires.plivo import Plivo
from telephony.wires.steps import Connect, steps
from telephony.wires.telnyx import Telnyx
from telephony.wires.vonage import Vonage

if TYPE_CHECKING:
    from telephony.server import Gateway

_CARRIERS: Mapping[CarrierName, type[Carrier]] = {
    "telnyx": Telnyx,
    "plivo": Plivo,
    "vonage": Vonage,
    "exotel": Exotel,
}


class AnswerLine(Protocol):
    """Waits until a call's stream begins."""

    def __call__(
        self, websocket: web.WebSocketResponse, *, allows: Callable[[], bool]
    ) -> Awaitable[PhoneLine]:
        """Give the line, whose ``start`` brings the call's token."""
        ...


CarryCall = Callable[["Gateway", web.Request, AnswerLine], Awaitable[web.StreamResponse]]
"""Carries a call over its WebSocket, from the upgrade to the end."""


def add_wire_routes(
    app: web.Application, gateway: Gateway, carry: CarryCall, now: Callable[[], float]
) -> None:
    """Let other carriers in.

    Args:
        app: What serves the gateway.
        gateway: Where their calls go.
        carry: Carries a call.
        now: Unix time, by which signatures age.

    Raises:
        ValueError: A carrier's secret cannot be used.
    """
    for name, settings in gateway.settings.wires.items():
        try:
            carrier = _CARRIERS[name](settings.read_secret())
        except ValueError as error:
            raise ValueError(f"gateway.wires.{name}: {error}") from error
        wire = _Wire(gateway, carrier, settings, carry, now)
        base = f"/wire/{name}"
        app.router.add_route(carrier.method, base + carrier.path, wire.webhook)
        if carrier.method == "POST":
            app.router.add_post(f"{base}/forwarded", wire.forwarded)
        app.router.add_get(f"{base}/stream/{{call}}/{{token}}", wire.stream)


class _Wire:
    """One carrier's doors."""

    def __init__(
        self,
        gateway: Gateway,
        carrier: Carrier,
        settings: WireSettings,
        carry: CarryCall,
        now: Callable[[], float],
    ):
        self._gateway = gateway
        self._carrier = carrier
        self._settings = settings
        self._carry = carry
        self._now = now

    async def webhook(self, request: web.Request) -> web.Response:
        webhook = await self._received(request)
        call = self._carrier.call(webhook)
        sid = self._carrier.call_sid(call.id)
        reception = self._gateway.reception
        return await self._answer(webhook, await reception.receive(sid, call.called, call.caller))

    async def forwarded(self, request: web.Request) -> web.Response:
        webhook = await self._received(request)
        call = self._carrier.call(webhook)
        sid, status = self._carrier.call_sid(call.id), self._carrier.dial_status(webhook)
        reception = self._gateway.reception
        return await self._answer(webhook, reception.forwarded(sid, call.called, status))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        sid, token = request.match_info["call"], request.match_info["token"]
        clock = None if self._settings.marks else self._gateway.clock

        async def answer(
            websocket: web.WebSocketResponse, *, allows: Callable[[], bool]
        ) -> PhoneLine:
            return await CarrierLine.open(
                websocket, self._carrier, sid, token, allows=allows, clock=clock
            )

        return await self._carry(self._gateway, request, answer)

    async def _received(self, request: web.Request) -> Webhook:
        """A request, once it is known to be the carrier's."""
        body = await request.read()
        # Reading the body first keeps its bytes for the signature; the form is read from them.
        form = [(name, v) for name, v in (await request.post()).items() if isinstance(v, str)]
        webhook = Webhook(request, self._gateway.url(request.path), body, form, self._now())
        self._carrier.require(webhook)
        return webhook

    async def _answer(self, webhook: Webhook, twiml: str) -> web.Response:
        call = self._carrier.call(webhook)
        sid = self._carrier.call_sid(call.id)
        what = steps(twiml)
        token = next((step.token for step in what if isinstance(step, Connect)), "")
        base = f"/wire/{self._carrier.name}"
        addresses = Addresses(
            webhook=self._gateway.url(base),
            forwarded=self._gateway.url(f"{base}/forwarded"),
            stream=websocket_url(self._gateway.url(""), f"{base}/stream/{sid}/{token}"),
        )
        answer = self._carrier.answer(what, addresses, call)
        if answer is None:
            logger.bind(call_sid=sid).warning("The carrier cannot be told what its call shall do")
            await self._gateway.reception.leave(sid, "refused")
            raise web.HTTPServiceUnavailable(text="the call is not answered\n")
        return answer
