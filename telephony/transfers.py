"""Cold transfers: the agent leaves the call, and Twilio connects the caller with somebody else.

Either the media stream's socket is closed, and Twilio asks ``/next`` what comes next, or the call
is sent to its new document by Twilio's REST API. The former asks nothing of the network, but where
several processes answer, they must share what is to be said (telephony.shared_switchboard).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.tools.call import PhoneError
from telephony import webhooks
from telephony.agents import Agent
from telephony.clock import Clock
from telephony.line import EndCause, PhoneLine
from telephony.rest import RestError, TwilioRest

_ASKED_SECONDS = 5.0
"""Twilio asks as soon as the socket is closed; after so long it is not waited for."""
_LOOK_SECONDS = 0.1


class Numbers(Protocol):
    """Whom calls are to be connected with; empty: nobody. A dict is one."""

    def __setitem__(self, call_sid: str, number: str, /) -> None:
        """Remember a call's number."""
        ...

    def __contains__(self, call_sid: object, /) -> bool:
        """Whether a call's number waits to be asked for."""
        ...

    def pop(self, call_sid: str, default: str, /) -> str:
        """Give a call's number, once."""
        ...


class Transfers:
    """The telephones of one gateway's calls."""

    def __init__(
        self,
        forwarded_url: Callable[[], str],
        clock: Clock,
        numbers: Numbers,
        rest: TwilioRest | None = None,
    ):
        """Begin with none.

        Args:
            forwarded_url: Tells what is asked when a call comes back from another number.
            clock: Tells for how long Twilio is waited for.
            numbers: Where numbers wait to be asked for.
            rest: Sends calls on; without it Twilio is told when it asks.
        """
        self.clock = clock
        self.numbers = numbers
        self.rest = rest
        self._forwarded_url = forwarded_url

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
        return LinePhone(line, self, line.can_transfer and self.are_asked_for(agent))

    def next_twiml(self, call_sid: str) -> str:
        """What a call does whose agent has left."""
        number = self.numbers.pop(call_sid, "")
        return self.dial(number) if number else webhooks.hang_up_twiml()

    def over(self, call_sid: str) -> None:
        """A call does nothing any more."""
        self.numbers.pop(call_sid, "")

    def dial(self, number: str) -> str:
        """TwiML that connects a caller with a number."""
        return webhooks.dial_twiml(number, self._forwarded_url())


class LinePhone:
    """The telephone of one call; an :class:`agent.tools.call.Phone`."""

    def __init__(self, line: PhoneLine, transfers: Transfers, asked: bool):
        """Serve a line.

        Args:
            line: The call's.
            transfers: The gateway's.
            asked: Twilio asks what the call does when the agent has left it.
        """
        self._transferred = False
        self._can_transfer = line.can_transfer
        self._start = line.start
        self._transfers = transfers
        self._asked = asked
        if asked:
            transfers.numbers[line.start.call_sid] = ""

    async def transfer(self, number: str) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Raises:
            PhoneError: Twilio refused, or the call came from another carrier.
        """
        if not self._can_transfer:
            raise PhoneError("calls of this carrier cannot be transferred")
        call_sid, rest = self._start.call_sid, self._transfers.rest
        if rest is None:
            self._transfers.numbers[call_sid] = number
        else:
            twiml = self._transfers.dial(number)
            try:
                await rest.execute(self._start.account_sid, call_sid, twiml)
            except RestError as error:
                raise PhoneError(str(error)) from error
        self._transferred = True

    def cause(self, cause: EndCause) -> EndCause:
        """Why the agent's part of the call ended, where the line ended so."""
        # Sent on by the REST API, a call leaves its stream as if the caller had hung up.
        left = cause in (EndCause.AGENT_HUNG_UP, EndCause.CALLER_HUNG_UP)
        return EndCause.TRANSFERRED if self._transferred and left else cause

    async def close(self, cause: EndCause | None) -> None:
        """Return when nothing more is asked about a call.

        Args:
            cause: Why its line ended.
        """
        if not self._asked:
            return
        call_sid, clock, numbers = (
            self._start.call_sid,
            self._transfers.clock,
            self._transfers.numbers,
        )
        try:
            if cause is EndCause.AGENT_HUNG_UP:
                until = clock.time() + _ASKED_SECONDS
                # Whichever process is asked, the number is gone then.
                while call_sid in numbers and clock.time() < until:
                    await clock.sleep(_LOOK_SECONDS)
        finally:
            self._transfers.over(call_sid)
