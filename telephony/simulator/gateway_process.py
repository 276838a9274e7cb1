"""The gateway in a process of its own, as it runs in service, for demonstrations and tests."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import aiohttp

from agent.settings import AUTH_TOKEN_VARIABLE, ENVIRONMENT_PREFIX
from telephony.clock import Clock
from telephony.simulator.clock import UnixClock
from telephony.simulator.target import Target

PUBLIC_BASE_URL = "https://front-desk.example"
"""What the gateway believes itself to be called; nothing of this name is ever looked up."""
_POLL_SECONDS = 0.25
_STOP_SECONDS = 15.0
_LOG_LINES = 20


class GatewayError(RuntimeError):
    """The gateway did not come up; the message ends with the last lines of its log."""


class GatewayProcess:
    """``glm-voice serve`` on a free port of loopback, as an async context manager.

    Attributes:
        target: Whom to call; the secret that both sides share is drawn for this process.
        records: The database with the gateway's records.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Path | None = None,
        progress: Callable[[str], None] | None = None,
        start_timeout: float = 120.0,
        clock: Clock | None = None,
    ) -> None:
        """Prepare a gateway.

        Args:
            directory: Receives its log and its records; made if need be.
            settings: A YAML file of settings, by default none: the embedded engine with the
                checkpoint that ships. Address, public base URL, records and secret are overridden.
            progress: Told each step of its start, as a line for a person.
            start_timeout: Seconds until it must be able to answer calls.
            clock: Tells the time and waits.
        """
        self._records_directory = directory / "records"
        self.records = self._records_directory / "calls.db"
        self._directory = directory
        self._settings = settings
        self._progress = progress
        self._start_timeout = start_timeout
        self._clock = clock or UnixClock()
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._relaying: asyncio.Task[None] | None = None
        self.target = Target(
            f"{PUBLIC_BASE_URL}/voice",
            secrets.token_hex(16),
            via=f"http://127.0.0.1:{self._port}",
            status_url=f"{PUBLIC_BASE_URL}/status",
        )

    async def __aenter__(self) -> "GatewayProcess":
        """Start it and wait until it can answer calls.

        Raises:
            GatewayError: It ended, or did not become healthy in time.
        """
        self._records_directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "agent.cli", "serve"]
        if self._settings is not None:
            command += ["--settings", str(self._settings)]
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self._environment()},
            )
        self._relaying = asyncio.create_task(self._relay())
        try:
            await self._wait_until_healthy()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    @property
    def _log(self) -> Path:
        return self._directory / "gateway.log"

    def _environment(self) -> dict[str, str]:
        gateway = f"{ENVIRONMENT_PREFIX}GATEWAY__"
        records = f"{ENVIRONMENT_PREFIX}RECORDS__"
        return {
            f"{gateway}HOST": "127.0.0.1",
            f"{gateway}PORT": str(self._port),
            f"{gateway}PUBLIC_BASE_URL": PUBLIC_BASE_URL,
            f"{records}DIRECTORY": str(self._records_directory.resolve()),
            f"{records}URL": f"sqlite:///{self.records.resolve()}",
            AUTH_TOKEN_VARIABLE: self.target.auth_token,
        }

    async def _relay(self) -> None:
        """Pass on what it prints, which is its progress, for as long as it prints."""
        assert self._running.stdout is not None
        async for line in self._running.stdout:
            if self._progress is not None:
                self._progress(line.decode(errors="replace").strip())

    async def _wait_until_healthy(self) -> None:
        deadline = self._clock.time() + self._start_timeout
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                if self._running.returncode is not None:
                    raise self._failure(f"it ended with status {self._running.returncode}")
                try:
                    async with session.get(f"http://127.0.0.1:{self._port}/health") as response:
                        if response.status == 200:
                            return
                        state = f"/health answers {response.status}"
                except (aiohttp.ClientError, TimeoutError) as error:
                    state = f"/health: {error}"
                if self._clock.time() > deadline:
                    raise self._failure(f"not ready in {self._start_timeout:.0f} s ({state})")
                await self._clock.sleep(_POLL_SECONDS)

    async def _stop(self) -> None:
        if self._running.returncode is None:
            self._running.terminate()
        try:
            await asyncio.wait_for(self._running.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._running.kill()
            await self._running.wait()
        if self._relaying is not None:
            await self._relaying

    def _failure(self, reason: str) -> GatewayError:
        lines = self._log.read_text("utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return GatewayError("\n".join([f"the gateway did not start: {reason}", *lines]))

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("GatewayProcess is used outside of 'async with'")
        return self._process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
