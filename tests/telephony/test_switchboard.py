import pytest

from telephony.switchboard import LineBusyError, Switchboard


@pytest.fixture
def switchboard(manual_clock):
    return Switchboard(2, manual_clock)


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
