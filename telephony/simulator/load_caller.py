"""Who is on the phone in a load run: a scenario's caller, watched, and hung up when time is up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from telephony import mulaw
from telephony.simulator.caller import Caller
from telephony.simulator.load_meter import CallMeter


class Stopping:
    """Whether everybody hangs up."""

    def __init__(self) -> None:
        self.now = False


class LoadCaller:
    """A scenario's caller whose lines are told to a meter, and who may be told to hang up.

    Attributes:
        keys: Keys that were pressed and not sent yet.
    """

    def __init__(self, caller: Caller, meter: CallMeter, stopping: Stopping) -> None:
        """Wrap a caller."""
        self.keys = caller.keys
        self._caller = caller
        self._meter = meter
        self._stopping = stopping
        self._lines = 0

    @property
    def said_everything(self) -> bool:
        """Whether every line of the scenario was begun."""
        return len(self._caller.spoken) == len(self._caller.script.turns)

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms."""
        return self.tick_coded(mulaw.encode(heard))

    def tick_coded(self, heard: bytes) -> NDArray[np.int16] | None:
        """As ``tick``, with sound as it comes from the wire: mu-law [160]."""
        if self._stopping.now:
            return None
        caller = self._caller
        said = caller.tick_coded(heard)
        if len(caller.spoken) > self._lines:
            self._meter.spoke(caller.spoken[self._lines])
            self._lines += 1
        return said
