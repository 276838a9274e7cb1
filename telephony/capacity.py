"""How many calls there is room for: as set by hand, or as much as the engine can carry.

The engine's scheduler measures what a piece of an answer costs, and so how many answers it can keep
in playback at once without gaps (``DeadlineSchedule.carries``). A call is an answer only while the
agent speaks.
"""

from __future__ import annotations

from collections.abc import Callable

_UNMEASURED = 8
"""Calls to allow while the engine has measured nothing."""


class Capacity:
    """The limit that all calls share."""

    def __init__(self, by_hand: int | None, talk_share: float, carries: Callable[[], float | None]):
        """Know what sets the limit.

        Args:
            by_hand: Calls at once, whatever the engine measures; None goes by that.
            talk_share: Share of a call during which the agent speaks, above 0.
            carries: Answers that the engine can keep in playback at once; None: not known yet.
        """
        self._by_hand = by_hand
        self._talk_share = talk_share
        self._carries = carries

    @property
    def carries(self) -> float | None:
        """Answers that the engine can keep in playback at once; None: not known yet."""
        return self._carries()

    def limit(self) -> int:
        """Calls at once, at least one."""
        if self._by_hand is not None:
            return self._by_hand
        carries = self.carries
        return _UNMEASURED if carries is None else max(1, int(carries / self._talk_share))
