"""Calls that the gateway ends: at their time limit, because nobody speaks, or because it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from loguru import logger

from telephony.agents import Agent
from telephony.clock import Clock
from telephony.line import EndCause, PhoneLine
from telephony.records import CallRecorder
from telephony.shared_switchboard import SharedSwitchboard
from telephony.switchboard import Switchboard
from telephony.telephone import Telephone

_GOODBYE_SECONDS = 20.0
"""For an agent's last words, and for the phone to play them."""


@dataclass
class Live:
    """A call whose socket is open.

    Attributes:
        line: its socket.
        agent_name: who answers it.
        agent: how.
        since: when it began, in seconds of the gateway's clock.
        ending: as in :class:`PhoneCall`.
        notices: as in :class:`PhoneCall`.
        recorder: its record, once it is open.
        task: runs it.
        telephone: what else it has, once it runs.
        ended_by: why it ended, where the line does not know.
    """

    line: PhoneLine
    agent_name: str
    agent: Agent
    since: float
    ending: asyncio.Future[str]
    recorder: CallRecorder | None
    task: asyncio.Task[None] | None
    notices: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    telephone: Telephone | None = None
    ended_by: EndCause | None = None

    def cause(self) -> EndCause:
        """Why it ended, once it has."""
        if self.telephone is not None:
            self.telephone.close()
        cause = self.ended_by or self.line.cause or EndCause.SHUTDOWN
        return cause if self.telephone is None else self.telephone.cause(cause)

    def warn(self, left: float) -> None:
        """Have the agent say in the next gap that the call ends in so many seconds."""
        if self.recorder is not None:
            self.recorder.event("time_warning", seconds=left)
        self.notices.put_nowait(
            self.agent.turn_taking.time_warning or self.agent.sentences.time_warning
        )

    def give_up(self) -> None:
        """Have the agent end the call because nobody answers it."""
        if not self.ending.done():
            self.ended_by = EndCause.SILENCE
            words = self.agent.turn_taking.silence_goodbye or self.agent.sentences.silence_goodbye
            self._end("silence", words)

    def say_goodbye(self, reason: str) -> None:
        """Have the agent say its last words and hang up; the record says why."""
        if not self.ending.done():
            self._end(reason, self.agent.goodbye or self.agent.sentences.goodbye)

    def _end(self, reason: str, words: str) -> None:
        if self.recorder is not None:
            self.recorder.event("goodbye", reason=reason)
        self.ending.set_result(words)


async def end_in_time(live: Live, clock: Clock) -> None:
    """End a call that lasts longer than its agent may talk: with a goodbye, then in any case."""
    limits = live.agent.limits
    left = limits.call_secs
    if left is not None:
        if limits.warning_secs is not None and left > limits.warning_secs:
            await clock.sleep(left - limits.warning_secs)
            left = limits.warning_secs
            live.warn(left)
        await clock.sleep(left)
        live.say_goodbye("time_limit")
        live.ended_by = EndCause.TIME_LIMIT
        await clock.sleep(_GOODBYE_SECONDS)
        await live.line.hang_up(EndCause.AGENT_HUNG_UP)


async def drained(
    switchboard: Switchboard | SharedSwitchboard,
    calls: Mapping[str, Live],
    clock: Clock,
    seconds: float,
) -> None:
    """Take no more calls and let those that run come to their end.

    Args:
        switchboard: Takes the calls.
        calls: Those that run.
        clock: Tells how long that takes.
        seconds: After that the agents say goodbye.

    Returns:
        When no call is left, or the time for the goodbyes is over.
    """
    switchboard.draining = True
    logger.bind(calls=switchboard.active).info("Draining: no more calls are taken")
    if await _empty_within(switchboard, clock, seconds):
        return
    for live in calls.values():
        live.say_goodbye("drain")
    await _empty_within(switchboard, clock, _GOODBYE_SECONDS)


async def _empty_within(
    switchboard: Switchboard | SharedSwitchboard, clock: Clock, seconds: float
) -> bool:
    empty = asyncio.ensure_future(switchboard.empty())
    waits = {empty, asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return empty.done()
    finally:
        for wait in waits:
            wait.cancel()
