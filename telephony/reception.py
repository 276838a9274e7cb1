"""What becomes of a call at the voice webhook: answered, kept waiting, sent elsewhere, refused.

A call that is let in is prepared at once, so that its agent can speak as soon as its socket opens.
Whatever is held for a call that never comes is freed after a while, as is a place in the queue that
nobody asks about any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from loguru import logger

from agent.events import JSON
from telephony import webhooks
from telephony.agents import Agent, Agents
from telephony.clock import Clock
from telephony.engine_health import EngineHealth
from telephony.media_streams import Start
from telephony.records import CallRecorder, CallRecords
from telephony.sentences import ENGLISH
from telephony.shared_switchboard import SharedSwitchboard
from telephony.switchboard import TOKEN_SECONDS, LineBusyError, Switchboard
from telephony.transfers import Transfers

_PAUSE_SECONDS = 5
"""How often a waiting call asks again."""
_REPEAT_SECONDS = 30.0
"""How often it hears why."""
_FORGET_SECONDS = 60.0
"""A waiting call that has not asked for so long is gone."""
_MOST_SENT_ON = 1000
_ANSWERED = frozenset({"completed", "answered"})


class Prepared(Protocol):
    """What was begun for a call before its socket opened."""

    async def close(self) -> None:
        """Free it; may be called again."""
        ...


PrepareCall = Callable[[Agent], Prepared | None]
"""Begins what can be begun for a call of an agent."""


@dataclass
class Arrival:
    """A call whose socket has not opened.

    Attributes:
        agent_name: Who answers it.
        agent: As its settings were when the call came.
        arrived: When that was, in seconds of the gateway's clock.
        caller: The number that calls.
        called: The number that is called.
        waited: It had to wait for its place.
        told: When it last heard that it has to wait.
        recorder: Its record, where there was something to write.
        prepared: What was begun for it.
        watch: Forgets it in time.
    """

    agent_name: str
    agent: Agent
    arrived: float
    caller: str = ""
    called: str = ""
    account_sid: str = ""
    waited: bool = False
    told: float | None = None
    recorder: CallRecorder | None = None
    prepared: Prepared | None = None
    watch: asyncio.Task[None] | None = None


class Reception:
    """Receives calls.

    Attributes:
        agents: Who answers which number; another one counts for calls that come later.
    """

    def __init__(
        self,
        agents: Agents,
        switchboard: Switchboard | SharedSwitchboard,
        engine: EngineHealth,
        records: CallRecords,
        clock: Clock,
        *,
        transfers: Transfers,
        now: Callable[[], float],
        url: Callable[[str], str],
        prepare: PrepareCall,
    ):
        """Open a reception.

        Args:
            agents: Who answers which number.
            switchboard: Has the places.
            engine: Tells whether calls can be answered.
            records: Where calls are recorded.
            clock: Tells how long calls have waited.
            transfers: Knows whether Twilio is to ask what follows an agent.
            now: Tells Unix time, by which agents have their hours.
            url: The public address of a path.
            prepare: Begins what can be begun for a call.
        """
        self.agents = agents
        self._switchboard = switchboard
        self._engine = engine
        self._records = records
        self._clock = clock
        self._transfers = transfers
        self._now = now
        self._url = url
        self._prepare = prepare
        self._arrivals: dict[str, Arrival] = {}
        self._sent_on: dict[str, CallRecorder] = {}

    async def receive(
        self, call_sid: str, called: str, caller: str = "", account_sid: str = ""
    ) -> str:
        """Decide what a call does next.

        Args:
            call_sid: The call.
            called: The number that it called.
            caller: The number that calls.
            account_sid: The account that was called.

        Returns:
            TwiML.
        """
        arrival = self._arrivals.get(call_sid)
        if arrival is None:
            name = self.agents.answering(called)
            agent = Agent() if name is None else self.agents[name]
            arrival = Arrival(name or "", agent, self._clock.time(), caller, called, account_sid)
            if name is None:
                self._write(call_sid, arrival, "call_refused", "refused", reason="no_agent")
                return webhooks.refusal_twiml(ENGLISH.nobody, "en-US")
            if agent.hours is not None and not agent.hours.is_open(self._moment()):
                outside = agent.outside
                if outside.then != "agent" or outside.agent is None:
                    onward = outside.number if outside.then == "forward" else None
                    return await self._turn_away(call_sid, arrival, "closed", outside.say, onward)
                arrival.agent_name, arrival.agent = outside.agent, self.agents[outside.agent]
            if not self._switchboard.shared:
                # Else whichever process has the socket begins it.
                self._recorder(call_sid, arrival)
        return await self._admit(call_sid, arrival)

    async def made(self, call_sid: str, arrival: Arrival) -> str:
        """Decide what a call does next that was made from here, and has been answered.

        Args:
            call_sid: The call.
            arrival: Who made it.

        Returns:
            TwiML.
        """
        return await self._admit(call_sid, self._arrivals.get(call_sid, arrival))

    async def leave(self, call_sid: str, cause: str) -> None:
        """Forget a call whose socket has not opened and will not."""
        arrival = self._arrivals.pop(call_sid, None)
        self._switchboard.forget(call_sid)
        self._sent_on.pop(call_sid, None)
        if arrival is None:
            return
        self._unwatch(arrival)
        recorder = self._recorder(call_sid, arrival)
        if recorder is not None:
            recorder.close(cause)
        if arrival.prepared is not None:
            await arrival.prepared.close()

    def connect(self, call_sid: str, token: str) -> Arrival | None:
        """The call whose socket has opened and brought a token; None if it is not let in."""
        if not self._switchboard.connect(call_sid, token):
            return None
        arrival = self._arrivals.pop(call_sid, None)
        if arrival is None:
            # Another process has answered its webhook.
            name = self._switchboard.agent_of(call_sid)
            return Arrival(name, self.agents[name], self._clock.time())
        self._unwatch(arrival)
        return arrival

    def forwarded(self, call_sid: str, called: str, status: str) -> str:
        """A call comes back from another number.

        Args:
            call_sid: The call.
            called: The number that it called.
            status: How that went, Twilio's DialCallStatus.

        Returns:
            TwiML.
        """
        if status in _ANSWERED:
            return webhooks.hang_up_twiml()
        logger.bind(call_sid=call_sid, status=status).warning("A call was forwarded in vain")
        record = self._sent_on.pop(call_sid, None)
        if record is not None:
            record.afterwards("forward_failed", status=status)
        else:
            # Another process has sent it on.
            arrival = Arrival("", Agent(), self._clock.time(), called=called)
            self._write(call_sid, arrival, "forward_failed", "refused", status=status)
        sorry = self._transfers.in_vain_twiml(call_sid)
        if sorry:
            return sorry
        name = self.agents.answering(called)
        agent = Agent() if name is None else self.agents[name]
        return webhooks.refusal_twiml(agent.sentences.apology, agent.language)

    def record_of(self, start: Start, arrival: Arrival) -> CallRecorder:
        """The record of a call whose socket has opened.

        Raises:
            ValueError: There can be none.
        """
        if arrival.recorder is None:
            for name in ("caller", "called"):
                setattr(arrival, name, getattr(arrival, name) or start.parameters.get(name, ""))
            arrival.account_sid = start.account_sid
            arrival.recorder = self._open(start.call_sid, arrival)
        return arrival.recorder

    def sent_on(self, call_sid: str, record: CallRecorder) -> None:
        """Remember the record of a call that somebody else is to have; it may come back."""
        self._sent_on[call_sid] = record
        while len(self._sent_on) > _MOST_SENT_ON:
            del self._sent_on[next(iter(self._sent_on))]

    async def close(self) -> None:
        """Forget all calls whose socket has not opened."""
        for call_sid in list(self._arrivals):
            await self.leave(call_sid, "shutdown")

    # ---- a call finds a place, or not

    async def _admit(self, call_sid: str, arrival: Arrival) -> str:
        agent, busy = arrival.agent, arrival.agent.busy
        patience = arrival.arrived + busy.longest_wait_secs - self._clock.time()
        try:
            token = self._switchboard.admit(
                call_sid,
                arrival.agent_name,
                agent.limits.calls,
                wait=busy.then == "wait" and patience > 0,
            )
        except LineBusyError as error:
            if patience > 0 and self._switchboard.is_waiting(call_sid):
                return self._wait(call_sid, arrival, error.ahead)
            reason = "draining" if self._switchboard.draining else "busy"
            # Who has waited long enough has heard the message often enough.
            say = busy.say if busy.then != "wait" else None
            onward = busy.number if busy.then != "refuse" else None
            return await self._turn_away(call_sid, arrival, reason, say, onward)
        if not self._switchboard.shared:
            # Before anything else can happen: the webhook may be repeated. Where the socket may
            # come to another process, nothing is begun for it here, and nothing to be freed.
            self._watch(call_sid, arrival, TOKEN_SECONDS, "never_connected")
        if not await self._engine.reachable():
            return await self._turn_away(call_sid, arrival, "engine", None, busy.number)
        if not self._switchboard.is_expected(call_sid):
            # The caller hung up meanwhile.
            return webhooks.hang_up_twiml()
        if arrival.prepared is None and not self._switchboard.shared:
            arrival.prepared = self._prepare(agent)
        sounds = agent.phone.recording
        return webhooks.connect_twiml(
            webhooks.websocket_url(self._url(""), "/media"),
            {
                webhooks.TOKEN_PARAMETER: token,
                "caller": arrival.caller,
                "called": arrival.called,
            },
            status_url=self._url("/status"),
            next_url=self._url("/next") if self._transfers.are_asked_for(agent) else None,
            consent=sounds.consent if sounds is not None else None,
            language=agent.language,
        )

    def _wait(self, call_sid: str, arrival: Arrival, ahead: int) -> str:
        if not arrival.waited:
            arrival.waited = True
            self._event(call_sid, arrival, "call_waiting", agent=arrival.agent_name, ahead=ahead)
        now, sentence = self._clock.time(), None
        if arrival.told is None or now - arrival.told >= _REPEAT_SECONDS:
            arrival.told = now
            sentence = arrival.agent.busy.say or arrival.agent.sentences.wait
        self._watch(call_sid, arrival, _FORGET_SECONDS, "caller_hung_up")
        language = arrival.agent.language
        return webhooks.wait_twiml(sentence, language, _PAUSE_SECONDS, self._url("/voice"))

    async def _turn_away(
        self, call_sid: str, arrival: Arrival, reason: str, say: str | None, number: str | None
    ) -> str:
        """Send a call to another number, or refuse it; nothing of it stays."""
        self._arrivals.pop(call_sid, None)
        self._switchboard.forget(call_sid)
        self._unwatch(arrival)
        if arrival.prepared is not None:
            await arrival.prepared.close()
        fields: dict[str, JSON] = {"agent": arrival.agent_name, "reason": reason}
        if arrival.waited:
            fields["waited"] = self._clock.time() - arrival.arrived
        sentences, language = arrival.agent.sentences, arrival.agent.language
        logger.bind(call_sid=call_sid, reason=reason, forwarded=number is not None).warning(
            "Call not answered"
        )
        if number is not None:
            self._write(call_sid, arrival, "call_forwarded", "forwarded", **fields)
            if arrival.recorder is not None:
                self.sent_on(call_sid, arrival.recorder)
            return webhooks.dial_twiml(
                number,
                self._url("/forwarded"),
                sentence=say or sentences.forward,
                language=language,
            )
        self._write(call_sid, arrival, "call_refused", "refused", **fields)
        ours = {"closed": sentences.closed, "engine": sentences.apology}
        return webhooks.refusal_twiml(say or ours.get(reason, sentences.busy), language)

    # ---- what is held for a call

    def _watch(self, call_sid: str, arrival: Arrival, seconds: float, cause: str) -> None:
        self._arrivals[call_sid] = arrival
        self._unwatch(arrival)

        async def forget() -> None:
            await self._clock.sleep(seconds)
            arrival.watch = None
            await self.leave(call_sid, cause)

        arrival.watch = asyncio.create_task(forget())

    def _unwatch(self, arrival: Arrival) -> None:
        if arrival.watch is not None:
            arrival.watch.cancel()
            arrival.watch = None

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    # ---- the record

    def _open(self, call_sid: str, arrival: Arrival) -> CallRecorder:
        return self._records.open(
            call_sid,
            caller=arrival.caller or None,
            called=arrival.called or None,
            account_sid=arrival.account_sid or None,
            agent=arrival.agent_name or None,
            redaction=arrival.agent.redaction,
        )

    def _recorder(self, call_sid: str, arrival: Arrival) -> CallRecorder | None:
        """The record of a call; None, and a word in the log, where it cannot be kept."""
        if arrival.recorder is None:
            try:
                arrival.recorder = self._open(call_sid, arrival)
            except ValueError as error:
                logger.bind(error=str(error)).error("A call cannot be recorded")
        return arrival.recorder

    def _event(self, call_sid: str, arrival: Arrival, name: str, **fields: Any) -> None:
        recorder = self._recorder(call_sid, arrival)
        if recorder is not None:
            recorder.event(name, **fields)

    def _write(self, call_sid: str, arrival: Arrival, name: str, cause: str, **fields: Any) -> None:
        """Record the one thing that happened to a call, and its end."""
        self._event(call_sid, arrival, name, **fields)
        if arrival.recorder is not None:
            arrival.recorder.close(cause)
