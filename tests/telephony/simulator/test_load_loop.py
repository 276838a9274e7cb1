"""The event loop of a load run."""

import asyncio
import socket
import threading
import time

import pytest

from telephony.simulator import load_loop


@pytest.fixture
def runner():
    with asyncio.Runner(loop_factory=load_loop.new_event_loop) as runner:
        yield runner


def test_what_comes_while_it_waits_is_read_in_one_turn(runner, monkeypatch):
    pairs = [socket.socketpair() for _ in range(5)]
    turns = 0

    def sleep(seconds):
        nonlocal turns
        assert 0 < seconds <= 0.001
        turns += 1
        if turns == 3:
            for _, far in pairs:
                far.send(b"x")

    async def run():
        loop = asyncio.get_running_loop()
        everything = loop.create_future()
        read = []

        def ready(near):
            read.append((near.recv(1), turns))
            if len(read) == len(pairs):
                everything.set_result(None)

        for near, _ in pairs:
            near.setblocking(False)
            loop.add_reader(near, ready, near)
        monkeypatch.setattr(time, "sleep", sleep)
        await everything
        for near, _ in pairs:
            loop.remove_reader(near)
        return read

    try:
        assert runner.run(run()) == [(b"x", 3)] * 5
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_timers_and_other_threads_wake_it(runner):
    async def run():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(0.005)
        assert loop.time() - before >= 0.005
        woken = asyncio.Event()
        threading.Thread(target=loop.call_soon_threadsafe, args=(woken.set,)).start()
        await asyncio.wait_for(woken.wait(), 30)
        return "woken"

    assert runner.run(run()) == "woken"
