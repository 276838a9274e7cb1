"""Places that several processes share."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from telephony.shared_switchboard import SharedSwitchboard
from telephony.switchboard import LineBusyError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "places.json"


@pytest.fixture
def board(path, manual_clock):
    return SharedSwitchboard(path, lambda: 2, manual_clock)


@pytest.fixture
def other(path, manual_clock, board):
    """The switchboard of another worker; here of the same process, which it cannot know."""
    return SharedSwitchboard(path, lambda: 2, manual_clock)


def test_a_token_from_one_worker_opens_the_socket_at_another_and_once(board, other):
    token = board.admit("CA1")
    assert not other.connect("CA1", "a guess")
    assert not other.connect("CA2", token)
    assert other.connect("CA1", token)
    assert not board.connect("CA1", token)
    assert board.active == other.active == 1


def test_all_workers_together_take_as_many_calls_as_are_allowed(board, other):
    board.admit("CA1")
    other.admit("CA2")
    for line in (board, other):
        with pytest.raises(LineBusyError):
            line.admit("CA3")
    other.admit("CA1")
    board.forget("CA2")
    board.admit("CA3")


def test_a_token_is_too_old_after_half_a_minute_and_its_place_free(board, other, manual_clock):
    token = board.admit("CA1")
    manual_clock.now += 31
    assert not other.connect("CA1", token)
    board.admit("CA2")
    other.admit("CA3")


def test_a_worker_that_drains_lets_nobody_in_and_the_others_do(board, other):
    board.draining = True
    with pytest.raises(LineBusyError):
        board.admit("CA1")
    other.admit("CA1")


def test_a_status_callback_at_another_worker_leaves_a_running_call_its_place(board, other):
    assert board.connect("CA1", board.admit("CA1"))
    other.forget("CA1")
    assert other.active == 1
    board.release("CA1")
    assert other.active == 0


def test_what_a_process_held_is_free_when_it_is_gone(path, board):
    """A worker that is killed cleans nothing up."""
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    places = json.loads(path.read_text())
    places["workers"].append(int(gone.stdout))
    places["live"] = {"CA1": (int(gone.stdout), ""), "CA2": (os.getpid(), "")}
    path.write_text(json.dumps(places))
    assert board.active == 1
    assert board.workers == 1
    board.admit("CA3")


def test_whom_a_call_is_to_be_connected_with_any_worker_can_say_once(board, other):
    board.documents["CA1"] = "+15550100009"
    assert other.documents.pop("CA1", "") == "+15550100009"
    assert board.documents.pop("CA1", "") == ""


def test_an_agents_limit_and_name_are_known_to_every_worker(board, other):
    assert other.connect("CA1", board.admit("CA1", "desk", 1))
    assert board.agent_of("CA1") == "desk"
    with pytest.raises(LineBusyError):
        board.admit("CA2", "desk", 1)
    board.admit("CA2", "night", 1)
    assert other.calls_of("night") == 1


def test_operators_drain_every_worker(board, other):
    board.drain()
    assert other.draining
    with pytest.raises(LineBusyError):
        other.admit("CA1")


async def test_a_worker_has_no_calls_left_once_none_is_here_or_expected(board, other, manual_clock):
    empty = asyncio.create_task(board.empty())
    token = other.admit("CA1")
    await manual_clock.advance(1)
    assert not empty.done()
    assert board.connect("CA1", token)
    await manual_clock.advance(1)
    assert not empty.done()
    board.release("CA1")
    await manual_clock.advance(1)
    assert empty.done()
