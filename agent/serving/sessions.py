"""State by session that dies when its session has not been heard of for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SessionTable(Generic[T]):
    """A dict keyed by session whose entries have a time to live.

    Every access to an entry starts its time anew. Expired entries go whenever the table is used.

    Args:
        ttl_seconds: Time to live.
        clock: Seconds from any zero point that never run backwards.
    """

    def __init__(self, ttl_seconds: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl_seconds
        self._clock = clock
        # Least recently used first, so that expiring looks at the expired entries alone.
        self._entries: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        self.expire()
        return len(self._entries)

    def obtain(self, session: str, make: Callable[[], T]) -> T:
        """The session's state, made when there is none."""
        self.expire()
        entry = self._entries.pop(session, None)
        state = make() if entry is None else entry[1]
        self._entries[session] = (self._clock(), state)
        return state

    def drop(self, session: str) -> None:
        """Forget a session; one that is not known is fine."""
        self._entries.pop(session, None)

    def expire(self) -> None:
        """Forget the sessions whose time is over."""
        now = self._clock()
        while self._entries:
            session, (used, _) = next(iter(self._entries.items()))
            if now - used <= self._ttl:
                return
            del self._entries[session]
