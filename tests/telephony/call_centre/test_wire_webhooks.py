"""Who may bring calls over another carrier's wire, and what such a call is told to do."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from aiohttp import ClientSession, WSMsgType

from telephony.sentences import ENGLISH
from tests.telephony.call_centre.far_ends import Exotel, Plivo, Telnyx, Vonage

DESK, ELSEWHERE = "+15550100002", "+15550100004"
AGENTS = {"desk": {"numbers": [DESK]}}
NAMES = ["telnyx", "plivo", "vonage", "exotel"]


def far_end(name):
    if name == "telnyx":
        signing = pytest.importorskip("nacl.signing", reason="PyNaCl is for Telnyx alone")
        return Telnyx(signing.SigningKey(bytes(range(32))))
    return {"plivo": Plivo, "vonage": Vonage, "exotel": Exotel}[name]()


@pytest.fixture(params=NAMES)
def far(request):
    return far_end(request.param)


@pytest.fixture
def open_house(house, tmp_path):
    async def start(far, agents=AGENTS, secret=None, **gateway):
        path = tmp_path / "wire-secret"
        path.write_text((far.secret if secret is None else secret) + "\n")
        wires = {far.name: {"secret_file": path}}
        return await house(agents, speaks=False, wires=wires, **gateway)

    return start


async def ask(house, request):
    method, path, headers, body = request
    async with (
        ClientSession() as client,
        client.request(method, house.url(path), headers=headers, data=body) as response,
    ):
        return response.status, await response.text()


def verbs(text):
    return [(verb.tag, verb.text) for verb in ElementTree.fromstring(text)]


# ---- who is let in


async def test_what_the_carrier_did_not_sign_gets_403(far, open_house, secrets):
    house = await open_house(far)
    method, path, headers, body = far.request(house.clock.now)
    if far.name == "exotel":
        wrong = [(method, path.replace(far.secret, "another-key-of-ours"), headers, body)]
    else:
        kept = {"Content-Type": headers.get("Content-Type", "application/x-www-form-urlencoded")}
        if isinstance(body, dict):
            other = {**body, "To": "15550100009"}
        else:
            other = body.replace(b"0100002", b"0100009")
        wrong = [(method, path, kept, body), (method, path, headers, other)]
    for request in wrong:
        status, text = await ask(house, request)
        assert status == 403
        assert far.secret not in text
    assert not house.gateway.switchboard.active
    assert house.nothing_left()


@pytest.mark.parametrize("name", ["telnyx", "vonage"])
async def test_an_old_signature_gets_403(name, open_house):
    far = far_end(name)
    house = await open_house(far)
    status, text = await ask(house, far.request(house.clock.now - 301))
    assert (status, "too old" in text) == (403, True)
    status, text = await ask(house, far.request(float(house.clock.now) - 200))
    assert status == 200


async def test_a_token_of_vonage_says_when_it_was_made_and_for_what(open_house):
    far = Vonage()
    house = await open_house(far)
    for claims in ({"iat": "yesterday"}, {"payload_hash": "0" * 64}, {"iat": None}):
        assert (await ask(house, far.request(house.clock.now, **claims)))[0] == 403


async def test_plivos_own_library_signs_as_we_expect(open_house):
    far = Plivo()
    house = await open_house(far, secret="the account's token")
    fields = {
        "CallUUID": "7e3a",
        "To": "15550100002",
        "From": "15550109999",
        "Event": "StartApp",
        "ALegUUID": "",
    }
    headers = {
        "X-Plivo-Signature-V3-Nonce": "12345",
        # Computed by plivo 4.x (plivo.utils.signature_v3) for these fields and this address.
        "X-Plivo-Signature-V3": "bm90IGl0,xxi9CvFSj4SHV9fxJwIrQBga7oyEhuxcE1NtKAPHhGQ=",
    }
    assert (await ask(house, ("POST", "/wire/plivo", headers, fields)))[0] == 200


async def test_a_socket_needs_the_token_of_its_call_and_once(far, open_house, eventually):
    house = await open_house(far)
    _, text = await ask(house, far.request(house.clock.now))
    path = far.address(text).removeprefix("wss://voice.example")
    base, _, _ = path.rpartition("/")

    async def begun(client, path):
        socket = await client.ws_connect(house.url(path))
        for message in far.begin():
            await socket.send_str(json.dumps(message))
        return socket

    async with ClientSession() as client:
        refused = await begun(client, f"{base}/guessed")
        message = await refused.receive()
        assert (message.type, refused.close_code) == (WSMsgType.CLOSE, 1008)
        first = await begun(client, path)
        second = await begun(client, path)
        assert (await second.receive()).type is WSMsgType.CLOSE
        assert second.close_code == 1008
        await eventually(lambda: list(house.gateway.live) == [far.sid()])
        await first.close()


async def test_a_request_without_a_call_gets_400(open_house):
    house = await open_house(Exotel())
    status, text = await ask(house, ("GET", f"/wire/exotel/{Exotel.secret}", {}, None))
    assert (status, "CallSid" in text) == (400, True)


async def test_carriers_that_are_not_in_the_settings_have_no_door(house):
    house = await house(AGENTS)
    for name in NAMES:
        assert (await ask(house, ("POST", f"/wire/{name}", {}, {})))[0] == 404


@pytest.mark.parametrize(
    ("far", "secret", "reason"),
    [
        (Exotel(), "short", "16 or more"),
        (Exotel(), "with/a/slash/in/between", "16 or more"),
        (Vonage(), "", "is empty"),
    ],
)
async def test_a_secret_of_no_use_keeps_the_gateway_from_starting(far, secret, reason, open_house):
    with pytest.raises(ValueError, match=rf"gateway\.wires\.{far.name}: .*{reason}"):
        await open_house(far, secret=secret)


@pytest.mark.parametrize("secret", ["no base64!", "c2hvcnQ="])
async def test_telnyx_needs_a_key(secret, open_house):
    far = far_end("telnyx")
    with pytest.raises(ValueError, match=r"gateway\.wires\.telnyx: expected .* public key"):
        await open_house(far, secret=secret)


# ---- what a call is told


async def test_without_a_place_a_caller_hears_why(far, open_house):
    house = await open_house(far, max_calls=1)
    with house.taken("desk"):
        status, text = await ask(house, far.request(house.clock.now))
    if far.name == "exotel":
        # The applet takes an address and nothing else; its flow goes on without.
        assert status == 503
    elif far.name == "vonage":
        assert json.loads(text) == [
            {"action": "talk", "text": ENGLISH.busy.replace("&", "&amp;"), "language": "en-US"}
        ]
    else:
        say = "Say" if far.name == "telnyx" else "Speak"
        assert verbs(text) == [(say, ENGLISH.busy), ("Hangup", None)]
    assert house.nothing_left()


async def test_a_call_waits_for_its_place_and_asks_again(far, open_house):
    agents = {"desk": {"numbers": [DESK], "busy": {"then": "wait", "say": "Hold."}}}
    house = await open_house(far, agents, max_calls=1)
    with house.taken("desk"):
        status, text = await ask(house, far.request(house.clock.now))
        waiting = house.gateway.switchboard.waiting
    if far.name == "exotel":
        assert (status, waiting) == (503, 0)
        assert house.nothing_left()
        return
    assert waiting == 1
    again = f"https://voice.example/wire/{far.name}"
    if far.name == "vonage":
        say, pause, ask_again = json.loads(text)
        assert say["text"] == "Hold."
        assert "<break time='5s'/>" in pause["text"]
        assert ask_again["eventUrl"] == [again]
        body = json.dumps({"payload": ask_again["payload"], "conversation_uuid": "C"}).encode()
        far.body = body
        _, text = await ask(house, far.request(house.clock.now))
        assert far.address(text)
    else:
        pause = "Pause" if far.name == "telnyx" else "Wait"
        assert [tag for tag, _ in verbs(text)][1:] == [pause, "Redirect"]
        assert verbs(text)[-1] == ("Redirect", again)
        _, text = await ask(house, far.request(house.clock.now))
        assert far.address(text)


async def test_a_call_goes_on_to_another_number(far, open_house):
    busy = {"then": "forward", "number": ELSEWHERE, "say": "One moment."}
    house = await open_house(far, {"desk": {"numbers": [DESK], "busy": busy}}, max_calls=1)
    with house.taken("desk"):
        status, text = await ask(house, far.request(house.clock.now))
    if far.name == "exotel":
        assert status == 503
    elif far.name == "vonage":
        say, connect = json.loads(text)
        assert say["text"] == "One moment."
        assert connect["endpoint"] == [{"type": "phone", "number": ELSEWHERE[1:]}]
        assert connect["from"] == DESK[1:]
    else:
        (dial,) = ElementTree.fromstring(text).iter("Dial")
        assert dial.get("action") == f"https://voice.example/wire/{far.name}/forwarded"
        assert "".join(dial.itertext()) == ELSEWHERE
    assert house.nothing_left()


@pytest.mark.parametrize(("status", "told"), [("busy", True), ("completed", False)])
async def test_who_is_forwarded_in_vain_hears_an_apology(status, told, open_house, tmp_path):
    far = Plivo()
    house = await open_house(far)
    request = far.request(house.clock.now, "/wire/plivo/forwarded", DialStatus=status)
    _, text = await ask(house, request)
    said = [("Speak", ENGLISH.apology)] if told else []
    assert verbs(text) == [*said, ("Hangup", None)]
