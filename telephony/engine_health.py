"""Whether the engine can answer a call, asked for often and found out seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from loguru import logger

from telephony.clock import Clock

_FRESH_SECONDS = 1.0


class EngineHealth:
    """Asks the engine, once for all who want to know at the same time.

    The question is an inference through every model; a load balancer that polls must not cost more
    than a caller.
    """

    def __init__(self, ready: Callable[[], Awaitable[None]], clock: Clock, patience: float = 3.0):
        """Watch an engine.

        Args:
            ready: returns if the engine can answer a call, raises if it cannot.
            clock: tells how old an answer is.
            patience: seconds after which the engine counts as unreachable.
        """
        self._ready = ready
        self._clock = clock
        self._patience = patience
        self._asking = asyncio.Lock()
        self._asked = float("-inf")
        self._reachable = False

    async def reachable(self) -> bool:
        """Whether the engine could answer a call within the last second."""
        async with self._asking:
            if self._clock.time() - self._asked >= _FRESH_SECONDS:
                self._reachable = await self._ask()
                self._asked = self._clock.time()
            return self._reachable

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                await self._ready()
        except Exception as error:
            logger.bind(error=f"{type(error).__name__}: {error}").error("Engine is not reachable")
            return False
        return True
