"""What operators may ask of a running gateway, with a token of their own.

    GET  /operator/status  calls, places, and what the engine can carry
    POST /operator/drain   take no more calls; the process goes on

The token comes as ``Authorization: Bearer ...``. Without one in the settings nobody is let in.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from telephony.server import Gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_operator_routes(app: web.Application, gateway: Gateway, token: str | None) -> None:
    """Let operators in.

    Args:
        app: What serves the gateway.
        gateway: What they ask about.
        token: What their requests have to bring; None lets nobody in.
    """
    if token is None:
        return

    async def status(request: web.Request) -> web.Response:
        return web.json_response(_status(gateway))

    async def drain(request: web.Request) -> web.Response:
        gateway.switchboard.draining = True
        return web.Response(status=204)

    app.router.add_get("/operator/status", operators_only(token, status))
    app.router.add_post("/operator/drain", operators_only(token, drain))


def operators_only(token: str, handler: Handler) -> Handler:
    """A handler that answers 401 to whoever does not bring the token."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        known = secrets.compare_digest(given.strip().encode(), token.encode())
        if kind.lower() != "bearer" or not known:
            raise web.HTTPUnauthorized(
                text="expected the operators' token\n", headers={"WWW-Authenticate": "Bearer"}
            )
        return await handler(request)

    return guarded


def _status(gateway: Gateway) -> dict[str, object]:
    switchboard, now = gateway.switchboard, gateway.clock.time()
    return {
        "places": gateway.capacity.limit(),
        "engine_carries": gateway.capacity.carries,
        "active_calls": switchboard.active,
        "waiting_calls": switchboard.waiting,
        "draining": switchboard.draining,
        "agents": {
            name: {"calls": switchboard.calls_of(name)} for name in gateway.reception.agents
        },
        "calls": [
            {"call_sid": sid, "agent": live.agent_name, "seconds": now - live.since}
            for sid, live in gateway.live.items()
        ],
    }
