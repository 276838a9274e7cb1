"""What the gateway lets nobody do, and what never gets into a log."""

import asyncio

import pytest
from aiohttp import ClientSession, WSMsgType
from loguru import logger

from telephony.media_streams import Media

DESK = "+15550100002"
FRAME = bytes([0xFF] * 160)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def test_no_secret_is_ever_logged_and_no_number_or_word_by_default(
    house, secrets, engine, monkeypatch
):
    monkeypatch.setattr("telephony.switchboard.secrets.token_urlsafe", lambda n: "one-time")
    everything, default = [], []
    sinks = [
        logger.add(lines.append, level=level, format="{message} {extra} {exception}")
        for lines, level in ((everything, 0), (default, "INFO"))
    ]
    try:
        house = await house({"desk": {"numbers": [DESK], "greeting_text": "Private words."}})
        await house.call(DESK)
        await house.call("+15550107777")
        engine.error = RuntimeError("connection refused")
        await house.call(DESK)
        async with ClientSession() as client:
            for headers in ({}, bearer("guessed"), bearer(secrets["operator"])):
                async with client.get(house.url("/operator/status"), headers=headers):
                    pass
            form = {"CallSid": "CA1", "From": secrets["caller"], "To": DESK}
            async with client.post(house.url("/voice"), data=form) as response:
                assert response.status == 403
    finally:
        for sink in sinks:
            logger.remove(sink)
    assert "Call not answered" in "".join(everything)
    assert "Call started" in "".join(default)
    for secret in (secrets["auth"], secrets["operator"], "one-time"):
        assert secret not in "".join(everything)
    for private in (secrets["caller"], DESK, "+15550107777", "Private words."):
        assert private not in "".join(default)


# ---- media streams


async def test_a_stream_that_brings_too_many_messages_is_closed(house, eventually):
    house = await house({"desk": {}}, messages_per_second=60)
    async with house.stream("CA1") as socket:
        for number in range(1, 700):
            media = Media("MZ1", FRAME, number * 20, number, number + 1)
            await socket.send_str(media.to_json())
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert message.extra == "too many messages"
    await eventually(lambda: '"cause": "protocol_error"' in house.text("CA1"))
    await eventually(lambda: not house.gateway.live)
    assert house.nothing_left()


# ---- connections of an address


async def hold(house, client, **headers):
    """A request that stays: a signed socket on which nothing comes."""
    return await client.ws_connect(
        house.url("/media"), headers={**house.socket_signature(), **headers}
    )


async def test_an_address_with_too_many_sockets_that_are_no_calls_gets_429(house, eventually):
    house = await house({"desk": {}}, connections_per_address=2)
    async with ClientSession() as client, house.stream("CA1") as call:
        # Those that are calls do not count.
        assert not call.closed
        held = [await hold(house, client) for _ in range(2)]
        async with client.get(house.url("/health")) as response:
            assert response.status == 429
        await held[0].close()
        await eventually(lambda: sum(house.gateway.addresses._open.values()) == 1)
        async with client.get(house.url("/health")) as response:
            assert response.status == 200
        await held[1].close()
    await eventually(lambda: not house.gateway.addresses._open)
    await eventually(lambda: not house.gateway.live)
    assert house.nothing_left()


@pytest.mark.parametrize(("trusted", "status"), [(["127.0.0.1"], 200), ([], 429)])
async def test_behind_a_proxy_that_is_trusted_each_client_has_its_own(house, trusted, status):
    house = await house({"desk": {}}, connections_per_address=1, trusted_proxies=trusted)
    async with ClientSession() as client:
        socket = await hold(house, client, **{"X-Forwarded-For": "203.0.113.7"})
        # What a client writes there itself stands further left, and is not believed.
        for address in ("203.0.113.8", "203.0.113.7, 203.0.113.9"):
            headers = {"X-Forwarded-For": address}
            async with client.get(house.url("/health"), headers=headers) as response:
                assert response.status == status
        headers = {"X-Forwarded-For": "203.0.113.8, 203.0.113.7"}
        async with client.get(house.url("/health"), headers=headers) as response:
            assert response.status == 429
        await socket.close()


# ---- operators


@pytest.mark.parametrize(
    "headers", [{}, bearer("guessed"), bearer(""), {"Authorization": "Basic x"}]
)
async def test_operators_need_their_token(house, headers):
    house = await house({"desk": {}})
    async with ClientSession(headers=headers) as client:
        for method, path in (("GET", "/operator/status"), ("POST", "/operator/drain")):
            async with client.request(method, house.url(path)) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not house.gateway.switchboard.draining


async def test_without_a_token_there_is_nothing_for_operators(house):
    house = await house({"desk": {}}, operator_token=None)
    async with (
        ClientSession(headers=bearer("")) as client,
        client.get(house.url("/operator/status")) as response,
    ):
        assert response.status == 404


async def test_operators_see_the_calls_and_drain(house, secrets, engine):
    house = await house({"desk": {"numbers": [DESK]}, "rest": {}})
    engine.carries = 2.0
    async with ClientSession(headers=bearer(secrets["operator"])) as client:
        with house.taken("desk"):
            running, talking = house.begin(DESK, seconds=4)
            await house.until(running, "call_started")
            async with client.get(house.url("/operator/status")) as response:
                status = await response.json()
            await talking
        async with client.post(house.url("/operator/drain")) as response:
            assert response.status == 204
    (call,) = status.pop("calls")
    assert (call["call_sid"], call["agent"]) == (running.call_sid, "desk")
    assert status == {
        "places": 4,
        "engine_carries": 2.0,
        "active_calls": 2,
        "waiting_calls": 0,
        "draining": False,
        "agents": {"desk": {"calls": 2}, "rest": {"calls": 0}},
    }
    refused = await house.call(DESK)
    assert house.event(refused, "call_refused")["reason"] == "draining"
    assert await asyncio.wait_for(house.gateway.switchboard.empty(), 5) is None
