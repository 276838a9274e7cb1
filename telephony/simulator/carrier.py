"""The loopback Twilio: calls a server of ours, and makes the calls that it asks for.

Signatures, form fields and error codes follow Twilio's references for voice webhooks, TwiML, Media
Streams and the REST API (``rest.py`` serves that).
"""

import asyncio
from types import TracebackType

import aiohttp

from telephony.clock import Clock
from telephony.simulator.agent_http import AgentHttp
from telephony.simulator.callee import Callee, Person, PhoneBook
from telephony.simulator.dialling import Dialling
from telephony.simulator.execution import Execution
from telephony.simulator.live_call import Fetch, LiveCall
from telephony.simulator.network import Network
from telephony.simulator.outbound import CallRequest, OutboundCall
from telephony.simulator.stream import MediaStreams, Streams
from telephony.simulator.target import Target, new_sid
from telephony.simulator.trace import CallTrace
from telephony.simulator.verbs import Callback


class LoopbackTwilio:
    """Places calls, as many at once as are asked for. An async context manager.

    Attributes:
        target: Whom it calls.
        clock: Its time.
        calls: Every call, in the order in which they were made, by its identifier.
        callees: Who answers which number, or which conference; may be changed at any time.
        everybody_else: Who answers the other numbers.
    """

    def __init__(
        self,
        target: Target,
        clock: Clock,
        phone_book: PhoneBook | None = None,
        streams: Streams | None = None,
    ) -> None:
        """Prepare to call a server.

        Args:
            target: Whom to call.
            clock: Tells the time and waits; paces the media.
            phone_book: Who answers the calls that the agent makes; by default everybody does, and
                says nothing.
            streams: Opens the calls' media streams.
        """
        self._streams = streams or MediaStreams()
        book = phone_book or PhoneBook()
        self.target = target
        self.clock = clock
        self.calls: dict[str, LiveCall] = {}
        self.callees: dict[str, Callee] = dict(book.numbers)
        self.everybody_else = book.everybody_else
        self._session: aiohttp.ClientSession | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "LoopbackTwilio":
        # Without a limit: the usual one would keep the hundred-and-first call from its WebSocket.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        outcomes = await asyncio.gather(*self._running, return_exceptions=True)
        await self._open_session.close()
        self._session = None
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def callee(self, number: str) -> Callee:
        """Who answers a number, or a conference of this name."""
        return self.callees.get(number, self.everybody_else)

    def new_call(self) -> CallTrace:
        """A call that has not been placed yet; its identifier is already known."""
        return CallTrace(call_sid=new_sid("CA"), dialled_at=self.clock.time())

    async def place(
        self,
        call: CallTrace,
        caller: Person,
        from_: str,
        to: str,
        network: Network | None = None,
    ) -> None:
        """Call the agent and stay until the call is over.

        What goes wrong on the way is part of the trace and raises nothing.

        Args:
            call: From ``new_call``; receives everything that happens.
            caller: Who speaks and listens.
            from_: The caller's number.
            to: The number called.
            network: What the network does to the call.
        """
        call.dialled_at = self.clock.time()
        call.status = "ringing"
        live = self._live(call, "inbound", from_, to, network or Network())
        if self.target.status_url is not None:
            live.status_callback = Callback(self.target.status_url)
        execution = self._execution(live, caller)
        await live.lead(execution.run(Fetch(self.target.voice_url)))

    def dial(self, request: CallRequest) -> LiveCall:
        """Make a call that the agent asked for; it runs by itself, no longer than this Twilio.

        Raises:
            ValueError: The scenario of who is called cannot be used.
        """
        callee = self.callee(request.to)
        person = callee.person()
        trace = self.new_call()
        live = self._live(trace, "outbound-api", request.from_, request.to, callee.network)
        live.status_callback = request.status_callback
        execution = self._execution(live, person)
        story = OutboundCall(live, request, callee, execution).run()
        task = asyncio.create_task(live.lead(story))
        self._running.add(task)
        return live

    async def ended(self, call_sid: str) -> CallTrace:
        """Wait until a call has ended; what happened in it."""
        live = self.calls[call_sid]
        await live.over.wait()
        return live.trace

    def _live(
        self, trace: CallTrace, direction: str, from_: str, to: str, network: Network
    ) -> LiveCall:
        http = AgentHttp(self.target, self._open_session)
        account, clock = self.target.account_sid, self.clock
        live = LiveCall(trace, account, direction, from_, to, clock, http.tell, network)
        self._register(live)
        return live

    def _register(self, call: LiveCall) -> None:
        self.calls[call.sid] = call

    def _execution(self, live: LiveCall, person: Person) -> Execution:
        session = self._open_session
        http = AgentHttp(self.target, session)
        dialling = Dialling(self.callee, self._register)
        return Execution(live, person, self.target, http, session, dialling, self._streams)

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("LoopbackTwilio is used outside of 'async with'")
        return self._session
