"""The phone's end of a media stream: a buffer that plays at 8 kHz and answers marks."""

from typing import NamedTuple

FRAME_BYTES = 160
"""One tick of 20 ms at 8 kHz, one byte a sample."""
LIMIT_BYTES = 600 * 8000
"""Twilio discards what would have to wait longer than ten minutes (error 31931)."""
SILENCE = b"\xff"
"""Zero in mu-law."""


class Played(NamedTuple):
    """What one tick did.

    Attributes:
        audio: mu-law [160]: what goes to the phone during the next 20 ms.
        samples: How many of them came from the buffer; the rest is silence.
        marks: Marks that return now: all that was sent before them has been played.
    """

    audio: bytes
    samples: int
    marks: tuple[str, ...]


_SILENT_FRAME = SILENCE * FRAME_BYTES
_NOTHING = Played(_SILENT_FRAME, 0, ())


class PlaybackBuffer:
    """What the server sent and the phone has not played yet.

    Time enters only through ``tick``, called every 20 ms by whoever owns the clock. Positions count
    bytes since the start of the stream.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Make an empty buffer.

        Args:
            limit_bytes: More than this does not fit.
        """
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._played = 0
        self._marks: list[tuple[int, str]] = []

    @property
    def waiting(self) -> int:
        """Bytes still to be played."""
        return len(self._buffer)

    def media(self, payload: bytes) -> int:
        """Queue audio.

        Args:
            payload: mu-law at 8 kHz, of any length.

        Returns:
            How many bytes did not fit and were discarded.
        """
        room = max(0, self._limit - len(self._buffer))
        self._buffer += payload[:room]
        return max(0, len(payload) - room)

    def mark(self, name: str) -> None:
        """Ask to be told, by a later ``tick``, when all audio sent so far has been played."""
        self._marks.append((self._played + len(self._buffer), name))

    def clear(self) -> tuple[str, ...]:
        """Drop what has not been played.

        Returns:
            The marks that were pending; they go back to the server at once.
        """
        names = tuple(name for _, name in self._marks)
        self._marks.clear()
        self._buffer.clear()
        return names

    def tick(self) -> Played:
        """Go on by 20 ms: report what the past ticks completed, hand out the next frame."""
        marks = self._due_marks() if self._marks else ()
        buffer = self._buffer
        if not buffer:
            return Played(_SILENT_FRAME, 0, marks) if marks else _NOTHING
        audio = bytes(buffer[:FRAME_BYTES])
        del buffer[:FRAME_BYTES]
        samples = len(audio)
        self._played += samples
        if samples < FRAME_BYTES:
            audio = audio.ljust(FRAME_BYTES, SILENCE)
        return Played(audio, samples, marks)

    def _due_marks(self) -> tuple[str, ...]:
        due = 0
        while due < len(self._marks) and self._marks[due][0] <= self._played:
            due += 1
        marks = tuple(name for _, name in self._marks[:due])
        del self._marks[:due]
        return marks
