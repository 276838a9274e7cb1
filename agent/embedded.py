"""The tritonserver inside the nvidia-pytriton wheel, over a model repository.

For a machine without containers: the demo, the tests, a small deployment. The same repository
runs unchanged in the Triton container (deploy/).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Any

import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException

ENSEMBLE = "glm_voice"
_LOG_TAIL_LINES = 30
_SHM = Path("/dev/shm")
_PREFIX = "glm_voice_triton_"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedServerError(RuntimeError):
    """The server could not be started; the message says why and ends with its log's last lines."""


def installed_model_repository() -> Path:
    """The model repository beside ``agent/``, whether installed or in a checkout."""
    return Path(__file__).resolve().parent.parent / "triton_models"


class EmbeddedServer:
    """A tritonserver on loopback over a model repository, as an async context manager.

    Example:
        async with EmbeddedServer(checkpoint=path) as server:
            client = VoiceClient([server.url])

    The server dies with this process, even when that is killed: the kernel then sends SIGTERM.

    Args:
        checkpoint: Directory with ``speech_tokenizer``, ``language_model`` and ``speech_decoder``;
            the models find it through the environment.
        model_repository: Triton model repository; the installed one when not given.
        model: The model to load, with everything an ensemble needs.
        grpc_port: Port on 127.0.0.1; a free one when not given.
        metrics_port: Port on 127.0.0.1; a free one when not given.
        threads: Threads each model may compute with.
        environment: Further variables for the models (see agent/serving/parameters.py).
        progress: Called as ``progress(model, state)`` whenever a model's state changes while the
            server starts; states are ``"loading"``, ``"ready"`` and ``"failed"``.
        start_timeout: Seconds until every model must be ready.
        log_file: Where the server writes its log; a temporary file when not given.

    Attributes:
        start_seconds: How long the last start took.
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path,
        model_repository: str | Path | None = None,
        model: str = ENSEMBLE,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        progress: Callable[[str, str], None] | None = None,
        start_timeout: float = 300.0,
        log_file: str | Path | None = None,
    ) -> None:
        self._checkpoint = Path(checkpoint).resolve()
        self._repository = Path(model_repository or installed_model_repository()).resolve()
        self._model = model
        self._grpc_port = grpc_port
        self._metrics_port = metrics_port
        self._threads = threads
        self._environment = dict(environment or {})
        self._progress = progress
        self._start_timeout = start_timeout
        self._log_file = Path(log_file).resolve() if log_file else None
        self._workspace: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.start_seconds = 0.0
        self._states: dict[str, str] = {}
        self._shm_prefix = f"{_PREFIX}{os.getpid()}_{id(self):x}_"

    @property
    def url(self) -> str:
        """``host:port`` of the gRPC endpoint, for VoiceClient."""
        return f"127.0.0.1:{self._grpc_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://127.0.0.1:{self._metrics_port}/metrics"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, which is its process group's id as well."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the server's process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        path = self._log_path()
        if path is None or not path.is_file():
            return ""
        # Without the tables of options, which are wide and say nothing about a failure.
        lines = [
            line
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if not line.startswith(("|", "+"))
        ]
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    async def __aenter__(self) -> EmbeddedServer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until the model and all it depends on are ready.

        Raises:
            EmbeddedServerError: if the wheel, the repository or the checkpoint is missing, or the
                server or a model does not start; the message holds the model's own error.
        """
        if self._process is not None:
            return
        if not (self._repository / self._model / "config.pbtxt").is_file():
            raise EmbeddedServerError(
                f"{self._repository}: no Triton model repository with a model {self._model!r}"
            )
        if not self._checkpoint.is_dir():
            raise EmbeddedServerError(f"{self._checkpoint}: no such checkpoint directory")
        for port in (self._grpc_port, self._metrics_port):
            if port is not None:
                _require_free(port)
        _sweep()
        began = time.monotonic()
        self._workspace = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}_"))
        try:
            await self._launch()
            async with asyncio.timeout(self._start_timeout):
                await self._load()
            self.start_seconds = time.monotonic() - began
        except BaseException as error:
            tail = self.log_tail()
            await self.stop()
            if isinstance(error, TimeoutError):
                raise EmbeddedServerError(
                    f"tritonserver: not ready within {self._start_timeout:g} s; "
                    f"its log ends with\n{tail}"
                ) from error
            raise

    async def stop(self) -> None:
        """Stop the server and all its processes and remove what they left; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                # --exit-timeout-secs is 5; a stub that hangs costs a little more than that.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 10)
            # Stubs that outlived the server share its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            _remove_shared_memory(self._shm_prefix)
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            shutil.rmtree(workspace, ignore_errors=True)

    async def reload(self, model: str) -> None:
        """Load a model anew, in a process of its own that takes the old one's place.

        Args:
            model: One that was loaded.

        Raises:
            EmbeddedServerError: It cannot be loaded, or the server has ended.
        """
        if self._workspace is None or not self.running:
            raise EmbeddedServerError("tritonserver: not running")
        # Triton loads nothing anew whose files are as they were.
        for file in (self._workspace / "models" / model).glob("*/model.py"):
            file.touch()
        client = grpcclient.InferenceServerClient(self.url)
        try:
            await self._while_running(client.load_model(model))
        except InferenceServerException as error:
            raise EmbeddedServerError(await self._load_failure(client, error)) from error
        finally:
            await client.close()

    async def _launch(self) -> None:
        assert self._workspace is not None
        wheel = _wheel()
        repository = self._workspace / "models"
        shutil.copytree(self._repository, repository)
        backends = _backend_directory(wheel, self._workspace)
        self._grpc_port = self._grpc_port or _free_port()
        self._metrics_port = self._metrics_port or _free_port()
        log_path = self._log_path()
        assert log_path is not None
        log_path.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(wheel / "tritonserver/bin/tritonserver"),
                f"--model-repository={repository}",
                # Explicit: a model whose process was killed can be loaded again without a restart.
                "--model-control-mode=explicit",
                f"--backend-directory={backends}",
                # The configs are complete; completing them would start each stub twice.
                "--disable-auto-complete-config",
                f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
                "--allow-http=false",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={self._grpc_port}",
                "--metrics-address=127.0.0.1",
                f"--metrics-port={self._metrics_port}",
                "--exit-timeout-secs=5",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._server_environment(wheel),
                # A Ctrl-C at the terminal is for the caller, which stops the server in its turn.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _server_environment(self, wheel: Path) -> dict[str, str]:
        libraries = [str(wheel.parent / "nvidia_pytriton.libs")]
        # The stub embeds Python: it needs the libpython of the very interpreter that runs here.
        libpython = sysconfig.get_config_var("LIBDIR")
        if libpython:
            libraries.append(str(libpython))
        if inherited := os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(inherited)
        python_path = [str(Path(__file__).resolve().parent.parent)]
        if inherited := os.environ.get("PYTHONPATH"):
            python_path.append(inherited)
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The embedded interpreter finds its site-packages through the `python3` on PATH.
            "PATH": f"{sys.exec_prefix}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join(python_path),
            "PYTHONUNBUFFERED": "1",
            # Tracebacks without the values of variables: those are what callers said.
            "LOGURU_DIAGNOSE": "NO",
            "OMP_NUM_THREADS": str(self._threads),
            "GLM_MODEL_THREADS": str(self._threads),
            "GLM_MODEL_CHECKPOINT": str(self._checkpoint),
            **self._environment,
        }

    async def _load(self) -> None:
        await self._while_running(self._until_listening())
        client = grpcclient.InferenceServerClient(self.url)
        try:
            reporter = asyncio.create_task(self._report_states(client))
            try:
                await self._while_running(client.load_model(self._model))
            except InferenceServerException as error:
                if error.status() == "StatusCode.UNAVAILABLE":  # the connection broke
                    assert self._process is not None
                    await self._process.wait()
                    raise self._exited() from error
                raise EmbeddedServerError(await self._load_failure(client, error)) from error
            finally:
                reporter.cancel()
                await asyncio.gather(reporter, return_exceptions=True)
            for name, (state, _) in (await _index(client)).items():
                self._report(name, state)
        finally:
            await client.close()

    async def _load_failure(
        self, client: grpcclient.InferenceServerClient, error: InferenceServerException
    ) -> str:
        # The ensemble's own error only names what it depends on; the index has each reason.
        index = await _index(client)
        failed = {name: reason for name, (state, reason) in index.items() if state == "failed"}
        for name in failed:
            self._report(name, "failed")
        causes = {name: reason for name, reason in failed.items() if name != ENSEMBLE}
        reasons = [f"{name}: {reason}" for name, reason in causes.items()]
        return "\n".join(
            [
                "tritonserver cannot load the models.",
                *(reasons or [str(error.message())]),
                "Its log ends with",
                self.log_tail(),
            ]
        )

    async def _until_listening(self) -> None:
        # By hand: a gRPC channel that was refused once waits a second before it tries again.
        assert self._grpc_port is not None
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._grpc_port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return

    async def _while_running(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``, but not longer than the server lives."""
        assert self._process is not None
        task = asyncio.ensure_future(work)
        exited = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({task, exited}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._exited()
            await task
        finally:
            for future in (task, exited):
                future.cancel()
            await asyncio.gather(task, exited, return_exceptions=True)

    def _exited(self) -> EmbeddedServerError:
        assert self._process is not None
        return EmbeddedServerError(
            f"tritonserver exited with code {self._process.returncode} while it started; "
            f"its log ends with\n{self.log_tail()}"
        )

    async def _report_states(self, client: grpcclient.InferenceServerClient) -> None:
        while True:
            with contextlib.suppress(InferenceServerException):
                for name, (state, _) in (await _index(client)).items():
                    self._report(name, state)
            await asyncio.sleep(0.1)

    def _report(self, model: str, state: str) -> None:
        if self._progress is not None and self._states.get(model) != state:
            self._states[model] = state
            self._progress(model, state)

    def _log_path(self) -> Path | None:
        if self._log_file is not None:
            return self._log_file
        return self._workspace / "server.log" if self._workspace is not None else None


async def _index(client: grpcclient.InferenceServerClient) -> dict[str, tuple[str, str]]:
    """State and reason of each model that the server has been asked for."""
    states = {"LOADING": "loading", "READY": "ready", "UNAVAILABLE": "failed"}
    index = await client.get_model_repository_index(client_timeout=5)
    return {
        # The reason goes on with Triton's stack; the log has it in full.
        model.name: (
            states[model.state],
            model.reason.removeprefix("Internal: ").partition("\n\nAt:")[0],
        )
        for model in index.models
        if model.state in states
    }


def _wheel() -> Path:
    try:
        found = distribution("nvidia-pytriton")
    except PackageNotFoundError as error:
        raise EmbeddedServerError(
            "package nvidia-pytriton, which holds tritonserver, is missing"
        ) from error
    wheel = Path(str(found.locate_file("pytriton")))
    if not (wheel / "tritonserver/bin/tritonserver").is_file():
        raise EmbeddedServerError(f"{wheel}: this nvidia-pytriton holds no tritonserver")
    return wheel


def _backend_directory(wheel: Path, workspace: Path) -> Path:
    """The wheel's Python backend and the stub for this interpreter, laid out as Triton wants."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise EmbeddedServerError(f"{wheel}: no Python backend stub for Python {version}")
    directory = workspace / "backends/python"
    directory.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (directory / name).symlink_to(wheel / "tritonserver/backends/python" / name)
    (directory / stub.name).symlink_to(stub)
    return directory.parent


def _require_free(port: int) -> None:
    # tritonserver would say so too, but whoever has the port would be taken for it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedServerError(
                f"127.0.0.1:{port}: tritonserver cannot listen there ({error.strerror})"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _remove_shared_memory(prefix: str) -> None:
    for region in _SHM.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove what the servers of killed processes left in shared memory and among the files."""
    for left in (*_SHM.glob(f"{_PREFIX}*"), *Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        owner = left.name.removeprefix(_PREFIX).split("_", 1)[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another user's
                left.unlink(missing_ok=True)
