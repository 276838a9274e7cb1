"""Gateways that share their places: what begins at one goes on at another."""

import functools

import pytest

from telephony import webhooks
from telephony.shared_switchboard import SharedSwitchboard

DESK = "+15550100002"
TRANSFER = {"kind": "transfer", "destinations": {"nurse": "+15550100004"}}
AGENTS = {"desk": {"numbers": [DESK], "tools": [TRANSFER]}, "night": {}}


@pytest.fixture
async def houses(house, tmp_path):
    shared = functools.partial(SharedSwitchboard, tmp_path / "places.json")
    return [await house(AGENTS, open_switchboard=shared, max_calls=1) for _ in range(2)]


async def test_a_call_goes_on_where_its_socket_comes_and_is_answered_by_its_agent(
    houses, eventually
):
    webhook, socket = houses
    async with webhook.stream("CA1", at=socket):
        assert socket.gateway.live["CA1"].agent_name == "desk"
        assert not webhook.gateway.reception._arrivals
        async with webhook.post("/voice", {"CallSid": "CA2", "To": DESK}) as response:
            assert "<Connect" not in await response.text()
    await eventually(lambda: not socket.gateway.live)
    assert socket.gateway.switchboard.active == 0
    assert all(session.closed for session in socket.engine.sessions)


async def test_whom_a_call_is_to_be_connected_with_every_gateway_can_say(houses, eventually):
    webhook, socket = houses
    async with webhook.stream("CA1", at=socket):
        document = webhooks.dial_twiml("+15550100004", "/forwarded")
        socket.gateway.switchboard.documents["CA1"] = document
        async with webhook.post("/next", {"CallSid": "CA1"}) as response:
            text = await response.text()
    assert "+15550100004</Dial>" in text
    assert "CA1" not in socket.gateway.switchboard.documents


async def test_a_status_at_another_gateway_ends_no_call(houses):
    webhook, socket = houses
    async with webhook.stream("CA1", at=socket):
        fields = {"CallSid": "CA1", "CallStatus": "completed"}
        async with webhook.post("/status", fields) as response:
            assert response.status == 204
        assert "CA1" in socket.gateway.live
        assert webhook.gateway.switchboard.active == 1
