"""Recordings of calls, as Twilio makes them."""

import io
from dataclasses import dataclass, field

import numpy as np
import soundfile
from numpy.typing import NDArray

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.verbs import Callback


@dataclass
class Recording:
    """Both sides of a call, from when it was asked for.

    Attributes:
        sid: Its identifier.
        call_sid: The call's.
        source: Who asked for it, as Twilio names that: ``StartCallRecordingAPI``, ``RecordVerb``,
            ``OutboundAPI`` or ``DialVerb``.
        started_at: Unix seconds.
        channels: 1 mixes the sides; 2 keeps them apart, the caller first.
        track: ``both``, ``inbound`` (the caller) or ``outbound``.
        callback: Told how it goes, or None.
        status: ``in-progress``, ``paused``, ``completed`` or ``absent`` (nothing was recorded).
        pause_is_silence: A pause is kept as silence rather than left out.
    """

    sid: str
    call_sid: str
    source: str
    started_at: float
    channels: int = 1
    track: str = "both"
    callback: Callback | None = None
    status: str = "in-progress"
    pause_is_silence: bool = True
    _sides: list[NDArray[np.int16]] = field(default_factory=list, repr=False)

    @property
    def running(self) -> bool:
        """It has not ended; it may be paused."""
        return self.status in ("in-progress", "paused")

    @property
    def seconds(self) -> float:
        """Its length so far."""
        return sum(len(frames) for frames in self._sides) / SAMPLE_RATE

    def hear(self, said: NDArray[np.int16], heard: NDArray[np.int16]) -> None:
        """Take a stretch of both sides.

        Args:
            said: int16 [n] at 8 kHz: the caller.
            heard: int16 [n]: what the phone played.
        """
        if self.status == "in-progress":
            self._sides.append(np.stack([said, heard], axis=1))
        elif self.status == "paused" and self.pause_is_silence:
            self._sides.append(np.zeros((len(said), 2), np.int16))

    def finish(self) -> None:
        """End it."""
        if self.running:
            self.status = "completed" if self._sides else "absent"

    @property
    def audio(self) -> NDArray[np.int16]:
        """int16 [n, channels] at 8 kHz."""
        sides: NDArray[np.int16] = np.concatenate([np.zeros((0, 2), np.int16), *self._sides])
        if self.track != "both":
            sides[:, 1 if self.track == "inbound" else 0] = 0
        if self.channels == 2:
            return sides
        mixed = np.clip(sides.astype(np.int32).sum(axis=1, keepdims=True), -32768, 32767)
        mono: NDArray[np.int16] = mixed.astype(np.int16)
        return mono

    def file(self, format: str) -> bytes:
        """As a file; ``format`` is ``WAV`` or ``MP3``."""
        file = io.BytesIO()
        soundfile.write(file, self.audio, SAMPLE_RATE, format=format)
        return file.getvalue()
