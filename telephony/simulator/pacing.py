"""One timer for the ticks of all callers of a process, and how late each of them came.

Every caller of a load run has a tick every 20 ms, at its own moment. With a timer for each, a busy
event loop would wake callers in any order; here they stand in one queue by the time at which they
are due, and a caller that is waited for is never behind one that is due later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from array import array

import numpy as np

from telephony.clock import Clock
from telephony.simulator.load_report import Percentiles

_CLOSE_ENOUGH = 0.0005
"""The event loop wakes by whole milliseconds: what is due so soon is not waited for again."""
_LONGEST_SLEEP = 0.002


class Pacer:
    """Wakes whoever waits, each when it is due.

    Attributes:
        lateness: Milliseconds by which every tick came late, for no fault of the server's.
    """

    def __init__(self, clock: Clock) -> None:
        """Prepare; nothing is woken before ``run``.

        Args:
            clock: Tells the time and waits.
        """
        self._clock = clock
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._anybody = asyncio.Event()
        self.lateness = array("f")

    async def until(self, due: float, *, held_until: float = 0.0) -> None:
        """Wait for a moment; let the others have their turn, if it has passed.

        Args:
            due: In seconds of the clock.
            held_until: Until then whoever waits was kept from it by the server: that is not counted
                as lateness of the tool.
        """
        if due > self._clock.time():
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (due, next(self._order), woken))
            self._anybody.set()
            await woken
        else:
            await asyncio.sleep(0)
        # Also what passes between the wake-up call and this line is the tool's.
        self.lateness.append(1000 * max(0.0, self._clock.time() - max(due, held_until)))

    async def run(self) -> None:
        """Wake whoever is due, until cancelled."""
        while True:
            while not self._waiting:
                self._anybody.clear()
                await self._anybody.wait()
            due = self._waiting[0][0]
            wait = due - self._clock.time()
            if wait > _CLOSE_ENOUGH:
                # No longer than this: somebody may come who is due sooner.
                await self._clock.sleep(min(wait, _LONGEST_SLEEP))
                continue
            now = max(due, self._clock.time())
            while self._waiting and self._waiting[0][0] <= now:
                woken = heapq.heappop(self._waiting)[2]
                if not woken.done():
                    woken.set_result(None)
            await asyncio.sleep(0)

    def percentiles(self) -> Percentiles | None:
        """How late ticks came, in milliseconds; None if there were none."""
        return Percentiles.of(np.frombuffer(self.lateness, np.float32))
