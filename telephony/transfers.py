"""Cold transfers: the agent leaves the call, and Twilio connects the caller with somebody else.

Either the media stream's socket is closed, and Twilio asks ``/next`` what comes next, or the call
is sent to its new document by Twilio's REST API. The former asks nothing of the network, but the
answer must come from the process that had the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.tools.call import PhoneError
from telephony import webhooks
from telephony.agents import Agent
from telephony.clock import Clock
from telephony.line import EndCause, PhoneLine
from telephony.rest import RestError, TwilioRest

_ASKED_SECONDS = 5.0
"""Twilio asks as soon as the socket is closed; after so long it is not waited for."""


class Transfers:
    """The telephones of one gateway's calls."""

    def __init__(
        self, forwarded_url: Callable[[], str], clock: Clock, rest: TwilioRest | None = None
    ):
        """Begin with none.

        Args:
            forwarded_url: Tells what is asked when a call comes back from another number.
            clock: Tells for how long Twilio is waited for.
            rest: Sends calls on; without it Twilio is told when it asks.
        """
        self.clock = clock
        self.rest = rest
        self._forwarded_url = forwarded_url
        self._phones: dict[str, LinePhone] = {}

    def are_asked_for(self, agent: Agent) -> bool:
        """Whether Twilio is to ask what an agent's calls do when the agent has left them.

        Only where it might be told something: a call whose question finds nobody, because the
        gateway has stopped, ends with an announcement that something went wrong.
        """
        return self.rest is None and agent.may_transfer

    def connect(self, line: PhoneLine, agent: Agent) -> LinePhone:
        """The telephone of a call, until that is closed.

        Args:
            line: The call's.
            agent: Who answers it.
        """
        phone = LinePhone(line, self, self.are_asked_for(agent))
        self._phones[line.start.call_sid] = phone
        return phone

    def disconnect(self, call_sid: str) -> None:
        """A telephone is not needed any more."""
        self._phones.pop(call_sid, None)

    def next_twiml(self, call_sid: str) -> str:
        """What a call does whose agent has left."""
        phone = self._phones.get(call_sid)
        self.over(call_sid)
        if phone is None or phone.number is None:
            return webhooks.hang_up_twiml()
        return self.dial(phone.number)

    def over(self, call_sid: str) -> None:
        """A call knows what it does, or does nothing any more."""
        if call_sid in self._phones:
            self._phones[call_sid].answered.set()

    def dial(self, number: str) -> str:
        """TwiML that connects a caller with a number."""
        return webhooks.dial_twiml(number, self._forwarded_url())


class LinePhone:
    """The telephone of one call; an :class:`agent.tools.call.Phone`.

    Attributes:
        number: Whom the caller is to be connected with.
        answered: Set when Twilio knows what comes next.
    """

    def __init__(self, line: PhoneLine, transfers: Transfers, asked: bool):
        """Serve a line.

        Args:
            line: The call's.
            transfers: The gateway's.
            asked: Twilio asks what the call does when the agent has left it.
        """
        self.number: str | None = None
        self.answered = asyncio.Event()
        self._start = line.start
        self._transfers = transfers
        self._asked = asked

    async def transfer(self, number: str) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Raises:
            PhoneError: Twilio refused.
        """
        rest = self._transfers.rest
        if rest is not None:
            twiml = self._transfers.dial(number)
            try:
                await rest.execute(self._start.account_sid, self._start.call_sid, twiml)
            except RestError as error:
                raise PhoneError(str(error)) from error
        self.number = number

    def cause(self, cause: EndCause) -> EndCause:
        """Why the agent's part of the call ended, where the line ended so."""
        # Sent on by the REST API, a call leaves its stream as if the caller had hung up.
        left = cause in (EndCause.AGENT_HUNG_UP, EndCause.CALLER_HUNG_UP)
        return EndCause.TRANSFERRED if self.number is not None and left else cause

    async def close(self, cause: EndCause | None) -> None:
        """Return when nothing more is asked about a call.

        Args:
            cause: Why its line ended.
        """
        try:
            if self._asked and cause is EndCause.AGENT_HUNG_UP:
                await self._until_answered()
        finally:
            self._transfers.disconnect(self._start.call_sid)

    async def _until_answered(self) -> None:
        waits = {
            asyncio.ensure_future(self.answered.wait()),
            asyncio.ensure_future(self._transfers.clock.sleep(_ASKED_SECONDS)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
