"""Calls over HTTP: what operators ask for, and what Twilio asks and tells about them.

    POST /calls                    make a call (JSON: to, and agent, time_zone, variables)
    GET  /calls/{sid}              how it goes; ?wait=SECONDS answers when it is over, or then
    POST /do-not-call              never call a number again (JSON: number, and agent)
    POST /outbound/{key}/answered  somebody answered
    POST /outbound/{key}/detected  whether it was a machine
    POST /outbound/{key}/status    how the call goes

The former three need the operators' token, the others Twilio's signature.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from pydantic import Field, ValidationError

from agent.phone_number import PhoneNumber
from agent.section import Section
from telephony.operators import operators_only
from telephony.outbound.call_list import Entry
from telephony.outbound.dialler import Dialler, DialRefusedError
from telephony.server import GATEWAY, signed_form
from telephony.webhooks import twiml_response

_STATUS = {
    "invalid": 400,
    "do_not_call": 403,
    "outside_hours": 409,
    "carrier": 502,
    "busy": 503,
    "engine": 503,
}
_LONGEST_WAIT = 60.0


class CallOrder(Section):
    """A call to make.

    Attributes:
        to: Whom to call.
        agent: Who calls; may be left out where only one calls people.
        time_zone: Whose clocks tell whether they may be called; None: the agent's.
        variables: For what the agent says.
    """

    to: PhoneNumber
    agent: str | None = None
    time_zone: str | None = None
    variables: Mapping[str, str] = Field(default_factory=dict)


class Unwanted(Section):
    """A number that is never to be called again.

    Attributes:
        number: The number.
        agent: Whose list it belongs on; may be left out where only one calls people.
    """

    number: PhoneNumber
    agent: str | None = None


def add_outbound_routes(
    app: web.Application, account_sid: str, token: str, now: Callable[[], float] = time.time
) -> None:
    """Let operators make calls.

    Args:
        app: The gateway.
        account_sid: The account that makes the calls.
        token: The operators'.
        now: Tells Unix time, by which people may be called.
    """
    gateway = app[GATEWAY]
    dialler = Dialler(gateway, account_sid, now)

    async def call(request: web.Request) -> web.Response:
        order = CallOrder.model_validate(await _json(request))
        entry = Entry(0, order.to, order.agent, order.time_zone, dict(order.variables))
        made = await dialler.dial(entry)
        return web.json_response(made.shown(), status=201)

    async def look(request: web.Request) -> web.Response:
        made = dialler.calls.get(request.match_info["sid"])
        if made is None:
            return _problem(404, "unknown", "no such call")
        try:
            seconds = min(_LONGEST_WAIT, float(request.query.get("wait", "0")))
        except ValueError:
            return _problem(400, "invalid", "wait: expected seconds")
        if seconds > 0 and not made.over.is_set():
            waits = [
                asyncio.ensure_future(made.over.wait()),
                asyncio.ensure_future(gateway.clock.sleep(seconds)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return web.json_response(made.shown())

    async def unwanted(request: web.Request) -> web.Response:
        asked = Unwanted.model_validate(await _json(request))
        listed = dialler.do_not_call(asked.agent)
        if listed is None:
            return _problem(400, "invalid", "outbound.do_not_call: the agent has no list")
        try:
            await asyncio.to_thread(listed.add, asked.number)
        except ValueError as error:
            return _problem(500, "failed", str(error))
        return web.Response(status=204)

    async def answered(request: web.Request) -> web.Response:
        form = await signed_form(request)
        key, by = request.match_info["key"], form.get("AnsweredBy", "")
        return twiml_response(await dialler.answered(key, form.get("CallSid", ""), by))

    async def detected(request: web.Request) -> web.Response:
        form = await signed_form(request)
        await dialler.detected(request.match_info["key"], form.get("AnsweredBy", ""))
        return web.Response(status=204)

    async def status(request: web.Request) -> web.Response:
        await dialler.progressed(request.match_info["key"], await signed_form(request))
        return web.Response(status=204)

    app.router.add_post("/calls", operators_only(token, _explained(call)))
    app.router.add_get("/calls/{sid}", operators_only(token, look))
    app.router.add_post("/do-not-call", operators_only(token, _explained(unwanted)))
    app.router.add_post("/outbound/{key}/answered", answered)
    app.router.add_post("/outbound/{key}/detected", detected)
    app.router.add_post("/outbound/{key}/status", status)


def _explained(handler: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
    """A handler whose refusals say why."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except DialRefusedError as error:
            return _problem(_STATUS[error.reason], error.reason, str(error))
        except ValidationError as error:
            told = error.errors(include_url=False, include_input=False, include_context=False)
            places = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in told)
            return _problem(400, "invalid", "; ".join(places))

    return handle


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.text())
    except ValueError:
        raise DialRefusedError("invalid", "expected a JSON object") from None


def _problem(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"error": reason, "message": message}, status=status)
