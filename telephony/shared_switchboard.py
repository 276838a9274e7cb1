"""A switchboard that several processes share: a webhook may reach one and the socket another.

The places are a small JSON file that is rewritten under a lock; that happens a few times a call.
Whatever a process held is free again as soon as that process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from telephony.clock import Clock
from telephony.switchboard import TOKEN_SECONDS, LineBusyError


@dataclass
class Places:
    """What is in the file.

    Attributes:
        expected: Token and last moment, by call.
        live: The process that has a call's socket.
        workers: Processes that answer calls.
        numbers: Whom calls are to be connected with that their agent has left.
    """

    expected: dict[str, tuple[str, float]] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    workers: list[int] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)


class SharedSwitchboard:
    """The places of all workers of one gateway; as :class:`telephony.switchboard.Switchboard`.

    Attributes:
        draining: This process lets no new calls in.
        numbers: Whom calls are to be connected with, for whichever worker is asked.
    """

    def __init__(self, path: Path, max_calls: int, clock: Clock):
        """Take part.

        Args:
            path: The file, made if it is not there; the same for all workers and nobody else.
            max_calls: Calls at once, of all workers together.
            clock: Tells when a token is too old; the same for all processes.
        """
        self._path = path
        self._max_calls = max_calls
        self._clock = clock
        self.draining = False
        self.numbers = SharedNumbers(self)
        with self.places() as places:
            places.workers.append(os.getpid())

    @property
    def active(self) -> int:
        """Calls whose socket is open, in whatever worker."""
        with self.places() as places:
            return len(places.live)

    @property
    def workers(self) -> int:
        """Workers that are running."""
        with self.places() as places:
            return len(places.workers)

    def admit(self, call_sid: str) -> str:
        """Keep a place for a call; returns the token its socket has to bring, once.

        Raises:
            LineBusyError: if there is no place, or this worker is shutting down.
        """
        with self.places() as places:
            others = (places.expected.keys() | places.live.keys()) - {call_sid}
            if self.draining or len(others) >= self._max_calls:
                raise LineBusyError
            token = secrets.token_urlsafe(32)
            places.expected[call_sid] = (token, self._clock.time() + TOKEN_SECONDS)
            return token

    def connect(self, call_sid: str, token: str) -> bool:
        """Let a call's socket in; false if the token is not this call's, used, or too old."""
        with self.places() as places:
            expected, _ = places.expected.get(call_sid, ("", 0.0))
            if (
                not expected
                or call_sid in places.live
                or not secrets.compare_digest(expected.encode(), token.encode())
            ):
                return False
            del places.expected[call_sid]
            places.live[call_sid] = os.getpid()
            return True

    def cancel(self, call_sid: str) -> None:
        """Free the place of a call whose socket has not opened."""
        with self.places() as places:
            places.expected.pop(call_sid, None)

    def release(self, call_sid: str) -> None:
        """Free the place of a call, whether its socket had opened here or not at all."""
        with self.places() as places:
            places.expected.pop(call_sid, None)
            if places.live.get(call_sid) == os.getpid():
                del places.live[call_sid]

    @contextlib.contextmanager
    def places(self) -> Iterator[Places]:
        """The places as they are now, nobody else's for as long as this lasts."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            places = Places(**json.loads(text)) if text else Places()
            now = self._clock.time()
            places.expected = {s: e for s, e in places.expected.items() if e[1] > now}
            places.workers = [pid for pid in places.workers if _runs(pid)]
            places.live = {s: pid for s, pid in places.live.items() if pid in places.workers}
            yield places
            file.seek(0)
            file.truncate()
            json.dump(asdict(places), file)


class SharedNumbers:
    """Numbers by call, for :class:`telephony.transfers.Transfers`."""

    def __init__(self, switchboard: SharedSwitchboard):
        """Keep them with the places."""
        self._switchboard = switchboard

    def __setitem__(self, call_sid: str, number: str) -> None:
        """Remember a call's number."""
        with self._switchboard.places() as places:
            places.numbers[call_sid] = number

    def pop(self, call_sid: str, default: None) -> str | None:
        """Give a call's number, once."""
        with self._switchboard.places() as places:
            return places.numbers.pop(call_sid, default)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
