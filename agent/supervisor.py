"""Keeps an embedded engine alive: what dies is started again, what freezes is killed first.

The server itself notices neither: it stays well when a model's process is gone (docs/LOG.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from loguru import logger
from tritonclient.utils import InferenceServerException

from agent.embedded import EmbeddedServer, EmbeddedServerError
from agent.liveness import problem
from agent.replica import DECODER, LANGUAGE_MODEL, TOKENIZER, Replica

_LOOK_SECONDS = 0.2
_ASK_SECONDS = 1.0
_LOAD_SECONDS = 300.0
_WAIT_SECONDS = 5.0
"""After a start that failed, before the next."""
_LEAST_START_SECONDS = 45.0
"""So long a start may take, or four times as long as the first one took."""
_MODELS = (TOKENIZER, LANGUAGE_MODEL, DECODER)


@asynccontextmanager
async def supervised(
    server: EmbeddedServer, frozen_secs: float, progress: Callable[[str], None]
) -> AsyncIterator[None]:
    """Watch over a running server until the context is left.

    Args:
        server: It.
        frozen_secs: A process that shows no life for so long is killed.
        progress: Told of what was started again, as a line for a person.
    """
    task = asyncio.create_task(Supervisor(server, frozen_secs, progress).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Supervisor:
    """Looks at a server's processes, and asks its models whether they live."""

    def __init__(self, server: EmbeddedServer, frozen_secs: float, progress: Callable[[str], None]):
        """Watch over a running server; see :func:`supervised`."""
        self._server = server
        self._frozen_secs = frozen_secs
        self._progress = progress
        # When the last model's process was loaded anew.
        self._loaded = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._watch()
            except EmbeddedServerError as error:
                logger.bind(error=str(error)).error("The engine could not be started again")
                await asyncio.sleep(_WAIT_SECONDS)

    async def _watch(self) -> None:
        """Until the server has been started again, which makes everything new."""
        if not self._server.running:
            # A start that failed has left none.
            await self._start()
        replica = Replica(self._server.url)
        freezing = asyncio.create_task(self._end_frozen(replica), name="frozen processes")
        freezing.add_done_callback(_tell_failure)
        try:
            while self._server.running:
                await asyncio.sleep(_LOOK_SECONDS)
                for model in _MODELS:
                    if self._server.running and not self._stubs(model):
                        await self._load(model)
        finally:
            freezing.cancel()
            await asyncio.gather(freezing, return_exceptions=True)
            await replica.close()
        logger.warning("tritonserver has died")
        await self._start()

    async def _start(self) -> None:
        began = time.monotonic()
        await self._server.stop()
        try:
            async with asyncio.timeout(max(_LEAST_START_SECONDS, 4 * self._server.start_seconds)):
                await self._server.start()
        except TimeoutError as error:
            raise EmbeddedServerError("tritonserver: takes far longer than before") from error
        self._progress(f"tritonserver started again after {time.monotonic() - began:.1f} s")

    async def _load(self, model: str) -> None:
        logger.bind(model=model).warning("A model's process has died")
        began = time.monotonic()
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                await self._server.reload(model)
        except (TimeoutError, EmbeddedServerError, InferenceServerException) as error:
            # All of the server is started again instead.
            logger.bind(model=model, error=str(error)).error("A model could not be loaded anew")
            self._kill()
            return
        finally:
            self._loaded = time.monotonic()
        self._progress(f"model {model} started again after {time.monotonic() - began:.1f} s")

    async def _end_frozen(self, replica: Replica) -> None:
        """Kill what has shown no life for too long; then it is as if it had died."""
        since: float | None = None
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            began = time.monotonic()
            found = await problem(replica, self._frozen_secs)
            # What has died or is being loaded has a reason, and is being seen to.
            if found is None or self._loaded >= began or not all(self._all_stubs()):
                since = None
                continue
            # The server may notice a stopped process itself, and say so at once, again and again.
            since = began if since is None else since
            if time.monotonic() - since >= self._frozen_secs:
                logger.bind(error=found).error("The engine shows no life: it is killed")
                self._kill()
                since = None

    def _kill(self) -> None:
        """End the server and its models' processes: one that hangs can hang the others."""
        if self._server.running and self._server.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)

    def _all_stubs(self) -> list[list[int]]:
        return [self._stubs(model) for model in _MODELS]

    def _stubs(self, model: str) -> list[int]:
        return [] if self._server.pid is None else stub_processes(self._server.pid, model)


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.opt(exception=task.exception()).error("The supervisor watches no more")


def stub_processes(server: int, model: str) -> list[int]:
    """Process ids of a model's living stubs.

    Args:
        server: Process id of the tritonserver.
        model: The model's name.
    """
    found = []
    for path in Path(f"/proc/{server}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in path.read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_text()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if model in command and state != "Z":
                    found.append(int(pid))
    return found
