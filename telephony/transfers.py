"""Transfers: the agent leaves the call, and the caller is connected with somebody else.

Cold: either the media stream's socket is closed, and Twilio asks ``/next`` what comes next, or the
call is sent to its new document by Twilio's REST API. The former asks nothing of the network, but
where several processes answer, they must share what is to be said
(telephony.shared_switchboard).

Warm: a call with a media stream cannot be in a conference at the same time, so the agent stays with
the caller while the other side is called, told what it is about, and put into a conference; then
the caller follows, and the agent is gone. Until then it can all be called off.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from loguru import logger

from agent.tools.call import PhoneError
from telephony import webhooks
from telephony.agents import Agent
from telephony.clock import Clock
from telephony.line import EndCause
from telephony.rest import NewCall, RestError, TwilioRest

_ASKED_SECONDS = 5.0
"""Twilio asks as soon as the socket is closed; after so long it is not waited for."""
_LOOK_SECONDS = 0.1
_BRIEFING_SECONDS = 60.0
"""Beyond the ringing, for what is said to whoever answers."""


class Documents(Protocol):
    """What calls do that their agent leaves, as TwiML; empty: nothing. A dict is one."""

    def __setitem__(self, call_sid: str, twiml: str, /) -> None:
        """Remember a call's document."""
        ...

    def __contains__(self, call_sid: object, /) -> bool:
        """Whether a call's document waits to be asked for."""
        ...

    def pop(self, call_sid: str, default: str, /) -> str:
        """Give a call's document, once."""
        ...


@dataclass
class _Ringing:
    """Somebody who is called for a caller.

    Attributes:
        account_sid: Whose call it is.
        conference: Where the two meet.
        there: Whether they came; set once that is known, with what went wrong if they did not.
        sid: Their call, once it has been made.
    """

    account_sid: str
    conference: str
    there: asyncio.Future[str | None]
    sid: str | None = None


