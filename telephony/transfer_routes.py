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

from telephony.transfers import Transfers

SignedForm = Callable[[web.Request], Awaitable[Mapping[str, str]]]
"""The fields of a form that Twilio signed; refuses others."""
_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


def add_transfer_routes(app: web.Application, transfers: Transfers, signed: SignedForm) -> None:
    """Let Twilio ask.

    Args:
        app: The gateway.
        transfers: Its transfers.
        signed: Reads what Twilio sends.
    """

    async def next_(request: web.Request) -> web.Response:
        form = await signed(request)
        return _twiml(transfers.next_twiml(form.get("CallSid", "")))

    async def ready(request: web.Request) -> web.Response:
        await signed(request)
        return _twiml(transfers.ready(request.match_info["key"]))

    async def status(request: web.Request) -> web.Response:
        told = (await signed(request)).get("CallStatus", "")
        if told in _OVER:
            transfers.over(request.match_info["key"], told)
        return web.Response(status=204)

    async def recording(request: web.Request) -> web.Response:
        form = await signed(request)
        logger.bind(
            call_sid=form.get("CallSid"),
            recording_sid=form.get("RecordingSid"),
            status=form.get("RecordingStatus"),
        ).info("Twilio's recording of a call has ended")
        return web.Response(status=204)

    app.router.add_post("/next", next_)
    app.router.add_post("/transfer/{key}/ready", ready)
    app.router.add_post("/transfer/{key}/status", status)
    app.router.add_post("/recording", recording)


def _twiml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml")
