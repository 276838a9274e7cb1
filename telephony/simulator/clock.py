"""The clock of calls that are compared with somebody else's records."""

import asyncio
import time


class UnixClock:
    """Unix time when made, steady from then on: a ``telephony.clock.Clock``.

    A correction of the system's time during a call would otherwise show up as jitter.
    """

    def __init__(self) -> None:
        self._epoch = time.time() - time.monotonic()

    def time(self) -> float:
        """Unix time in seconds, never going back."""
        return self._epoch + time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)
