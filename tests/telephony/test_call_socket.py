"""A call's WebSocket lives as long as the other end does, and no longer."""

import asyncio

import pytest
from aiohttp import ClientSession, WSMsgType, web

from telephony.call_socket import CallSocket

HEARTBEAT = 0.2


@pytest.fixture
async def dial(aiohttp_server):
    """Opens a socket whose server pings after 0.2 s; returns the client's and when it was lost."""
    sessions = []

    async def dial(**client):
        lost = asyncio.get_running_loop().create_future()

        async def answer(request):
            socket = CallSocket(heartbeat=HEARTBEAT)
            await socket.prepare(request)
            try:
                async for _ in socket:
                    pass
            finally:
                # aiohttp's test server cancels who answers a connection that is gone.
                lost.set_result(socket.close_code)
            return socket

        app = web.Application()
        app.router.add_get("/", answer)
        server = await aiohttp_server(app)
        sessions.append(ClientSession())
        return await sessions[-1].ws_connect(server.make_url("/"), **client), lost

    yield dial
    for session in sessions:
        await session.close()


async def test_an_end_that_answers_pings_is_kept_though_it_says_nothing_else(dial):
    phone, lost = await dial(autoping=False)
    for _ in range(3):
        ping = await phone.receive()
        assert ping.type is WSMsgType.PING
        await phone.pong(ping.data)
    assert not lost.done()


async def test_an_end_that_answers_no_ping_is_lost_though_it_spoke_before(dial):
    phone, lost = await dial(autoping=False)
    for _ in range(5):
        await phone.send_str("sound")
    async with asyncio.timeout(10):
        await lost
