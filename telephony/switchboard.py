"""Which calls are let in: capacity, one-time tokens, drain.

A call takes its place at the voice webhook, which hands it a token; the socket that opens later
must bring the token back. A place whose socket never opens is free again after a while.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from telephony.clock import Clock

_TOKEN_SECONDS = 30.0


class LineBusyError(Exception):
    """No further call can be taken now."""


@dataclass(frozen=True)
class _Expected:
    token: str
    until: float


class Switchboard:
    """The places of one gateway.

    Attributes:
        draining: no new calls are let in.
    """

    def __init__(self, max_calls: int, clock: Clock):
        """Open a switchboard.

        Args:
            max_calls: calls at once, those whose socket is awaited included.
            clock: tells when a token is too old.
        """
        self._max_calls = max_calls
        self._clock = clock
        self._expected: dict[str, _Expected] = {}
        self._live: set[str] = set()
        self.draining = False

    @property
    def active(self) -> int:
        """Calls whose socket is open."""
        return len(self._live)

    def admit(self, call_sid: str) -> str:
        """Keep a place for a call; returns the token its socket has to bring, once.

        A webhook that is repeated for a call replaces the call's token.

        Raises:
            LineBusyError: if there is no place, or the gateway is shutting down.
        """
        now = self._clock.time()
        self._expected = {sid: e for sid, e in self._expected.items() if e.until > now}
        others = (self._expected.keys() | self._live) - {call_sid}
        if self.draining or len(others) >= self._max_calls:
            raise LineBusyError
        token = secrets.token_urlsafe(32)
        self._expected[call_sid] = _Expected(token, now + _TOKEN_SECONDS)
        return token

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
        self._live.add(call_sid)
        return True

    def is_expected(self, call_sid: str) -> bool:
        """Whether a place is kept for a call whose socket has not opened."""
        expected = self._expected.get(call_sid)
        return expected is not None and expected.until > self._clock.time()

    def release(self, call_sid: str) -> None:
        """Free the place of a call, whether its socket had opened or not."""
        self._expected.pop(call_sid, None)
        self._live.discard(call_sid)
