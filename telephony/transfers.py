"""Cold transfers: the agent leaves the call, and Twilio connects the caller with somebody else.

Either the media stream's socket is closed, and Twilio asks ``/next`` what comes next, or the call
is sent to its new document by Twilio's REST API. The former asks nothing of the network, but the
answer must come from the process that had the call.
"""

from agent.tools.call import PhoneError
from telephony import webhooks
from telephony.line import EndCause, PhoneLine
from telephony.rest import RestError, TwilioRest


class Transfers:
    """Whom the calls of one gateway are to be connected with."""

    def __init__(self, rest: TwilioRest | None = None):
        """Begin with none.

        Args:
            rest: Sends calls on; without it Twilio is told when it asks.
        """
        self._rest = rest
        self._numbers: dict[str, str] = {}

    async def ask(self, account_sid: str, call_sid: str, number: str) -> None:
        """Have a caller connected with a number.

        Raises:
            PhoneError: Twilio refused.
        """
        if self._rest is None:
            self._numbers[call_sid] = number
            return
        try:
            await self._rest.execute(account_sid, call_sid, webhooks.dial_twiml(number))
        except RestError as error:
            raise PhoneError(str(error)) from error

    def next_twiml(self, call_sid: str) -> str:
        """What a call does whose agent has left."""
        number = self._numbers.pop(call_sid, None)
        return webhooks.hang_up_twiml() if number is None else webhooks.dial_twiml(number)

    def forget(self, call_sid: str) -> None:
        """A call is over."""
        self._numbers.pop(call_sid, None)


class LinePhone:
    """The telephone of one call; an :class:`agent.tools.call.Phone`.

    Attributes:
        transferred_to: The number with which the caller is to be connected, if with any.
    """

    def __init__(self, line: PhoneLine, transfers: Transfers):
        """Serve a line.

        Args:
            line: The call's.
            transfers: The gateway's.
        """
        self.transferred_to: str | None = None
        self._start = line.start
        self._transfers = transfers

    async def transfer(self, number: str) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Raises:
            PhoneError: Twilio refused.
        """
        await self._transfers.ask(self._start.account_sid, self._start.call_sid, number)
        self.transferred_to = number

    def cause(self, cause: EndCause) -> EndCause:
        """Why the agent's part of the call ended, where the line ended so."""
        # Sent on by the REST API, a call leaves its stream as if the caller had hung up.
        left = cause in (EndCause.AGENT_HUNG_UP, EndCause.CALLER_HUNG_UP)
        return EndCause.TRANSFERRED if self.transferred_to is not None and left else cause
