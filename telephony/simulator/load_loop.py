"""An event loop that looks at its sockets once a millisecond, and takes what has come in one turn.

With hundreds of streams there is a message every tenth of a millisecond. An event loop that wakes
for each of them spends most of its time on waking.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_TOGETHER_SECONDS = 0.001


class _Together(selectors.DefaultSelector):
    """Waits without looking, then looks without waiting; its callers ask again."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready, at most a millisecond from now."""
        if timeout is None or timeout > 0:
            time.sleep(_TOGETHER_SECONDS if timeout is None else min(timeout, _TOGETHER_SECONDS))
        return super().select(0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of this kind, for ``asyncio.Runner(loop_factory=...)``."""
    return asyncio.SelectorEventLoop(_Together())


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """As ``asyncio.run``, in a loop of this kind."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
