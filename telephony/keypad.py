"""Keys that the caller presses, put together to what the caller typed.

An entry ends with the terminator, at its greatest length, or when no key has come for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import Field, model_validator

from agent.section import Section
from telephony.clock import Clock

_KEYS = frozenset("0123456789*#ABCD")


class KeypadSettings(Section):
    """How keys become entries.

    Attributes:
        gap_secs: An entry ends when so long no key has come.
        terminator: The key that ends an entry and does not belong to it; None: no key does.
        longest: An entry ends with so many keys.
        interrupts: The agent falls silent at the first key.
        secret: The model is told only how many keys there were; tools still get them.
    """

    gap_secs: float = Field(default=3.0, gt=0)
    terminator: str | None = Field(default="#", min_length=1, max_length=1)
    longest: int = Field(default=32, ge=1, le=64)
    interrupts: bool = True
    secret: bool = False

    @model_validator(mode="after")
    def _a_key(self) -> KeypadSettings:
        if self.terminator is not None and self.terminator not in _KEYS:
            raise ValueError(f"terminator: expected one of 0-9 * # A-D, got {self.terminator!r}")
        return self


@dataclass(frozen=True)
class Entry:
    """What the caller typed.

    Attributes:
        digits: The keys, the terminator left out. A terminator by itself is an entry of that key.
        secret: The model is not to be told which.
    """

    digits: str
    secret: bool

    @property
    def told(self) -> str:
        """What the model is told."""
        if self.secret:
            keys = "key" if len(self.digits) == 1 else "keys"
            return f"The caller typed {len(self.digits)} {keys}."
        return f"The caller typed {self.digits}."


class Keypad:
    """Collects the keys of one call.

    Attributes:
        last: The latest entry, None before there is one.
    """

    def __init__(
        self,
        settings: KeypadSettings,
        clock: Clock,
        *,
        on_entry: Callable[[Entry], Awaitable[None]],
        on_begin: Callable[[], Awaitable[None]],
        on_end: Callable[[], Awaitable[None]],
    ):
        """Collect keys.

        Args:
            settings: When an entry ends.
            clock: Tells how long no key has come.
            on_entry: Gets an entry that no :meth:`collect` awaits.
            on_begin: Called when keys are expected or come: what the line carries is not to be
                recorded.
            on_end: Called when that is over.
        """
        self.last: Entry | None = None
        self._settings = settings
        self._clock = clock
        self._on_entry = on_entry
        self._on_begin = on_begin
        self._on_end = on_end
        self._digits = ""
        self._presses = 0
        self._active = False
        self._awaited: asyncio.Future[Entry] | None = None
        self._longest = settings.longest
        self._timer: asyncio.Task[None] | None = None

    @property
    def typing(self) -> bool:
        """Whether an entry has begun."""
        return bool(self._digits)

    async def press(self, key: str) -> None:
        """The caller pressed a key."""
        self._presses += 1
        await self._begin()
        if key == self._settings.terminator:
            self._digits = self._digits or key
            await self._finish()
            return
        self._digits += key
        if len(self._digits) >= self._longest:
            await self._finish()
        else:
            self._wait()

    async def collect(
        self, after: Awaitable[object], first_secs: float, longest: int | None, secret: bool
    ) -> Entry | None:
        """Wait for the next entry; it goes to nobody else.

        Args:
            after: Done when the caller has been asked.
            first_secs: So long for the first key from then on.
            longest: Its greatest length, where it is not that of the settings.
            secret: As in :class:`Entry`.

        Returns:
            None if no key came.
        """
        asked = asyncio.ensure_future(after)
        if self._awaited is not None:
            asked.cancel()
            return None

        async def lose_patience() -> None:
            await asyncio.wait({asked})
            await self._clock.sleep(first_secs)

        self._awaited = awaited = asyncio.get_running_loop().create_future()
        self._longest = longest or self._settings.longest
        presses = self._presses
        await self._begin()
        patience = asyncio.create_task(lose_patience())
        try:
            await asyncio.wait({patience, awaited}, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done() and presses == self._presses:
                return None
            entry = await awaited
            self.last = Entry(entry.digits, secret)
            return self.last
        finally:
            patience.cancel()
            asked.cancel()
            self._awaited = None
            self._longest = self._settings.longest
            if not self._digits:
                await self._end()

    def close(self) -> None:
        """The call is over; an entry that has not ended is dropped."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

        async def end() -> None:
            await self._clock.sleep(self._settings.gap_secs)
            self._timer = None
            await self._finish()

        self._timer = asyncio.create_task(end())

    async def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entry = Entry(self._digits, self._settings.secret)
        self._digits = ""
        await self._end()
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(entry)
        else:
            self.last = entry
            await self._on_entry(entry)

    async def _begin(self) -> None:
        if not self._active:
            self._active = True
            await self._on_begin()

    async def _end(self) -> None:
        if self._active:
            self._active = False
            await self._on_end()
