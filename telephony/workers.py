"""Several worker processes behind one port, and the parent that keeps them running.

A call's pipeline is Python and uses one core; a machine with more cores answers more calls by more
processes. All listen on the same port (SO_REUSEPORT: the kernel deals out connections), share the
places (telephony.shared_switchboard) and the database of records. A worker that dies takes its own
calls with it, and another one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from agent.section import Section
from agent.settings import AUTH_TOKEN_VARIABLE, OPERATOR_TOKEN_VARIABLE
from telephony.agents import CallCentre

READY = "ready"
"""What a worker prints once it listens."""
_STOP_SECONDS = 12.0
_SOON_SECONDS = 5.0
"""A worker that dies so soon after its start would do it again."""
_LONGEST_PAUSE = 30.0


class WorkerOrder(Section):
    """What a worker is told on its standard input, as one line of JSON.

    Attributes:
        settings: All of them but secrets, which are in the environment.
        switchboard: The file that all workers share.
        database: SQLAlchemy's address of the records' database, password included.
    """

    settings: CallCentre
    switchboard: Path
    database: str


class WorkerDied(RuntimeError):
    """A worker ended before it could answer calls."""


@dataclass
class Workers:
    """The workers of a gateway.

    Attributes:
        url: The gateway's public base URL.
        drain: Has all take no more calls; returns when each has ended those that it has.
    """

    url: str
    drain: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def working(
    settings: CallCentre,
    progress: Callable[[str], None],
    command: Sequence[str] = (sys.executable, "-m", "telephony.worker"),
) -> AsyncIterator[Workers]:
    """Run ``settings.gateway.workers`` workers until the block is left.

    Args:
        settings: All of them; ``triton.urls`` names the engine.
        progress: Told each step, as a line for a person.
        command: Starts a worker.

    Yields:
        What has been started, once every worker listens.

    Raises:
        OSError: The address cannot be listened on.
        WorkerDied: A worker ended before it could answer calls.
    """
    gateway = settings.gateway
    # Bound here, though nobody listens on it: the port is the same for all, and nobody else's.
    with _reserved(gateway.host, gateway.port) as reserved, tempfile.TemporaryDirectory() as folder:
        port: int = reserved.getsockname()[1]
        url = gateway.public_base_url or f"http://{gateway.host}:{port}"
        secrets = {"auth_token": None, "operator_token": None}
        told = gateway.model_copy(update={"port": port, "public_base_url": url, **secrets})
        order = WorkerOrder(
            settings=settings.model_copy(update={"gateway": told}),
            switchboard=Path(folder) / "places.json",
            database=settings.records.database_url,
        )
        tokens = {AUTH_TOKEN_VARIABLE: gateway.read_auth_token()}
        operators = gateway.read_operator_token()
        if operators is not None:
            tokens[OPERATOR_TOKEN_VARIABLE] = operators
        slots = [
            _Slot(number, command, order, tokens, progress) for number in range(gateway.workers)
        ]
        keeping = [asyncio.create_task(slot.keep()) for slot in slots]
        try:
            await _all_ready(slots, keeping)
            progress(f"{gateway.workers} workers listen, voice webhook {url}/voice")

            async def drain() -> None:
                for slot in slots:
                    slot.drain()
                await asyncio.wait(keeping)

            yield Workers(url, drain)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)


def _reserved(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reserved = socket.socket(family)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
    except OSError:
        reserved.close()
        raise
    return reserved


async def _all_ready(slots: Sequence[_Slot], keeping: Sequence[asyncio.Task[None]]) -> None:
    ready = [asyncio.create_task(slot.ready.wait()) for slot in slots]
    try:
        while not all(task.done() for task in ready):
            waits: set[asyncio.Task[Any]] = {task for task in ready if not task.done()}
            await asyncio.wait({*waits, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            for slot in keeping:
                if slot.done():
                    slot.result()
    finally:
        for task in ready:
            task.cancel()


class _Slot:
    """A place that always has a worker.

    Attributes:
        ready: Set once its worker has listened for the first time.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        order: WorkerOrder,
        tokens: Mapping[str, str],
        progress: Callable[[str], None],
    ):
        self._number = number
        self._command = command
        self._order = order
        self._environment = {**os.environ, **tokens}
        self._progress = progress
        self._process: asyncio.subprocess.Process | None = None
        self._draining = asyncio.Event()
        self.ready = asyncio.Event()

    def drain(self) -> None:
        """Have the worker end when its calls have ended; no other one follows."""
        self._draining.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def keep(self) -> None:
        """Run a worker, and the next one when it dies, until it has drained or this is cancelled.

        Raises:
            WorkerDied: The first one did not come as far as listening.
        """
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            begun = loop.time()
            status = await self._run()
            if self._draining.is_set():
                return
            if not self.ready.is_set():
                raise WorkerDied(f"worker {self._number} ended with status {status} at its start")
            logger.bind(worker=self._number, status=status).error("A worker died")
            self._progress(f"worker {self._number} died with status {status}; starting another")
            died_soon = loop.time() - begun < _SOON_SECONDS
            pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE) if died_soon else 0.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), pause)
                return

    async def _run(self) -> int:
        """Run one worker to its end; if cancelled, end it as it ends by itself."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            # A signal from the terminal is for the parent, which passes it on.
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None
        try:
            # Left open: that it ends tells the worker that its parent is gone.
            process.stdin.write(self._order.model_dump_json().encode() + b"\n")
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            await self._relay(process)
            return await process.wait()
        except asyncio.CancelledError:
            await _stop(process)
            raise
        finally:
            self._process = None

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace").strip()
            if text == READY:
                self.ready.set()
            else:
                self._progress(f"worker {self._number}: {text}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
