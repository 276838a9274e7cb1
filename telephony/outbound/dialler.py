"""Makes calls, one at a time or many: who may be called, what a machine is told, how it went."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template
from zoneinfo import ZoneInfo

from loguru import logger

from agent.events import JSON
from telephony import webhooks
from telephony.agents import Agent
from telephony.line import EndCause
from telephony.outbound.call_list import Entry
from telephony.outbound.do_not_call import DoNotCall
from telephony.outbound.settings import OutboundSettings
from telephony.reception import Arrival
from telephony.records import CallRecorder
from telephony.rest import Detection, NewCall, RestError
from telephony.server import Gateway, call_over
from telephony.switchboard import LineBusyError

_SPARE_SECONDS = 90.0
"""Beyond the ringing, for detection and for Twilio to ask: so long a place is kept."""
_KEPT = 10_000
"""Calls that are over and can still be asked about."""


class DialRefusedError(Exception):
    """A call is not made.

    Attributes:
        reason: ``do_not_call``, ``outside_hours``, ``busy``, ``engine``, ``invalid`` or
            ``carrier``.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass
class Dialled:
    """A call that was made from here.

    Attributes:
        key: By which Twilio's requests about it are known.
        agent_name: Who makes it.
        agent: As its settings were then, with the call's variables in what it says.
        to: Whom it calls.
        sid: Twilio's identifier, once there is one.
        status: Twilio's CallStatus.
        outcome: As :class:`telephony.outbound.call_list.Result` has it; None before it is over.
        answered_by: What machine detection found.
        seconds: How long the call was.
        over: Set when it is.
        recorder: Its record, while the dialler writes it.
    """

    key: str
    agent_name: str
    agent: Agent
    to: str
    sid: str | None = None
    status: str = "queued"
    outcome: str | None = None
    answered_by: str = ""
    seconds: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    recorder: CallRecorder | None = None

    @property
    def how(self) -> OutboundSettings:
        """How its agent calls people."""
        assert self.agent.outbound is not None
        return self.agent.outbound

    def shown(self) -> dict[str, JSON]:
        """What whoever asked for it may know."""
        return {
            "call_sid": self.sid,
            "to": self.to,
            "agent": self.agent_name,
            "status": self.status,
            "outcome": self.outcome,
            "answered_by": self.answered_by,
            "seconds": self.seconds,
        }