class Transfers:
    """Whom the calls of one gateway are to be connected with."""

    def __init__(
        self,
        rest: TwilioRest,
        url: Callable[[str], str],
        clock: Clock,
        documents: Documents,
        by: Literal["twiml", "rest"] = "twiml",
    ):
        """Begin with none.

        Args:
            rest: Twilio's REST API.
            url: The public address of a path.
            clock: Tells for how long Twilio is waited for.
            documents: Where documents wait to be asked for.
            by: Have Twilio ask, or send calls on by the REST API.
        """
        self._rest = rest
        self._url = url
        self._clock = clock
        self._documents = documents
        self._by_rest = by == "rest"
        self._ringing: dict[str, _Ringing] = {}
        self._met: dict[str, _Ringing] = {}
        self._hanging_up: set[asyncio.Task[None]] = set()

    def are_asked_for(self, agent: Agent) -> bool:
        """Whether Twilio is to ask what an agent's calls do when the agent has left them.

        Only where it might be told something: a call whose question finds nobody, because the
        gateway has stopped, ends with an announcement that something went wrong.
        """
        return agent.may_transfer and not self._by_rest

    def expect_question(self, call_sid: str) -> None:
        """Twilio will ask about a call when its agent leaves it."""
        self._documents[call_sid] = ""

    async def settled(self, call_sid: str, cause: EndCause | None) -> None:
        """Return when nothing more is asked about a call.

        Args:
            call_sid: The call.
            cause: Why its line ended.
        """
        try:
            if cause is EndCause.AGENT_HUNG_UP:
                until = self._clock.time() + _ASKED_SECONDS
                # Whichever process is asked, the document is gone then.
                while call_sid in self._documents and self._clock.time() < until:
                    await self._clock.sleep(_LOOK_SECONDS)
        finally:
            self._documents.pop(call_sid, "")

    async def _send_on(self, account_sid: str, call_sid: str, twiml: str) -> None:
        """Have a call execute a document when the agent leaves it.

        Raises:
            PhoneError: Twilio refused.
        """
        if not self._by_rest:
            self._documents[call_sid] = twiml
            return
        try:
            await self._rest.execute(account_sid, call_sid, twiml)
        except RestError as error:
            raise PhoneError(str(error)) from error

    async def cold(
        self,
        account_sid: str,
        call_sid: str,
        number: str,
        caller_id: str | None,
        ring_secs: int,
        sorry: tuple[str, str],
    ) -> None:
        """Have a caller connected with a number.

        Args:
            account_sid: The account it belongs to.
            call_sid: The call.
            number: Whom to call.
            caller_id: The number that is shown; None: the caller's.
            ring_secs: So long it rings.
            sorry: Said to the caller if nobody answers, and in which language.

        Raises:
            PhoneError: Twilio refused.
        """
        action = self._url("/forwarded")
        document = webhooks.dial_twiml(number, action, caller_id=caller_id, ring_secs=ring_secs)
        self._documents[_in_vain(call_sid)] = webhooks.refusal_twiml(*sorry)
        await self._send_on(account_sid, call_sid, document)

    async def warm(
        self,
        account_sid: str,
        call_sid: str,
        number: str,
        caller_id: str,
        ring_secs: int,
        summary: tuple[str, str],
        ended: asyncio.Event,
    ) -> None:
        """Call somebody, tell them what it is about, and have the caller follow into a conference.

        Args:
            account_sid: The account of both calls.
            call_sid: The caller's.
            number: Whom to call.
            caller_id: The number that is shown.
            ring_secs: So long it rings.
            summary: What whoever answers is told, and in which language.
            ended: Set when the caller has gone.

        Raises:
            PhoneError: Twilio refused, nobody answered or stayed, or the caller has gone.
        """
        key = secrets.token_urlsafe(16)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        ringing = self._ringing[key] = _Ringing(account_sid, f"transfer-{key}", future)
        gone = asyncio.ensure_future(ended.wait())
        try:
            call = NewCall(
                number,
                caller_id,
                twiml=webhooks.brief_twiml(*summary, self._url(f"/transfer/{key}/ready")),
                status_callback=self._url(f"/transfer/{key}/status"),
                ring_secs=ring_secs,
            )
            ringing.sid = await self._rest.create(account_sid, call)
            waits: set[asyncio.Future[Any]] = {ringing.there, gone}
            await asyncio.wait(
                waits,
                timeout=ring_secs + _BRIEFING_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not ringing.there.done():
                raise PhoneError("the caller hung up" if gone.done() else "nobody came")
            problem = ringing.there.result()
            if problem is not None:
                raise PhoneError(problem)
            document = webhooks.conference_twiml(ringing.conference, self._url("/forwarded"))
            await self._send_on(account_sid, call_sid, document)
            self._met[call_sid] = ringing
        except RestError as error:
            raise PhoneError(str(error)) from error
        finally:
            gone.cancel()
            del self._ringing[key]
            if call_sid not in self._met:
                self._call_off(ringing)

    # ---- what Twilio asks and tells

    def next_twiml(self, call_sid: str) -> str:
        """What a call does whose agent has left."""
        return self._documents.pop(call_sid, "") or webhooks.hang_up_twiml()

    def in_vain_twiml(self, call_sid: str) -> str:
        """What a call does that was sent on in vain; empty if it was not sent on from here."""
        return self._documents.pop(_in_vain(call_sid), "")

    def ready(self, key: str) -> str:
        """Somebody who was called knows what it is about: they wait for the caller."""
        ringing = self._ringing.get(key)
        if ringing is None or ringing.there.done():
            return webhooks.hang_up_twiml()
        ringing.there.set_result(None)
        return webhooks.conference_twiml(ringing.conference)

    def over(self, key: str, status: str) -> None:
        """The call of somebody is over before the caller came."""
        ringing = self._ringing.get(key)
        if ringing is not None:
            ringing.sid = None
            if not ringing.there.done():
                said_no = {"busy": "busy", "no-answer": "nobody answers", "completed": "hung up"}
                ringing.there.set_result(said_no.get(status, status))

    def forget(self, call_sid: str) -> None:
        """A call is over; whoever waits for the caller waits in vain."""
        self._documents.pop(call_sid, "")
        self._documents.pop(_in_vain(call_sid), "")
        met = self._met.pop(call_sid, None)
        if met is not None:
            self._call_off(met)

    def _call_off(self, ringing: _Ringing) -> None:
        if ringing.sid is None:
            return

        async def end(sid: str) -> None:
            try:
                await self._rest.end(ringing.account_sid, sid)
            except RestError as error:
                # It may have ended by itself.
                logger.bind(code=error.code).debug("A call could not be called off")

        task = asyncio.create_task(end(ringing.sid))
        self._hanging_up.add(task)
        task.add_done_callback(self._hanging_up.discard)


def _in_vain(call_sid: str) -> str:
    """Under which a call's document waits for the case that nobody answers."""
    return f"{call_sid} in vain"
