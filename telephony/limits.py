"""What one sender may ask of the gateway: messages of a stream, connections of an address."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from loguru import logger

from telephony.clock import Clock

_BURST_SECONDS = 10.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MessageRate:
    """A stream's allowance of messages, which fills up as time passes (a token bucket)."""

    def __init__(self, per_second: float, clock: Clock):
        """Begin with a full allowance.

        Args:
            per_second: Messages on average; those of ten seconds may come at once.
            clock: Tells the time.
        """
        self._per_second = per_second
        self._most = per_second * _BURST_SECONDS
        self._left = self._most
        self._clock = clock
        self._at = clock.time()

    def allows(self) -> bool:
        """Whether one more message may come now; counts it."""
        now = self._clock.time()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Addresses:
    """Counts what each address has open that is no call yet; a call counts as such."""

    def __init__(self, most: int, trusted_proxies: Sequence[str]):
        """Know the limits.

        Args:
            most: Requests at once from one address.
            trusted_proxies: Addresses and networks whose ``X-Forwarded-For`` is believed.
        """
        self._most = most
        self._trusted = [ipaddress.ip_network(one) for one in trusted_proxies]
        self._open: Counter[str] = Counter()
        # By identity; each is here no longer than it is handled.
        self._calls: set[int] = set()

    @web.middleware
    async def limit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 429 where an address has too much open."""
        address = self.address(request)
        if self._open[address] >= self._most:
            logger.warning("An address has too many connections open")
            raise web.HTTPTooManyRequests(text="too many connections from this address\n")
        self._open[address] += 1
        try:
            return await handler(request)
        finally:
            if id(request) in self._calls:
                self._calls.remove(id(request))
            else:
                self._close(address)

    def is_call(self, request: web.Request) -> None:
        """A request has become a call, whose number is limited otherwise."""
        self._calls.add(id(request))
        self._close(self.address(request))

    def address(self, request: web.Request) -> str:
        """Where a request comes from: the first address, from here, that is no trusted proxy."""
        address = request.remote or ""
        before = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for earlier in reversed([one.strip() for one in before if one.strip()]):
            if not self._is_trusted(address):
                break
            address = earlier
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _close(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