class Dialler:
    """Makes the calls of one gateway.

    Attributes:
        calls: Those that were made lately, by Twilio's identifier.
    """

    def __init__(self, gateway: Gateway, account_sid: str, now: Callable[[], float]):
        """Make no call yet.

        Args:
            gateway: Answers them.
            account_sid: The account that makes them.
            now: Tells Unix time, by which people may be called.
        """
        self.calls: dict[str, Dialled] = {}
        self._gateway = gateway
        self._account_sid = account_sid
        self._now = now
        self._by_key: dict[str, Dialled] = {}

    def do_not_call(self, name: str | None) -> DoNotCall | None:
        """The list that an agent keeps to; None if it has none.

        Raises:
            DialRefusedError: There is no such agent, or it calls nobody.
        """
        path = self._how(self._agent_name(name)).do_not_call
        return None if path is None else DoNotCall(path)

    async def dial(self, entry: Entry) -> Dialled:
        """Make a call.

        Raises:
            DialRefusedError: It is not made.
        """
        name = self._agent_name(entry.agent)
        how = self._how(name)
        self._require_allowed(how, entry)
        agent = with_variables(self._gateway.reception.agents[name], entry.variables)
        if not await self._gateway.engine.reachable():
            raise DialRefusedError("engine", "the engine is not reachable")
        call = Dialled(secrets.token_urlsafe(16), name, agent, entry.to)
        ring = how.ring_secs
        try:
            self._gateway.switchboard.admit(
                call.key, name, agent.limits.calls, seconds=ring + _SPARE_SECONDS
            )
        except LineBusyError:
            raise DialRefusedError("busy", "no line is free") from None
        self._by_key[call.key] = call
        try:
            sid = await self._gateway.rest.create(self._account_sid, self._order(call))
        except RestError as error:
            self._gateway.switchboard.release(call.key)
            del self._by_key[call.key]
            raise DialRefusedError("carrier", str(error)) from error
        self._is(call, sid)
        return call

    # ---- what Twilio asks and tells

    async def answered(self, key: str, call_sid: str, answered_by: str) -> str:
        """Somebody answered: what the call does.

        Args:
            key: The call's.
            call_sid: Twilio's identifier of it.
            answered_by: What detection found, where the call waited for it.

        Returns:
            TwiML.
        """
        call = self._by_key.get(key)
        if call is None or call.over.is_set():
            return webhooks.hang_up_twiml()
        self._is(call, call_sid)
        if answered_by:
            self._detected(call, answered_by)
        if _is_machine(answered_by):
            self._gateway.switchboard.release(key)
            return self._message(call, answered_by)
        arrival = Arrival(
            call.agent_name,
            call.agent,
            self._gateway.clock.time(),
            caller=call.how.caller_id,
            called=call.to,
            recorder=call.recorder,
        )
        call.recorder = None
        self._gateway.switchboard.rename(key, call_sid)
        return await self._gateway.reception.made(call_sid, arrival)

    async def detected(self, key: str, answered_by: str) -> None:
        """Detection has come to its end beside the call."""
        call = self._by_key.get(key)
        if call is None or call.sid is None or call.over.is_set():
            return
        self._detected(call, answered_by)
        if not _is_machine(answered_by):
            return
        live = self._gateway.live.get(call.sid)
        if live is not None:
            live.ended_by = EndCause.AGENT_HUNG_UP
        try:
            message = self._message(call, answered_by)
            await self._gateway.rest.execute(self._account_sid, call.sid, message)
        except RestError as error:
            # It may have ended by itself.
            logger.bind(call_sid=call.sid, code=error.code).warning("A machine could not be left")
            call.outcome = None
            if live is not None:
                live.ended_by = None

    async def progressed(self, key: str, form: Mapping[str, str]) -> None:
        """A call has got on, or has ended.

        Args:
            key: The call's.
            form: What Twilio tells.
        """
        call = self._by_key.get(key)
        if call is None:
            return
        call_sid = form.get("CallSid", "")
        self._is(call, call_sid)
        call.status = form.get("CallStatus", call.status)
        if call.status not in webhooks.CALL_OVER:
            return
        self._gateway.switchboard.release(key)
        await call_over(self._gateway, call_sid)
        call.seconds = int(form.get("CallDuration") or 0)
        call.outcome = call.outcome or ("answered" if call.status == "completed" else call.status)
        if call.recorder is not None:
            if call.status != "completed":
                call.recorder.event("call_not_answered", status=call.status)
            ended_here = call.status == "completed"
            call.recorder.close(EndCause.AGENT_HUNG_UP if ended_here else EndCause.NOT_ANSWERED)
            call.recorder = None
        del self._by_key[key]
        call.over.set()

    # ---- inside

    def _agent_name(self, name: str | None) -> str:
        agents = self._gateway.reception.agents
        calling = [one for one in agents if agents[one].outbound is not None]
        if name is None and len(calling) == 1:
            return calling[0]
        if name not in calling:
            known = ", ".join(calling) or "none"
            raise DialRefusedError("invalid", f"agent: expected one that calls people ({known})")
        return name

    def _how(self, name: str) -> OutboundSettings:
        how = self._gateway.reception.agents[name].outbound
        assert how is not None
        return how

    def _require_allowed(self, how: OutboundSettings, entry: Entry) -> None:
        if how.do_not_call is not None:
            try:
                listed = entry.to in DoNotCall(how.do_not_call)
            except ValueError as error:
                # Who may be on a list that cannot be read is not called.
                raise DialRefusedError("invalid", str(error)) from error
            if listed:
                raise DialRefusedError("do_not_call", "the number is not to be called")
        hours = how.hours
        if entry.time_zone is not None:
            try:
                ZoneInfo(entry.time_zone)
            except (ValueError, OSError, KeyError):
                message = "time_zone: expected one such as Europe/Berlin"
                raise DialRefusedError("invalid", message) from None
            hours = hours.model_copy(update={"time_zone": entry.time_zone})
        if not hours.is_open(datetime.fromtimestamp(self._now(), UTC)):
            raise DialRefusedError("outside_hours", "nobody is called at this time")

    def _order(self, call: Dialled) -> NewCall:
        how, url = call.how, self._gateway.url
        detection = None
        if how.detection != "off":
            beside = how.detection == "meanwhile"
            detection = Detection(
                message_end=how.voicemail is not None,
                callback=url(f"/outbound/{call.key}/detected") if beside else None,
            )
        return NewCall(
            call.to,
            how.caller_id,
            url=url(f"/outbound/{call.key}/answered"),
            status_callback=url(f"/outbound/{call.key}/status"),
            ring_secs=how.ring_secs,
            time_limit=how.call_secs,
            detection=detection,
        )

    def _is(self, call: Dialled, sid: str) -> None:
        """Learn a call's identifier, from whoever tells it first."""
        if call.sid is not None or not sid:
            return
        call.sid = sid
        self.calls[sid] = call
        while len(self.calls) > _KEPT:
            del self.calls[next(iter(self.calls))]
        try:
            call.recorder = self._gateway.records.open(
                sid,
                caller=call.how.caller_id,
                called=call.to,
                account_sid=self._account_sid,
                direction="outbound",
                agent=call.agent_name,
                redaction=call.agent.redaction,
            )
            call.recorder.event("call_dialled", call_sid=sid, agent=call.agent_name)
        except ValueError as error:
            logger.bind(error=str(error)).error("A call cannot be recorded")

    def _detected(self, call: Dialled, answered_by: str) -> None:
        call.answered_by = answered_by
        live = self._gateway.live.get(call.sid or "")
        recorder = call.recorder or (None if live is None else live.recorder)
        if recorder is not None:
            recorder.event("answered_by", answered_by=answered_by)

    def _message(self, call: Dialled, answered_by: str) -> str:
        """What a machine is told."""
        voicemail = call.how.voicemail
        if voicemail is None or not answered_by.startswith("machine_end"):
            call.outcome = "machine"
            return webhooks.hang_up_twiml()
        call.outcome = "voicemail"
        if voicemail.play is not None:
            return webhooks.play_twiml(voicemail.play)
        return webhooks.refusal_twiml(voicemail.say or "", call.agent.language)


def with_variables(agent: Agent, variables: Mapping[str, str]) -> Agent:
    """An agent whose words for one call are filled in: ``$name`` or ``${name}``.

    Args:
        agent: Whose greeting, instructions and voicemail have variables.
        variables: Their values; others stay as they are written.
    """

    def filled(text: str | None) -> str | None:
        return None if text is None else Template(text).safe_substitute(variables)

    outbound = agent.outbound
    if outbound is not None and outbound.voicemail is not None:
        said = outbound.voicemail.model_copy(update={"say": filled(outbound.voicemail.say)})
        outbound = outbound.model_copy(update={"voicemail": said})
    return agent.model_copy(
        update={
            "greeting": filled(agent.greeting),
            "greeting_text": filled(agent.greeting_text),
            "instructions": filled(agent.instructions),
            "outbound": outbound,
        }
    )


def _is_machine(answered_by: str) -> bool:
    return answered_by.startswith("machine") or answered_by == "fax"
