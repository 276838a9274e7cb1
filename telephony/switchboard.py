"""Which calls are let in: places, the queue for them, one-time tokens, drain.

A call takes its place at the voice webhook, which hands it a token; the socket that opens later
must bring the token back. A place whose socket never opens is free again after a while. Calls that
wait are let in in the order in which they came.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from telephony.clock import Clock

TOKEN_SECONDS = 30.0
"""So long a place is kept for a socket."""


class LineBusyError(Exception):
    """No further call can be taken now.

    Attributes:
        ahead: Calls that wait before it.
    """

    def __init__(self, ahead: int = 0):
        super().__init__("no line is free")
        self.ahead = ahead


@dataclass(frozen=True)
class _Expected:
    token: str
    until: float
    agent: str


@dataclass(frozen=True)
class _Waiting:
    agent: str
    most: int | None


class Switchboard:
    """The places of one gateway.

    Attributes:
        draining: no new calls are let in.
        documents: what calls do that their agent leaves (telephony.transfers).
    """

    shared = False
    """Whether a call's socket may come to another process than its webhook."""
    workers = 1
    """Processes that share it."""

    def __init__(self, limit: Callable[[], int], clock: Clock):
        """Open a switchboard.

        Args:
            limit: calls at once, those whose socket is awaited included.
            clock: tells when a token is too old.
        """
        self._limit = limit
        self._clock = clock
        self._expected: dict[str, _Expected] = {}
        self._live: dict[str, str] = {}
        # Insertion order is the order of the queue.
        self._waiting: dict[str, _Waiting] = {}
        self._changed = asyncio.Event()
        self.draining = False
        self.documents: dict[str, str] = {}

    @property
    def active(self) -> int:
        """Calls whose socket is open."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    def admit(
        self,
        call_sid: str,
        agent: str = "",
        most: int | None = None,
        *,
        wait: bool = False,
        seconds: float = TOKEN_SECONDS,
    ) -> str:
        """Keep a place for a call; returns the token its socket has to bring, once.

        A webhook that is repeated for a call replaces the call's token.

        Args:
            call_sid: the call.
            agent: who will answer it.
            most: that agent's calls at once; None: only the common limit counts.
            wait: queue the call if there is no place, or leave it in the queue.
            seconds: so long the place is kept for a socket.

        Raises:
            LineBusyError: if there is no place, or the gateway is shutting down.
        """
        now = self._clock.time()
        self._expected = {sid: e for sid, e in self._expected.items() if e.until > now}
        before = self._before(call_sid)
        others = len((self._expected.keys() | self._live.keys()) - {call_sid})
        of_agent = self.calls_of(agent, but=call_sid) + before[agent, most]
        full = others + self._claims(before) >= self._limit()
        full = full or (most is not None and of_agent >= most)
        # Who has a place keeps it, whoever waits.
        if self.draining or (full and call_sid not in self._expected):
            if wait and not self.draining:
                self._waiting.setdefault(call_sid, _Waiting(agent, most))
            raise LineBusyError(before.total())
        self._waiting.pop(call_sid, None)
        token = secrets.token_urlsafe(32)
        self._expected[call_sid] = _Expected(token, now + seconds, agent)
        return token

    def rename(self, key: str, call_sid: str) -> None:
        """Know a place that was kept under a key by its call."""
        expected = self._expected.pop(key, None)
        if expected is not None:
            self._expected[call_sid] = expected

    def connect(self, call_sid: str, token: str) -> bool:
        """Let a call's socket in; false if the token is not this call's, used, or too old."""
        expected = self._expected.get(call_sid)
        if (
            expected is None
            or expected.until <= self._clock.time()
            or call_sid in self._live
            or not secrets.compare_digest(expected.token.encode(), token.encode())
        ):
            return False
        del self._expected[call_sid]
        self._live[call_sid] = expected.agent
        return True

    def release(self, call_sid: str) -> None:
        """Free the place of a call, whether its socket had opened or not, or its place in line."""
        self._live.pop(call_sid, None)
        self.forget(call_sid)

    def forget(self, call_sid: str) -> None:
        """Free the place of a call whose socket has not opened, or its place in line."""
        self._expected.pop(call_sid, None)
        self._waiting.pop(call_sid, None)
        self._changed.set()

    def drain(self) -> None:
        """Let no new calls in, in whatever process."""
        self.draining = True

    def agent_of(self, call_sid: str) -> str:
        """Who answers a call whose socket is open."""
        return self._live[call_sid]

    def is_expected(self, call_sid: str) -> bool:
        """Whether a place is kept for a call whose socket has not opened."""
        return call_sid in self._expected

    def is_waiting(self, call_sid: str) -> bool:
        """Whether a call waits for a place."""
        return call_sid in self._waiting

    def calls_of(self, agent: str, but: str = "") -> int:
        """The places that an agent's calls have, one call aside."""
        expected = {sid: e.agent for sid, e in self._expected.items()}
        return sum(name == agent for sid, name in (expected | self._live).items() if sid != but)

    async def empty(self) -> None:
        """Return once no call has a place or waits for one."""
        while self._expected or self._live or self._waiting:
            self._changed.clear()
            await self._changed.wait()

    def _before(self, call_sid: str) -> Counter[tuple[str, int | None]]:
        """The calls that wait and came before this one, by their agents and those' limits."""
        before: Counter[tuple[str, int | None]] = Counter()
        for sid, waiting in self._waiting.items():
            if sid == call_sid:
                break
            before[waiting.agent, waiting.most] += 1
        return before

    def _claims(self, waiting: Counter[tuple[str, int | None]]) -> int:
        """The places that waiting calls could take; an agent at its own limit takes none."""
        return sum(
            calls if most is None else min(calls, max(0, most - self.calls_of(agent)))
            for (agent, most), calls in waiting.items()
        )
