"""The voice model behind Triton: a client of one or several replicas.

A session streams the caller's audio while the caller speaks and the answer's text and audio as they
are made; see :class:`agent.voice_session.VoiceSession`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agent.liveness import probe
from agent.replica import EngineUnavailable, Replica
from agent.voice_session import AnswerChunk, VoiceSession

__all__ = ["AnswerChunk", "EngineUnavailable", "VoiceClient", "VoiceSession"]

CALLER_RATE = 16_000


class VoiceClient:
    """Sessions with the voice model on one or several replicas.

    Use it in one event loop. A call stays on one replica, where its history is: the one with the
    fewest sessions that has not just failed. If that one fails before it has answered anything, the
    session goes to the next.

    Args:
        urls: ``host:port`` of the gRPC endpoint of each replica.
        chunk_timeout: Seconds within which each piece must come after an answer's first audio.
        first_chunk_timeout: Seconds within which each piece must come until then; includes waiting
            for other sessions' prompts and for the decoder, where running answers go first.
        request_timeout: Seconds for what is answered at once: audio, stop, close, probes.
        push_seconds: Audio is sent in pieces of at least so many seconds while the caller speaks.
        retry_seconds: For so long new sessions avoid a replica that failed.
        connect: Makes a replica from its URL.
        clock: Monotonic seconds.

    Raises:
        ValueError: There is no URL, or one is not ``host:port``.
    """

    def __init__(
        self,
        urls: Sequence[str],
        chunk_timeout: float = 5.0,
        first_chunk_timeout: float = 15.0,
        request_timeout: float = 5.0,
        push_seconds: float = 0.2,
        retry_seconds: float = 10.0,
        connect: Callable[[str], Replica] = Replica,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not urls:
            raise ValueError("urls is empty, expected at least one host:port")
        for url in urls:
            host, _, port = url.rpartition(":")
            if not host or not port.isdecimal() or "/" in url:
                raise ValueError(f"url {url!r} is not host:port")
        self.chunk_timeout = chunk_timeout
        self.first_chunk_timeout = first_chunk_timeout
        self.request_timeout = request_timeout
        self.push_samples = max(1, round(push_seconds * CALLER_RATE))
        self._urls = list(urls)
        self._connect = connect
        self._replicas: dict[str, Replica] = {}
        self._sessions: dict[str, int] = dict.fromkeys(urls, 0)
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._avoid_until: dict[str, float] = {}
        self._carries: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()

    @property
    def carries(self) -> float | None:
        """Answers that can be kept in playback at once, as :meth:`ready` last found it.

        Those of all replicas that can answer and know it; None where none does.
        """
        return sum(self._carries.values()) if self._carries else None

    async def ready(self) -> None:
        """Check by inferences that go through every model that a replica can answer.

        Not by Triton's health endpoints: they stay well when a model's process is dead.

        Raises:
            EngineUnavailable: No replica can; names each with its failing model.
        """
        results = await asyncio.gather(
            *(probe(self.replica(url), self.request_timeout) for url in self._urls),
            return_exceptions=True,
        )
        self._carries = {
            url: result
            for url, result in zip(self._urls, results, strict=True)
            if isinstance(result, float)
        }
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if not isinstance(error, EngineUnavailable):
                raise error
        if len(errors) == len(results):
            raise EngineUnavailable("; ".join(map(str, errors)))

    def session(self, session_id: str | None = None, url: str | None = None) -> VoiceSession:
        """A new call; its replica is chosen when it first needs one, unless it is given."""
        return VoiceSession(self, session_id or uuid.uuid4().hex, url)

    async def close(self) -> None:
        """Close the connections. Close the sessions before."""
        if self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.close()
        self._replicas.clear()

    def replica(self, url: str) -> Replica:
        """The replica at a URL."""
        if url not in self._replicas:
            self._replicas[url] = self._connect(url)
        return self._replicas[url]

    def candidates(self) -> list[str]:
        """URLs in the order in which a new session should try them."""
        now = self._clock()
        return sorted(
            self._urls,
            key=lambda url: (self._avoid_until.get(url, now) > now, self._sessions[url]),
        )

    def attach(self, url: str) -> None:
        """A session uses the replica now."""
        self._sessions[url] += 1

    def detach(self, url: str, failed: bool = False) -> None:
        """A session uses the replica no more."""
        self._sessions[url] -= 1
        if failed:
            self.avoid(url)

    def avoid(self, url: str) -> None:
        """A replica has failed: for a while new sessions try others first."""
        self._avoid_until[url] = self._clock() + self._retry_seconds

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what no one has to wait for, until :meth:`close`."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
