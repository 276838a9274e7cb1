"""Several workers behind one port."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from telephony.agents import CallCentre
from telephony.workers import WorkerDied, WorkerOrder, working

SMALL_WORKER = """
import asyncio, json, os, signal, sys
from aiohttp import web

async def main():
    order = json.loads(sys.stdin.buffer.raw.readline())
    gateway = order["settings"]["gateway"]
    folder = os.environ["TEST_FOLDER"]
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_reader(sys.stdin.fileno(), stopped.set)

    async def who(request):
        return web.json_response(
            {"pid": os.getpid(), "token": os.environ["TWILIO_AUTH_TOKEN"], "order": order}
        )

    app = web.Application()
    app.router.add_get("/who", who)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, gateway["host"], gateway["port"], reuse_port=True).start()
    print("listens", flush=True)
    print("ready", flush=True)
    await stopped.wait()
    open(os.path.join(folder, f"stopped-{os.getpid()}"), "w").close()

asyncio.run(main())
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The command of a worker that only says who it is."""
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    script = tmp_path / "worker.py"
    script.write_text(SMALL_WORKER)
    return [sys.executable, str(script)]


def settings(tmp_path, workers, **gateway):
    return CallCentre.model_validate(
        {
            "triton": {"urls": ["127.0.0.1:9"], "embedded": False},
            "gateway": {
                "port": 0,
                "workers": workers,
                "auth_token": "secret",
                **gateway,
            },
            "records": {"directory": tmp_path / "records"},
        }
    )


async def ask(url, path="/who"):
    """On a connection of its own, which may reach any worker."""
    async with aiohttp.ClientSession() as session, session.get(url + path) as response:
        return await response.json()


async def pids(url, count):
    """Who answers, until so many have."""
    seen = set()
    async with asyncio.timeout(60):
        while len(seen) < count:
            seen.add((await ask(url))["pid"])
            await asyncio.sleep(0.005)
    return seen


async def test_workers_share_a_port_and_are_told_to_stop(tmp_path, small):
    told = []
    async with working(settings(tmp_path, 2), told.append, small) as workers:
        url = workers.url
        seen = await pids(url, 2)
        answer = await ask(url)
        assert answer["token"] == "secret"
        gateway = answer["order"]["settings"]["gateway"]
        assert gateway["auth_token"] is gateway["operator_token"] is None
        assert gateway["public_base_url"] == url
    assert {path.name for path in tmp_path.glob("stopped-*")} == {f"stopped-{p}" for p in seen}
    assert f"2 workers listen, voice webhook {url}/voice" in told
    assert {"worker 0: listens", "worker 1: listens"} <= set(told)


class Told:
    """Takes lines and can be waited for."""

    def __init__(self):
        self.lines = []
        self._changed = asyncio.Event()

    def __call__(self, line):
        self.lines.append(line)
        self._changed.set()

    async def wait(self, text, count):
        """Until so many lines have had the text in them."""
        async with asyncio.timeout(60):
            while sum(text in line for line in self.lines) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_a_worker_that_dies_is_replaced(tmp_path, small):
    told = Told()
    async with working(settings(tmp_path, 2), told, small) as workers:
        url = workers.url
        first = await pids(url, 2)
        victim = first.pop()
        os.kill(victim, signal.SIGKILL)
        await told.wait("died with status -9", 1)
        await told.wait(": listens", 3)
        now = await pids(url, 2)
        assert victim not in now
        assert first < now


async def test_a_worker_that_cannot_start_ends_the_gateway_with_its_status(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    with pytest.raises(WorkerDied, match="ended with status 7 at its start"):
        async with working(settings(tmp_path, 2), lambda line: None, command):
            pytest.fail("it counts as started")


async def test_a_worker_ends_when_its_parent_is_gone(tmp_path, small):
    told = settings(tmp_path, 1)
    order = WorkerOrder(
        settings=told, switchboard=tmp_path / "places.json", database=told.records.database_url
    )
    text = order.model_copy(
        update={"settings": order.settings.model_copy(update={"gateway": _without_token(order)})}
    ).model_dump_json()
    process = await asyncio.create_subprocess_exec(
        *small,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TWILIO_AUTH_TOKEN": "secret"},
    )
    process.stdin.write(text.encode() + b"\n")
    await asyncio.wait_for(process.stdout.readline(), 60)
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0


def _without_token(order):
    return order.settings.gateway.model_copy(update={"auth_token": None})


async def test_real_workers_take_calls_together_and_say_so(tmp_path):
    told = []
    repository = Path(__file__).parents[2]
    command = ["env", f"PYTHONPATH={repository}", sys.executable, "-m", "telephony.worker"]
    async with working(settings(tmp_path, 2, max_calls=3), told.append, command) as workers:
        health = await ask(workers.url, "/health")
        # With nobody on the line, each ends at once, and no other one follows.
        await workers.drain()
    assert not [line for line in told if "died" in line]
    # There is no engine, and a gateway without one says so.
    assert health["engine"] == "unreachable"
    assert (health["workers"], health["active_calls"], health["draining"]) == (2, 0, False)
