"""What Twilio asks and tells about transfers, and about its recordings.

POST /next                   what shall a call do that the agent has left
POST /transfer/{key}/ready   somebody has been told about a caller and waits
POST /transfer/{key}/status  how their call goes
POST /recording              Twilio's recording of a call has ended
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from loguru import logger

from agent.events import JSON
from telephony import webhooks
from telephony.transfers import Transfers

SignedForm = Callable[[web.Request], Awaitable[Mapping[str, str]]]
"""The fields of a form that Twilio signed; refuses others."""

Note = Callable[..., bool]
"""Adds an event to a call's record: its SID, the name, the fields; false: no call of ours."""


def add_transfer_routes(
    app: web.Application, transfers: Transfers, note: Note, signed: SignedForm
) -> None:
    """Let Twilio ask.

    Args:
        app: The gateway.
        transfers: Its transfers.
        note: Adds to the record of a call that may have ended.
        signed: Reads what Twilio sends.
    """

    async def next_(request: web.Request) -> web.Response:
        form = await signed(request)
        return webhooks.twiml_response(transfers.next_twiml(form.get("CallSid", "")))

    async def ready(request: web.Request) -> web.Response:
        await signed(request)
        return webhooks.twiml_response(transfers.ready(request.match_info["key"]))

    async def status(request: web.Request) -> web.Response:
        told = (await signed(request)).get("CallStatus", "")
        if told in webhooks.CALL_OVER:
            transfers.over(request.match_info["key"], told)
        return web.Response(status=204)

    async def recording(request: web.Request) -> web.Response:
        form = await signed(request)
        ended: dict[str, JSON] = {
            "recording_sid": form.get("RecordingSid"),
            "url": form.get("RecordingUrl"),
            "seconds": float(form.get("RecordingDuration") or 0),
        }
        call_sid = form.get("CallSid", "")
        if not note(call_sid, "recording_ended", **ended):
            logger.bind(call_sid=call_sid, **ended).warning("A recording of no call of ours")
        return web.Response(status=204)

    app.router.add_post("/next", next_)
    app.router.add_post("/transfer/{key}/ready", ready)
    app.router.add_post("/transfer/{key}/status", status)
    app.router.add_post("/recording", recording)
