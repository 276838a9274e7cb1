"""A call's sound in a WAV file, written while the call runs: caller left, agent right, at 8 kHz.

The caller's sound, which comes without a break, is the time axis; what the agent sends waits in a
buffer as it does in the phone, and a clear empties that. The file is that of a whole recording
after every second of it. Half a second is held back, so that a key's tone can still be silenced
when the key is told.
"""

from __future__ import annotations

import asyncio
import os
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from loguru import logger

from telephony import mulaw
from telephony.media_streams import FRAME_BYTES, SAMPLE_RATE

_SILENCE = bytes([mulaw.SILENCE])
_BATCH = SAMPLE_RATE
_HELD_BACK = SAMPLE_RATE // 2
_SHORTEST_HOLE = 3 * FRAME_BYTES
_LONGEST_HOLE = 30 * SAMPLE_RATE
"""What is missing of the caller's sound is filled with silence up to so much."""
_MOST_WAITING = 30
"""Seconds that may wait for a slow disk."""


Side = Literal["caller", "agent"]


class CallRecording:
    """The recording of one call.

    Attributes:
        path: The file.
        paused: Silence is written in place of both sides.
        failed: The file cannot be written; nothing more is recorded.
    """

    def __init__(self, path: Path, on_failure: Callable[[str], None] = lambda reason: None):
        """Open the file; to be closed with :meth:`close`. Needs a running event loop.

        Args:
            path: Must not exist; made with access for its owner alone.
            on_failure: Told why, when the file cannot be written any more.

        Raises:
            OSError: It cannot be made.
        """
        self.path = path
        self.paused = False
        self.failed = False
        self._on_failure = on_failure
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb")
        self._file = wave.open(self._raw, "wb")  # noqa: SIM115 (closed by close)
        self._file.setnchannels(2)
        self._file.setsampwidth(2)
        self._file.setframerate(SAMPLE_RATE)
        self._file.writeframes(b"")
        self._raw.flush()
        self._begins = self._raw.tell()
        self._holes: list[tuple[int, int, int]] = []
        self._caller = bytearray()
        self._agent = bytearray()
        self._to_play = bytearray()
        self._position = 0
        self._queue: asyncio.Queue[tuple[bytes, bytes] | None] = asyncio.Queue(_MOST_WAITING)
        self._writing = asyncio.create_task(self._write())

    @property
    def seconds(self) -> float:
        """Its length so far."""
        return self._position / SAMPLE_RATE

    def caller(self, payload: bytes, timestamp: int) -> None:
        """Take what the caller said; time passes with it.

        Args:
            payload: mu-law.
            timestamp: Milliseconds of the stream at its beginning, as Twilio gives it.
        """
        hole = timestamp * SAMPLE_RATE // 1000 - self._position
        if _SHORTEST_HOLE <= hole <= _LONGEST_HOLE:
            self._pass(_SILENCE * hole)
        self._pass(payload)

    def agent(self, payload: bytes) -> None:
        """Take what was sent to the phone (mu-law), to be played after what it has."""
        self._to_play += payload

    def cleared(self) -> None:
        """The phone forgot what it had not played yet."""
        self._to_play.clear()

    def pause(self) -> None:
        """Write silence from half a second ago on."""
        self.paused = True
        self._caller[:] = _SILENCE * len(self._caller)
        self._agent[:] = _SILENCE * len(self._agent)

    def resume(self) -> None:
        """Write both sides again."""
        self.paused = False

    def silence(self, side: Side, since: float, until: float) -> None:
        """Put silence in the place of what one side said, wherever that is by now.

        Args:
            side: Which.
            since: From here on, in seconds.
            until: Up to here.
        """
        start, stop = (
            min(self._position, max(0, round(seconds * SAMPLE_RATE))) for seconds in (since, until)
        )
        waiting = self._caller if side == "caller" else self._agent
        written = self._position - len(waiting)
        if stop > written:
            first = max(start, written) - written
            waiting[first : stop - written] = _SILENCE * (stop - written - first)
        if start < written:
            self._holes.append((0 if side == "caller" else 1, start, min(stop, written)))

    async def close(self) -> None:
        """Write what is left, and close the file."""
        self._hand_over(len(self._caller))
        await self._queue.put(None)
        await self._writing

    def _pass(self, said: bytes) -> None:
        heard = bytes(self._to_play[: len(said)]).ljust(len(said), _SILENCE)
        del self._to_play[: len(said)]
        self._position += len(said)
        if self.paused:
            said = heard = _SILENCE * len(said)
        self._caller += said
        self._agent += heard
        while len(self._caller) >= _BATCH + _HELD_BACK:
            self._hand_over(_BATCH)

    def _hand_over(self, samples: int) -> None:
        batch = bytes(self._caller[:samples]), bytes(self._agent[:samples])
        del self._caller[:samples], self._agent[:samples]
        if self.failed:
            return
        try:
            self._queue.put_nowait(batch)
        except asyncio.QueueFull:
            self._fail("the disk is too slow")

    async def _write(self) -> None:
        while (batch := await self._queue.get()) is not None:
            if not self.failed:
                await self._keep(self._append, *batch)
        await self._keep(self._close)

    async def _keep(self, write: Callable[..., None], *batch: bytes) -> None:
        try:
            await asyncio.to_thread(write, *batch)
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _append(self, caller: bytes, agent: bytes) -> None:
        sides = np.stack([mulaw.decode(caller), mulaw.decode(agent)], axis=1)
        # The header is right again after every call of this.
        self._file.writeframes(sides.astype("<i2").tobytes())
        self._raw.flush()
        self._silence_holes()

    def _silence_holes(self) -> None:
        descriptor = self._raw.fileno()
        end = os.fstat(descriptor).st_size
        for hole in list(self._holes):
            side, start, stop = hole
            first, last = (self._begins + 4 * sample for sample in (start, stop))
            if last > end:
                # What was handed over before is not there yet.
                continue
            sides = np.frombuffer(os.pread(descriptor, last - first, first), "<i2").reshape(-1, 2)
            silenced = sides.copy()
            silenced[:, side] = 0
            os.pwrite(descriptor, silenced.tobytes(), first)
            self._holes.remove(hole)

    def _close(self) -> None:
        try:
            self._raw.flush()
            self._silence_holes()
            self._file.close()
        finally:
            self._raw.close()

    def _fail(self, reason: str) -> None:
        if not self.failed:
            self.failed = True
            logger.bind(reason=reason).error("A call's recording cannot be written")
            self._on_failure(reason)
