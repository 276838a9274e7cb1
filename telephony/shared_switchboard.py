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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from telephony.clock import Clock
from telephony.switchboard import TOKEN_SECONDS, LineBusyError

_LOOK_SECONDS = 0.2


@dataclass
class Places:
    """What is in the file.

    Attributes:
        expected: Token, last moment and agent, by call.
        live: The process that has a call's socket, and the agent.
        workers: Processes that answer calls.
        documents: What calls do that their agent leaves.
        draining: No process lets new calls in.
    """

    expected: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    live: dict[str, tuple[int, str]] = field(default_factory=dict)
    workers: list[int] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    draining: bool = False

    def calls_of(self, agent: str, but: str) -> int:
        """The places that an agent's calls have, one call aside."""
        names = {call: name for call, (_, _, name) in self.expected.items()}
        names |= {call: name for call, (_, name) in self.live.items()}
        return sum(name == agent for call, name in names.items() if call != but)


class SharedSwitchboard:
    """The places of all workers of one gateway; as :class:`telephony.switchboard.Switchboard`.

    There is no queue: who waits for a place is known to one process, and the next question may
    reach another.

    Attributes:
        documents: What calls do that their agent leaves, for whichever worker is asked.
    """

    shared = True
    waiting = 0

    def __init__(self, path: Path, limit: Callable[[], int], clock: Clock):
        """Take part.

        Args:
            path: The file, made if it is not there; the same for all workers and nobody else.
            limit: Calls at once, of all workers together.
            clock: Tells when a token is too old; the same for all processes.
        """
        self._path = path
        self._limit = limit
        self._clock = clock
        self._draining = False
        self.documents = SharedDocuments(self)
        with self.places() as places:
            places.workers.append(os.getpid())

    @property
    def draining(self) -> bool:
        """This process lets no new calls in; where it is set, it stops."""
        with self.places() as places:
            return self._draining or places.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining

    def drain(self) -> None:
        """Let no new calls in, in whatever process."""
        with self.places() as places:
            places.draining = True

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

    def admit(
        self,
        call_sid: str,
        agent: str = "",
        most: int | None = None,
        *,
        wait: bool = False,
        seconds: float = TOKEN_SECONDS,
    ) -> str:
        """Keep a place for a call; returns the token its socket has to bring, once.

        Args:
            call_sid: The call.
            agent: Who will answer it.
            most: That agent's calls at once; None: only the common limit counts.
            wait: Makes no difference.
            seconds: So long the place is kept for a socket.

        Raises:
            LineBusyError: if there is no place, or this worker is shutting down.
        """
        with self.places() as places:
            others = (places.expected.keys() | places.live.keys()) - {call_sid}
            of_agent = places.calls_of(agent, but=call_sid)
            full = len(others) >= self._limit() or (most is not None and of_agent >= most)
            if self._draining or places.draining or full:
                raise LineBusyError
            token = secrets.token_urlsafe(32)
            places.expected[call_sid] = (token, self._clock.time() + seconds, agent)
            return token

    def rename(self, key: str, call_sid: str) -> None:
        """Know a place that was kept under a key by its call."""
        with self.places() as places:
            expected = places.expected.pop(key, None)
            if expected is not None:
                places.expected[call_sid] = expected

    def connect(self, call_sid: str, token: str) -> bool:
        """Let a call's socket in; false if the token is not this call's, used, or too old."""
        with self.places() as places:
            expected, _, agent = places.expected.get(call_sid, ("", 0.0, ""))
            if (
                not expected
                or call_sid in places.live
                or not secrets.compare_digest(expected.encode(), token.encode())
            ):
                return False
            del places.expected[call_sid]
            places.live[call_sid] = (os.getpid(), agent)
            return True

    def forget(self, call_sid: str) -> None:
        """Free the place of a call whose socket has not opened."""
        with self.places() as places:
            places.expected.pop(call_sid, None)

    def release(self, call_sid: str) -> None:
        """Free the place of a call, whether its socket had opened here or not at all."""
        with self.places() as places:
            places.expected.pop(call_sid, None)
            if places.live.get(call_sid, (0, ""))[0] == os.getpid():
                del places.live[call_sid]

    def agent_of(self, call_sid: str) -> str:
        """Who answers a call whose socket is open."""
        with self.places() as places:
            return places.live[call_sid][1]

    def is_expected(self, call_sid: str) -> bool:
        """Whether a place is kept for a call whose socket has not opened."""
        with self.places() as places:
            return call_sid in places.expected

    def is_waiting(self, call_sid: str) -> bool:
        """Whether a call waits for a place."""
        return False

    def calls_of(self, agent: str, but: str = "") -> int:
        """The places that an agent's calls have, one call aside."""
        with self.places() as places:
            return places.calls_of(agent, but)

    async def empty(self) -> None:
        """Return once no call is here, and none is expected that may come here."""
        while self._has_calls():
            await self._clock.sleep(_LOOK_SECONDS)

    def _has_calls(self) -> bool:
        with self.places() as places:
            here = any(pid == os.getpid() for pid, _ in places.live.values())
            return here or bool(places.expected)

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
            places.live = {
                s: places.live[s] for s, (pid, _) in places.live.items() if pid in places.workers
            }
            yield places
            file.seek(0)
            file.truncate()
            json.dump(asdict(places), file)


class SharedDocuments:
    """TwiML by call, for :class:`telephony.transfers.Transfers`."""

    def __init__(self, switchboard: SharedSwitchboard):
        """Keep them with the places."""
        self._switchboard = switchboard

    def __setitem__(self, call_sid: str, twiml: str) -> None:
        """Remember a call's document."""
        with self._switchboard.places() as places:
            places.documents[call_sid] = twiml

    def __contains__(self, call_sid: object) -> bool:
        """Whether a call's document waits to be asked for."""
        with self._switchboard.places() as places:
            return call_sid in places.documents

    def pop(self, call_sid: str, default: str) -> str:
        """Give a call's document, once."""
        with self._switchboard.places() as places:
            return places.documents.pop(call_sid, default)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
