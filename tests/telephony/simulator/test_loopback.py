"""The loopback Twilio as other people run it: as a program, and as a fixture of their tests."""

import asyncio
import os

import pytest
import yaml
from aiohttp import web
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from telephony.simulator.loopback import serve_loopback
from telephony.simulator.target import Target

pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning"),
]
ACCOUNT = "AC" + "1" * 32
TESTS = """
import aiohttp
import base64
from telephony.simulator.target import Target

async def ask(loopback_twilio, fields):
    target = Target("http://127.0.0.1:9/voice", "secret")
    running = await loopback_twilio(target)
    word = base64.b64encode(f"{target.account_sid}:secret".encode()).decode()
    url = f"{running.url}/2010-04-01/Accounts/{target.account_sid}/Calls.json"
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {word}"}) as session:
        async with session.get(url, params=fields) as response:
            assert response.status == 200
    return running

async def test_well(loopback_twilio):
    await ask(loopback_twilio, {"Status": "busy"})

async def test_badly(loopback_twilio):
    await ask(loopback_twilio, {"State": "busy"})

async def test_badly_on_purpose(loopback_twilio):
    running = await ask(loopback_twilio, {"State": "busy"})
    assert running.api.faults == ["ListCall: State: no such parameter"]
    running.api.faults.clear()
"""


def test_the_fixture_fails_a_test_whose_agent_misuses_the_api(tmp_path, capsys):
    tests = tmp_path / "test_agent.py"
    tests.write_text(TESTS)

    pytest.main(
        [
            *("-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tests)),
            *("-p", "telephony.simulator.pytest_plugin", "-o", "asyncio_mode=auto", "-rE"),
            *("-o", "asyncio_default_fixture_loop_scope=function"),
        ]
    )

    shown = capsys.readouterr().out
    assert "3 passed, 1 error" in shown
    assert "ERROR at teardown of test_badly _" in shown
    assert "ListCall: State: no such parameter" in shown


async def test_the_program_makes_the_calls_it_is_asked_for(tmp_path, aiohttp_server):
    asked = asyncio.Queue()

    async def outgoing(request):
        await asked.put(dict(await request.post()))
        return web.Response(text="<Response><Hangup/></Response>", content_type="text/xml")

    app = web.Application()
    app.router.add_post("/outgoing", outgoing)
    server = await aiohttp_server(app)
    url = f"http://127.0.0.1:{server.port}"
    book = tmp_path / "book.yaml"
    book.write_text(yaml.safe_dump({"numbers": {"+15550100003": {"ring_ms": 0}}}))
    lines = asyncio.Queue()
    program = asyncio.create_task(
        serve_loopback(
            Target(f"{url}/voice", "secret", account_sid=ACCOUNT),
            book,
            "127.0.0.1",
            0,
            lines.put_nowait,
        )
    )
    http_client = AsyncTwilioHttpClient()
    client = Client(ACCOUNT, "secret", http_client=http_client)
    client.api.base_url = (await lines.get()).split()[2].rstrip(",")

    made = await client.calls.create_async(
        to="+15550100003", from_="+15550100002", url=f"{url}/outgoing"
    )
    await http_client.close()
    form = await asked.get()
    while "completed" not in (line := await lines.get()):
        pass
    program.cancel()

    assert form["CallSid"] == made.sid
    assert made.sid in line
    assert await program == 0
