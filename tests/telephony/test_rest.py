"""Twilio's REST API on a bad day: what is asked again, and what must not be."""

from collections import deque

import pytest
from aiohttp import web

from telephony.rest import NewCall, RestError, TwilioRest

ACCOUNT = "AC" + "0" * 32


class HurriedClock:
    def __init__(self):
        self.slept = []

    def time(self):
        return sum(self.slept)

    async def sleep(self, seconds):
        self.slept.append(seconds)


class Twilio:
    """Gives the answers of a script, then a call."""

    def __init__(self):
        self.script = deque()
        self.asked = []

    async def answer(self, request):
        self.asked.append((request.path, sorted((await request.post()).items())))
        status, body, headers = self.script.popleft() if self.script else (201, {"sid": "CA1"}, {})
        if status is None:
            request.transport.close()
        return web.json_response(body, status=status or 200, headers=headers)


@pytest.fixture
def twilio():
    return Twilio()


@pytest.fixture
def clock():
    return HurriedClock()


@pytest.fixture
async def rest(twilio, clock, aiohttp_server):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", twilio.answer)
    server = await aiohttp_server(app)
    return TwilioRest("secret", str(server.make_url("")), clock)


CALL = NewCall("+15550100003", "+15550100002", url="https://phone.example/answer")
BUSY = (429, {"code": 20429, "message": "Too Many Requests"}, {})
DOWN = (500, {"code": 20500, "message": "Internal Server Error"}, {})


async def test_a_busy_twilio_is_asked_again_later(rest, twilio, clock):
    twilio.script.extend([BUSY, (503, {}, {"Retry-After": "3"})])
    assert await rest.create(ACCOUNT, CALL) == "CA1"
    assert len(twilio.asked) == 3
    assert clock.slept == [0.5, 3.0]


@pytest.mark.parametrize("failure", [DOWN, (None, None, {})])
async def test_nobody_is_called_twice_when_it_is_not_known_what_became_of_the_first_call(
    rest, twilio, failure
):
    twilio.script.append(failure)
    with pytest.raises(RestError):
        await rest.create(ACCOUNT, CALL)
    assert len(twilio.asked) == 1


@pytest.mark.parametrize("failure", [DOWN, (None, None, {})])
async def test_a_call_is_steered_once_more_when_it_is_not_known(rest, twilio, failure):
    twilio.script.append(failure)
    await rest.execute(ACCOUNT, "CA1", "<Response/>")
    assert len(twilio.asked) == 2


async def test_a_refusal_says_why_and_is_final(rest, twilio):
    twilio.script.append((400, {"code": 21211, "message": "invalid number"}, {}))
    with pytest.raises(RestError, match="invalid number") as refused:
        await rest.create(ACCOUNT, CALL)
    assert (refused.value.status, refused.value.code) == (400, 21211)
    assert len(twilio.asked) == 1


async def test_attempts_come_to_an_end(rest, twilio):
    twilio.script.extend([BUSY] * 9)
    with pytest.raises(RestError, match="Too Many"):
        await rest.end(ACCOUNT, "CA1")
    assert len(twilio.asked) == 4


async def test_a_twilio_that_is_not_there_is_an_error(unused_tcp_port, clock):
    rest = TwilioRest("secret", f"http://127.0.0.1:{unused_tcp_port}", clock)
    with pytest.raises(RestError, match="cannot be reached"):
        await rest.create(ACCOUNT, CALL)
    assert len(clock.slept) == 3
