"""What the network does to a call: late and bunched messages, lost audio, torn and slow sockets."""

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from telephony.simulator.part import Part

CONCEALED_FRAMES = 4
"""Lost frames in a row that a phone network hides by repeating; after those it plays silence."""


class Stall(Part):
    """A time during which nothing comes through; all of it comes at once afterwards.

    Attributes:
        at_ms: When it begins, counted from the start of the media stream.
        for_ms: How long it takes.
    """

    at_ms: float = Field(ge=0)
    for_ms: float = Field(gt=0)


class Network(Part):
    """Faults; without any field, the network is ideal.

    ``delay_ms``, ``jitter_ms`` and ``stalls`` are those of the WebSocket, both ways: messages come
    late, never out of order. ``loss`` is that of the telephone network before it, where lost audio
    is concealed: the last frame is repeated, quieter each time.

    Attributes:
        delay_ms: By so much every message is late.
        jitter_ms: By up to so much more, evenly distributed.
        loss: Share of the frames of 20 ms that are lost, in both directions.
        loss_run: Mean length of a run of lost frames.
        stalls: Times during which nothing comes through.
        torn_at_ms: The connection breaks then, without a close frame.
        garbage_at_ms: Something that is no message of a media stream is sent then, as by somebody
            who has got hold of the socket.
        slow_close_ms: So long the socket stays open when the call or the server has ended it.
        seed: Makes it repeatable.
    """

    delay_ms: float = Field(default=0, ge=0)
    jitter_ms: float = Field(default=0, ge=0)
    loss: float = Field(default=0, ge=0, lt=1)
    loss_run: float = Field(default=1, ge=1)
    stalls: tuple[Stall, ...] = ()
    torn_at_ms: float | None = Field(default=None, ge=0)
    garbage_at_ms: float | None = Field(default=None, ge=0)
    slow_close_ms: float = Field(default=0, ge=0)
    seed: int = 0

    @property
    def on_time(self) -> bool:
        """Messages arrive when they are sent."""
        return not (self.delay_ms or self.jitter_ms or self.stalls)


class Way:
    """One direction of a WebSocket: when what is sent arrives."""

    def __init__(self, network: Network, started_at: float, salt: str) -> None:
        """Prepare one direction.

        Args:
            network: Its faults.
            started_at: The time at which the media stream began.
            salt: Keeps the two directions apart.
        """
        self._network = network
        self._started_at = started_at
        self._random = random.Random(f"{network.seed} {salt}")
        self._last = started_at

    def arrival(self, sent_at: float) -> float:
        """The time at which a message arrives, never before those sent earlier."""
        network = self._network
        late_ms = network.delay_ms + self._random.uniform(0, network.jitter_ms)
        due = sent_at + late_ms / 1000
        for stall in sorted(network.stalls, key=lambda stall: stall.at_ms):
            begin = self._started_at + stall.at_ms / 1000
            if begin <= due < begin + stall.for_ms / 1000:
                due = begin + stall.for_ms / 1000
        self._last = max(due, self._last)
        return self._last


class LossyLine:
    """One direction of the telephone network: loses frames and conceals that."""

    def __init__(self, network: Network, salt: str) -> None:
        """Prepare one direction.

        Args:
            network: Its faults.
            salt: Keeps the two directions apart.
        """
        self._lost = _losses(network, random.Random(f"{network.seed} {salt}"))
        self._good = np.zeros(0, np.int16)
        self._missing = 0

    def carry(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """What arrives in the place of a frame, int16 of the same length."""
        if not next(self._lost):
            self._good, self._missing = frame, 0
            return frame
        self._missing += 1
        if self._missing > CONCEALED_FRAMES or len(self._good) != len(frame):
            return np.zeros_like(frame)
        return (self._good * 0.5**self._missing).astype(np.int16)


def _losses(network: Network, chance: random.Random) -> Iterator[bool]:
    """Whether each frame is lost: runs of mean length ``loss_run``, ``loss`` of all in the end."""
    ends = 1 / network.loss_run
    begins = min(1.0, network.loss * ends / (1 - network.loss))
    lost = False
    while True:
        lost = chance.random() >= ends if lost else chance.random() < begins
        yield lost
