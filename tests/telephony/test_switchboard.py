import asyncio

import pytest

from telephony.switchboard import LineBusyError, Switchboard


@pytest.fixture
def switchboard(manual_clock):
    return Switchboard(lambda: 2, manual_clock)


def test_a_token_opens_one_socket_of_its_own_call_once(switchboard):
    token = switchboard.admit("CA1")
    assert not switchboard.connect("CA2", token)
    assert not switchboard.connect("CA1", "another")
    assert not switchboard.connect("CA1", "")
    assert switchboard.connect("CA1", token)
    assert not switchboard.connect("CA1", token)


def test_a_token_that_is_not_ascii_is_refused_without_an_exception(switchboard):
    switchboard.admit("CA1")
    assert not switchboard.connect("CA1", "tökén")


async def test_a_token_grows_old_and_its_place_is_free_again(switchboard, manual_clock):
    tokens = [switchboard.admit("CA1"), switchboard.admit("CA2")]
    await manual_clock.advance(31)
    assert not switchboard.connect("CA1", tokens[0])
    switchboard.admit("CA3")


def test_calls_beyond_the_limit_are_refused_until_one_ends(switchboard):
    assert switchboard.connect("CA1", switchboard.admit("CA1"))
    switchboard.admit("CA2")
    with pytest.raises(LineBusyError):
        switchboard.admit("CA3")
    switchboard.release("CA1")
    switchboard.admit("CA3")
    switchboard.release("CA2")
    switchboard.admit("CA4")
    assert switchboard.active == 0


def test_a_repeated_webhook_takes_no_second_place(switchboard):
    first = switchboard.admit("CA1")
    second = switchboard.admit("CA1")
    switchboard.admit("CA2")
    assert not switchboard.connect("CA1", first)
    assert switchboard.connect("CA1", second)


def test_a_second_socket_of_a_running_call_is_refused(switchboard):
    assert switchboard.connect("CA1", switchboard.admit("CA1"))
    assert not switchboard.connect("CA1", switchboard.admit("CA1"))
    assert switchboard.active == 1


def test_nobody_is_let_in_while_draining(switchboard):
    switchboard.draining = True
    with pytest.raises(LineBusyError):
        switchboard.admit("CA1")


def test_a_thousand_refused_or_abandoned_calls_leave_nothing_behind(switchboard, manual_clock):
    for number in range(1000):
        switchboard.admit(f"CA{number}")
        manual_clock.now += 31
    switchboard.admit("CA")
    assert len(switchboard._expected) == 1


def waits(switchboard, sid, agent="", most=None):
    """How many calls wait before it."""
    with pytest.raises(LineBusyError) as caught:
        switchboard.admit(sid, agent, most, wait=True)
    return caught.value.ahead


def test_waiting_calls_are_let_in_in_the_order_in_which_they_came(switchboard):
    for sid in ("CA1", "CA2"):
        switchboard.admit(sid)
    assert [waits(switchboard, sid) for sid in ("CA3", "CA4", "CA5")] == [0, 1, 2]
    assert switchboard.waiting == 3
    switchboard.release("CA1")
    # Neither a later one nor a new call goes before the first.
    assert waits(switchboard, "CA4") == 1
    with pytest.raises(LineBusyError):
        switchboard.admit("CA6")
    switchboard.admit("CA3")
    assert waits(switchboard, "CA4") == 0
    switchboard.forget("CA4")
    switchboard.release("CA2")
    switchboard.admit("CA5")
    assert switchboard.waiting == 0


def test_calls_that_wait_for_one_agent_keep_no_place_from_another(manual_clock):
    switchboard = Switchboard(lambda: 4, manual_clock)
    switchboard.admit("CA1", "small", 1)
    for number in range(2, 9):
        waits(switchboard, f"CA{number}", "small", 1)
    for number in range(11, 14):
        switchboard.admit(f"CA{number}", "large")
    assert waits(switchboard, "CA14", "large") == 7
    switchboard.release("CA1")
    # The first of those who wait has a claim to it now.
    assert waits(switchboard, "CA14", "large") == 7
    switchboard.admit("CA2", "small", 1)
    switchboard.release("CA11")
    switchboard.admit("CA14", "large")


def test_a_lower_limit_ends_no_call(manual_clock):
    limit = 2
    switchboard = Switchboard(lambda: limit, manual_clock)
    assert switchboard.connect("CA1", switchboard.admit("CA1"))
    assert switchboard.connect("CA2", switchboard.admit("CA2"))
    limit = 1
    assert switchboard.active == 2
    switchboard.release("CA1")
    with pytest.raises(LineBusyError):
        switchboard.admit("CA3")


def test_nobody_waits_while_draining(switchboard):
    switchboard.draining = True
    assert waits(switchboard, "CA1") == 0
    assert not switchboard.is_waiting("CA1")


async def test_a_drained_switchboard_is_empty(switchboard, manual_clock):
    switchboard.connect("CA1", switchboard.admit("CA1"))
    switchboard.admit("CA2")
    waits(switchboard, "CA3")
    empty = asyncio.create_task(switchboard.empty())
    for sid in ("CA1", "CA2", "CA3"):
        await manual_clock.settle()
        assert not empty.done()
        switchboard.release(sid)
    await empty
