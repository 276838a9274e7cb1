"""The caller's mu-law as PCM for the pipeline, in the windows that turn detection judges.

A frame of audio costs a call its way through every processor, so none travels that decides nothing:
audio leaves in whole windows, at the moment at which the last sample of one has come. When the line
has been quiet for longer than any pause in a turn, three windows travel as one; the first message
that is not quiet takes everything along at once, so that speech is noticed as soon as ever.
"""

from __future__ import annotations

from telephony import mulaw
from telephony.media_streams import SAMPLE_RATE
from telephony.resampler import Resampler

QUIET_SECONDS = 2.0
WINDOWS_IN_QUIET = 3
_QUIET_LEVEL = 256
"""Of 32768, -42 dBFS: below it nobody says anything."""
_QUIET_CODES = bytes(
    code for code in range(256) if abs(int(mulaw.decode(bytes([code]))[0])) < _QUIET_LEVEL
)


class Hearing:
    """One call's incoming audio.

    Args:
        sample_rate: Of what leaves, in Hz.
        window: Samples of what leaves that are judged at once.
    """

    def __init__(self, sample_rate: int, window: int):
        self._resampler = Resampler(SAMPLE_RATE, sample_rate)
        self._ratio = sample_rate / SAMPLE_RATE
        self._window_bytes = 2 * window
        self._payload = bytearray()
        self._pcm = bytearray()
        # What the resampler will give at least once the payload is pushed, in samples.
        self._coming = -self._resampler.held_back * sample_rate
        self._quiet = 0

    def hear(self, payload: bytes) -> bytes:
        """Take the next audio.

        Args:
            payload: Mu-law at 8 kHz, of any length.

        Returns:
            int16 PCM, whole windows; empty where none is due.
        """
        self._payload += payload
        self._coming += len(payload) * self._ratio
        loud = payload.translate(None, _QUIET_CODES)
        self._quiet = 0 if loud else self._quiet + len(payload)
        windows = WINDOWS_IN_QUIET if self._quiet > QUIET_SECONDS * SAMPLE_RATE else 1
        if 2 * self._coming < windows * self._window_bytes:
            return b""
        self._pcm += self._resampler.push(mulaw.decode(bytes(self._payload))).tobytes()
        self._payload.clear()
        whole = len(self._pcm) - len(self._pcm) % self._window_bytes
        audio = bytes(self._pcm[:whole])
        del self._pcm[:whole]
        self._coming -= whole // 2
        return audio
