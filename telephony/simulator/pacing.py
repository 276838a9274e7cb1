"""One timer for the ticks of all callers of a process, and how late each of them came.

Every caller of a load run has a tick every 20 ms, at its own moment. With a timer and a task for
each, a busy event loop would wake callers in any order, and waking them would cost more than what
they do. Here they stand in one queue by the time at which they are due and are called one after the
other; nobody waits behind one that is due later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from array import array
from collections.abc import Callable

import numpy as np

from telephony.clock import Clock
from telephony.simulator.load_report import Percentiles

Tick = Callable[[], float | None]
"""Lives through one tick; when the next one is due, in seconds of the clock, or None."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_CLOSE_ENOUGH = 0.0005
"""What is due so soon is not waited for again: each turn of the event loop costs several ticks."""
_LONGEST_SLEEP = 0.002
_IN_A_ROW = 16
"""Ticks that are due together before what has arrived meanwhile is read."""


class Pacer:
    """Calls whoever is due, each when it is due.

    Attributes:
        lateness: Milliseconds by which every tick came late: the tool's own doing.
    """

    def __init__(self, clock: Clock) -> None:
        """Prepare; nobody is called before ``run``.

        Args:
            clock: Tells the time and waits.
        """
        self._clock = clock
        self._order = itertools.count()
        self._places = itertools.count()
        self._waiting: list[tuple[float, int, Tick]] = []
        self._anybody = asyncio.Event()
        self.lateness = array("f")

    def join(self, due: float, tick: Tick) -> None:
        """Have a tick called when it is due, and again when it says, until it says None.

        Args:
            due: In seconds of the clock.
            tick: Must not raise: that would end the ticks of everybody.
        """
        heapq.heappush(self._waiting, (due, next(self._order), tick))
        self._anybody.set()

    def place(self, period: float) -> float:
        """When one more who ticks in this period, in seconds, should begin: in the coming period.

        Those who call at regular intervals, or all at once, would otherwise be due together. By the
        golden ratio any number of them stands about evenly.
        """
        now = self._clock.time()
        return now + (next(self._places) * _GOLDEN * period - now) % period

    async def run(self) -> None:
        """Call whoever is due, until cancelled."""
        time = self._clock.time
        while True:
            while not self._waiting:
                self._anybody.clear()
                await self._anybody.wait()
            wait = self._waiting[0][0] - time()
            if wait > _CLOSE_ENOUGH:
                # No longer than this: somebody may come who is due sooner. And a little too long:
                # whoever is due soon after the next one is called in the same turn.
                await self._clock.sleep(min(wait + _CLOSE_ENOUGH, _LONGEST_SLEEP))
                continue
            for _ in range(_IN_A_ROW):
                due, order, tick = self._waiting[0]
                now = time()
                if due - now > _CLOSE_ENOUGH:
                    break
                self.lateness.append(1000 * (now - due) if now > due else 0.0)
                following = tick()
                if following is not None:
                    heapq.heapreplace(self._waiting, (following, order, tick))
                    continue
                heapq.heappop(self._waiting)
                if not self._waiting:
                    break
            else:
                await asyncio.sleep(0)

    def percentiles(self, since: int = 0) -> Percentiles | None:
        """How late ticks came, in milliseconds; None if there were none.

        Args:
            since: So many of the first ticks are left out.
        """
        return Percentiles.of(np.frombuffer(self.lateness, np.float32)[since:])
