"""Works through a list of calls: at a pace, so many at once, and again where nobody answered."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from telephony.clock import Clock
from telephony.outbound.call_list import Entry, Result, Results


class NotNow(Exception):
    """A call could not be made just then; it is no attempt.

    Attributes:
        seconds: After which it may be tried again.
    """

    def __init__(self, reason: str, seconds: float):
        super().__init__(reason)
        self.seconds = seconds


PlaceCall = Callable[[Entry], Awaitable[Result]]
"""Makes one call and waits for its end; raises :class:`NotNow`."""


@dataclass(frozen=True)
class Plan:
    """How to work through a list.

    Attributes:
        per_minute: Calls begun in a minute, at most.
        at_once: Calls at the same time, at most.
        retries: By outcome, the seconds to wait before each further attempt. The number of earlier
            attempts, whatever came of them, says which; where there is none, that was the last.
    """

    per_minute: float = 10.0
    at_once: int = 1
    retries: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def next_wait(self, outcomes: Sequence[str]) -> float | None:
        """Seconds until the next attempt after these; None: there is none."""
        if not outcomes:
            return 0.0
        waits = self.retries.get(outcomes[-1], ())
        return waits[len(outcomes) - 1] if len(outcomes) <= len(waits) else None


class Campaign:
    """One list that is being worked through."""

    def __init__(
        self,
        entries: Sequence[Entry],
        plan: Plan,
        place: PlaceCall,
        results: Results,
        clock: Clock,
        now: Callable[[], float],
        progress: Callable[[str], None],
    ):
        """Prepare a list.

        Args:
            entries: Whom to call.
            plan: How.
            place: Makes a call.
            results: Keeps what became of it; who has had all attempts in there is not called.
            clock: Paces the calls.
            now: Tells Unix time, for the results.
            progress: Told what happens, as lines for a person.
        """
        self._plan = plan
        self._place = place
        self._results = results
        self._clock = clock
        self._now = now
        self._progress = progress
        self._due: list[tuple[float, int, Entry]] = []
        self._begun = float("-inf")
        self._running: set[asyncio.Task[None]] = set()
        self._problem: BaseException | None = None
        for entry in entries:
            if plan.next_wait(results.outcomes(entry)) is not None:
                heapq.heappush(self._due, (clock.time(), entry.row, entry))

    async def run(self) -> None:
        """Call everybody; when this is cancelled, calls that run are left alone.

        Raises:
            OSError: The results cannot be written.
        """
        try:
            while self._due or self._running:
                await self._step()
                if self._problem is not None:
                    raise self._problem
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _step(self) -> None:
        wait = None
        if self._due and len(self._running) < self._plan.at_once:
            begin = max(self._due[0][0], self._begun + 60 / self._plan.per_minute)
            wait = begin - self._clock.time()
            if wait <= 0:
                _, _, entry = heapq.heappop(self._due)
                self._begun = self._clock.time()
                task = asyncio.create_task(self._call(entry))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                return
        waits: set[asyncio.Future[None]] = set(self._running)
        pause = None if wait is None else asyncio.ensure_future(self._clock.sleep(wait))
        if pause is not None:
            waits.add(pause)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if pause is not None:
                pause.cancel()

    async def _call(self, entry: Entry) -> None:
        try:
            result = await self._place(entry)
            at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
            self._results.add(entry, result, at)
            outcomes = self._results.outcomes(entry)
            wait = self._plan.next_wait(outcomes)
            again = "" if wait is None else f", again in {wait:.0f} s"
            self._progress(f"row {entry.row}: {result.outcome}{again}")
        except NotNow as error:
            wait = error.seconds
            self._progress(f"row {entry.row}: not now, {error}")
        except Exception as error:
            self._problem = error
            return
        if wait is not None:
            heapq.heappush(self._due, (self._clock.time() + wait, entry.row, entry))
