"""The embedded server over model repositories of a few lines, which start in a second or two."""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest
import tritonclient.grpc.aio as grpcclient

from agent.embedded import EmbeddedServer, EmbeddedServerError, installed_model_repository

CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
MODEL = """
import os
import sys
from pathlib import Path

import numpy
import agent

class TritonPythonModel:
    def initialize(self, args):
        seen = [sys.prefix, str(Path(agent.__file__).parent), numpy.__version__]
        seen += [os.environ[name] for name in sorted(os.environ) if name.startswith("GLM_MODEL_")]
        print("SEEN", *seen, sep="|", flush=True)
        {extra}
"""
SHM = Path("/dev/shm")


@pytest.fixture
def repository(tmp_path: Path):
    def make(name: str, extra: str = "") -> Path:
        model = tmp_path / "models" / name / "1"
        model.mkdir(parents=True)
        (model.parent / "config.pbtxt").write_text(CONFIG)
        (model / "model.py").write_text(MODEL.format(extra=extra))
        return tmp_path / "models"

    return make


def fetch(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def regions(pid: int) -> list[str]:
    return [path.name for path in SHM.glob(f"glm_voice_triton_{pid}_*")]


def group(pid: int) -> list[int]:
    """Processes of a process group that still run."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


async def test_models_run_in_this_environment_and_leave_nothing(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_MODEL_LEAD_LIMIT", "30")
    states = []
    server = EmbeddedServer(
        checkpoint=tmp_path,
        model_repository=repository("toy"),
        model="toy",
        threads=2,
        environment={"GLM_MODEL_ENGINE": "torch"},
        progress=lambda *event: states.append(event),
        log_file=tmp_path / "logs/server.log",
    )
    async with server:
        assert states == [("toy", "loading"), ("toy", "ready")]
        client = grpcclient.InferenceServerClient(server.url)
        assert await client.is_model_ready("toy")
        await client.close()
        assert "nv_inference_count" in await asyncio.to_thread(fetch, server.metrics_url)
        pid = server.pid
        assert len(group(pid)) >= 2
        assert regions(os.getpid())
    log = (tmp_path / "logs/server.log").read_text()
    _, prefix, package, *rest = next(x for x in log.splitlines() if "SEEN" in x).split("|")
    assert Path(prefix) == Path(sys.prefix)
    assert Path(package) == Path(__file__).parents[1] / "agent"
    assert rest[1:] == [str(tmp_path), "torch", "30", "2"]
    assert group(pid) == []
    assert regions(os.getpid()) == []
    await server.stop()
    assert server.pid is None


async def test_a_model_that_fails_says_why(repository, tmp_path):
    states = []
    server = EmbeddedServer(
        checkpoint=tmp_path,
        model_repository=repository("toy", 'raise ValueError("codebook of 7 codes")'),
        model="toy",
        progress=lambda *event: states.append(event),
    )
    with pytest.raises(EmbeddedServerError, match="codebook of 7 codes"):
        await server.start()
    assert states[-1] == ("toy", "failed")
    assert server.pid is None
    assert regions(os.getpid()) == []


async def test_a_damaged_checkpoint_is_named(goldens, tmp_path):
    shutil.copytree(goldens / "speech_tokenizer", tmp_path / "speech_tokenizer")
    weights = tmp_path / "speech_tokenizer/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(EmbeddedServerError, match=f"CheckpointError: {weights}: "):
        await EmbeddedServer(checkpoint=tmp_path, model="speech_tokenizer").start()


async def test_a_missing_checkpoint_is_named_before_anything_starts(tmp_path):
    server = EmbeddedServer(checkpoint=tmp_path / "nowhere")
    with pytest.raises(EmbeddedServerError, match="nowhere: no such checkpoint directory"):
        await server.start()


async def test_a_directory_that_is_no_repository_is_named(tmp_path):
    server = EmbeddedServer(checkpoint=tmp_path, model_repository=tmp_path)
    with pytest.raises(EmbeddedServerError, match="no Triton model repository with a model"):
        await server.start()


@pytest.mark.parametrize("which", ["grpc_port", "metrics_port"])
async def test_a_port_in_use_is_named(repository, tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedServer(
            checkpoint=tmp_path,
            model_repository=repository("toy"),
            model="toy",
            **{which: port},
        )
        with pytest.raises(EmbeddedServerError, match=f"127.0.0.1:{port}: .*already in use"):
            await server.start()


async def test_a_server_that_exits_is_an_error_with_its_log(repository, tmp_path):
    server = EmbeddedServer(
        checkpoint=tmp_path,
        model_repository=repository("toy", "os.kill(os.getppid(), 9)"),
        model="toy",
    )
    with pytest.raises(EmbeddedServerError, match=r'(?s)exited with code -9.*"loading: toy:1"'):
        await server.start()
    assert regions(os.getpid()) == []


async def test_a_start_that_takes_too_long_is_given_up(repository, tmp_path):
    server = EmbeddedServer(
        checkpoint=tmp_path, model_repository=repository("toy"), model="toy", start_timeout=0.0
    )
    with pytest.raises(EmbeddedServerError, match="not ready within 0 s"):
        await server.start()
    assert server.pid is None


def test_the_server_dies_with_a_killed_owner(repository, tmp_path):
    script = textwrap.dedent(
        f"""
        import asyncio
        from agent.embedded import EmbeddedServer

        async def main():
            repository = {str(repository("toy"))!r}
            server = EmbeddedServer(
                checkpoint={str(tmp_path)!r}, model_repository=repository, model="toy"
            )
            await server.start()
            print(server.pid, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as owner:
        pid = int(owner.stdout.readline())
        assert group(pid)
        owner.send_signal(signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(pid)) as ended:
        assert select.select([ended], [], [], 60)[0]
    assert regions(owner.pid) == []


def test_the_installed_repository_is_found():
    assert (installed_model_repository() / "glm_voice/config.pbtxt").is_file()
