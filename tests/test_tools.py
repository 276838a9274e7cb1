"""Tools by themselves: how they are declared, what the model is told, what comes of a call."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import TypeAdapter, ValidationError

from agent.events import JSON
from agent.settings import AgentSettings, load_settings
from agent.tools.building import build_tools
from agent.tools.call import Call, PhoneError
from agent.tools.settings import ToolSettings
from agent.tools.tool import Tool, ToolError

DECLARED: TypeAdapter[Any] = TypeAdapter(tuple[ToolSettings, ...])


class FakeCall:
    """A call that does what it is told, in order."""

    def __init__(self, said: bool = False, heard: bool = True) -> None:
        self.said = said
        self.done: list[Any] = []
        self.after: list[Any] = []
        self.refuses = False
        self._heard = heard

    async def words_heard(self) -> bool:
        self.done.append("waited")
        return self._heard

    def after_answer(self, act: Any) -> None:
        self.after.append(act)

    async def hang_up(self) -> None:
        self.done.append("hung up")

    async def transfer(
        self, number: str, *, summary: str | None = None, warm: bool = False
    ) -> None:
        if self.refuses:
            raise PhoneError("no such number")
        self.done.append(number)

    async def press(self, digits: str) -> None:
        self.done.append(digits)

    def record(self, name: str, /, **fields: JSON) -> None:
        self.done.append((name, fields))


async def book(day: Literal["Monday", "Friday"], time: str, guests: int = 1) -> dict[str, Any]:
    """Books a table.

    Args:
        day: Which day.
        time: When, such as
            half past six.
        guests: How many.
    """
    return {"booked": f"{day} {time}", "guests": guests}


def slow_and_synchronous(word: str) -> str:
    """Says it twice."""
    return word * 2


async def of_the_call(text: str, call: Call) -> None:
    """Keeps something."""
    call.record("kept", text=text)


async def broken() -> None:
    """Breaks."""
    raise RuntimeError("password=hunter2")


async def unwilling() -> None:
    """Refuses."""
    raise ToolError("we are closed")


async def endless() -> None:
    """Never ends."""
    await asyncio.Event().wait()


def untyped(day) -> None:  # type: ignore[no-untyped-def]
    """No types."""


def tool(kind: str = "function", function: str = "", **fields: Any) -> Tool:
    declared: dict[str, Any] = {"kind": kind, **fields}
    if kind == "function":
        declared = {"name": "it", "function": f"{__name__}:{function}", **declared}
    (built,) = build_tools(DECLARED.validate_python([declared]))
    return built


def test_a_function_describes_itself() -> None:
    assert tool(function="book").described == {
        "name": "it",
        "description": "Books a table.",
        "parameters": {
            "type": "object",
            "properties": {
                "day": {
                    "enum": ["Monday", "Friday"],
                    "type": "string",
                    "description": "Which day.",
                },
                "time": {"type": "string", "description": "When, such as half past six."},
                "guests": {"type": "integer", "description": "How many.", "default": 1},
            },
            "required": ["day", "time"],
        },
    }


async def test_a_function_gets_checked_arguments_and_its_value_comes_back() -> None:
    result = await tool(function="book").run({"day": "Friday", "time": "six"}, FakeCall())
    assert result.value == {"booked": "Friday six", "guests": 1}
    assert json.loads(result.text) == result.value
    assert not result.error


async def test_wrong_arguments_are_told_to_the_model_and_nothing_runs() -> None:
    result = await tool(function="book").run({"day": "Sunday", "tme": "six"}, FakeCall())
    assert result.error
    assert result.answer
    for part in ("day", "'Monday' or 'Friday'", "time: Field required", "tme: Extra inputs"):
        assert part in result.text


async def test_a_function_that_is_no_coroutine_runs_too() -> None:
    result = await tool(function="slow_and_synchronous").run({"word": "yes"}, FakeCall())
    assert result.text == "yesyes"


async def test_a_function_may_use_the_call_and_the_model_does_not_know() -> None:
    call, made = FakeCall(), tool(function="of_the_call")
    assert list(made.schema["properties"]) == ["text"]
    result = await made.run({"text": "milk"}, call)
    assert call.done == [("kept", {"text": "milk"})]
    assert result.text == "done"


async def test_what_broke_inside_is_not_said_on_the_phone() -> None:
    result = await tool(function="broken").run({}, FakeCall())
    assert json.loads(result.text) == {"error": "it failed"}


async def test_a_tool_says_why_it_refuses() -> None:
    result = await tool(function="unwilling").run({}, FakeCall())
    assert json.loads(result.text) == {"error": "we are closed"}
    told = await tool(function="unwilling", on_failure="Take a message.").run({}, FakeCall())
    assert json.loads(told.text) == {"error": "Take a message."}


async def test_a_tool_that_takes_too_long_is_given_up() -> None:
    result = await tool(function="endless", timeout=0.01).run({}, FakeCall())
    assert json.loads(result.text) == {"error": "it did not answer within 0.01 s"}


def test_parameters_shown_may_differ() -> None:
    shown = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}
    assert tool(function="book", parameters=shown).described["parameters"] == shown


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"kind": "function", "function": "nowhere.at_all:f"}, "function .* cannot be imported"),
        ({"kind": "function", "function": f"{__name__}:untyped"}, "parameter day needs a name and"),
        (
            {"kind": "webhook", "url": "https://x.example", "description": "d", "parameters": {}},
            "expected a JSON schema of type object",
        ),
        (
            {
                "kind": "webhook",
                "url": "https://x.example",
                "description": "d",
                "parameters": {"type": "object", "properties": {"a": {"type": "date"}}},
            },
            r"parameters.properties.a.type: expected one of string.*got 'date'",
        ),
        (
            {
                "kind": "webhook",
                "url": "https://x.example",
                "description": "d",
                "parameters": {"type": "object"},
                "headers": {"Authorization": {"env": "NOT_SET_ANYWHERE"}},
            },
            "environment variable NOT_SET_ANYWHERE is empty or not set",
        ),
        (
            {"kind": "look_up", "description": "d", "facts": {"A b": "1", "a B!": "2"}},
            "'a B!' is there twice",
        ),
    ],
)
def test_a_tool_that_cannot_be_made_is_named(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"it: .*{message}"):
        build_tools(DECLARED.validate_python([{"name": "it", **declared}]))


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools are called 'hang_up'"):
        build_tools(DECLARED.validate_python([{"kind": "hang_up"}] * 2))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"kind": "hangup"}, "does not match any of the expected tags"),
        ({"kind": "hang_up", "goodby": "x"}, "Extra inputs are not permitted"),
        ({"kind": "transfer", "destinations": {"nurse": "555"}}, "expected a number such as"),
        ({"kind": "transfer", "destinations": {}}, "at least 1"),
        (
            {"kind": "webhook", "url": "http://x.example"},
            "url must be https, or http on loopback, got 'http://x.example'",
        ),
        ({"kind": "webhook", "url": "https://x.example", "retries": 1}, "retries need idempotent"),
        ({"kind": "look_up", "description": "d"}, "a table has either facts or file"),
    ],
)
def test_a_declaration_that_is_wrong_says_where(declared: dict[str, Any], message: str) -> None:
    whole = {"parameters": {}, "description": "d", "name": "it", **declared}
    with pytest.raises(ValidationError, match=message):
        DECLARED.validate_python([whole])


def test_tools_come_from_the_settings_file(tmp_path: Any) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("agent: {tools: [{kind: hang_up}, {kind: send_digits, filler: Wait.}]}")
    settings = load_settings(path, {})
    assert [tool.name for tool in build_tools(settings.agent.tools)] == ["hang_up", "send_digits"]
    path.write_text("agent: {tools: [{kind: hang_up, fillr: x}]}")
    with pytest.raises(ValueError, match=r"unknown field agent.tools.0.hang_up.fillr"):
        load_settings(path, {})


def test_the_page_about_tools_shows_settings_that_are_right() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tools.md").read_text("utf-8")
    example = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    tools = AgentSettings.model_validate(example["agent"]).tools
    assert {tool.kind for tool in tools} == {
        "function",
        "webhook",
        "look_up",
        "transfer",
        "hang_up",
    }


class Desk:
    """A web server that does as the test says: one answer for each request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.bodies.append(await request.read())
        status, text = self.answers.pop(0)
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.Response(status=status, text=text, headers=headers)


@pytest.fixture
async def desk() -> AsyncIterator[tuple[Desk, str]]:
    desk, app = Desk(), web.Application()
    app.router.add_route("*", "/{path:.*}", desk.answer)
    server = TestServer(app)
    await server.start_server()
    yield desk, str(server.make_url("/book"))
    await server.close()


def webhook(url: str, **fields: Any) -> Tool:
    parameters = {
        "type": "object",
        "properties": {
            "day": {"type": "string", "enum": ["Monday", "Friday"]},
            "guests": {"type": "integer"},
        },
        "required": ["day"],
    }
    return tool(
        "webhook", name="it", url=url, description="Books.", parameters=parameters, **fields
    )


async def test_a_webhook_is_sent_signed_json_with_its_secrets(
    desk: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    server, url = desk
    server.answers = [(200, '{"booked": true}')]
    monkeypatch.setenv("CALENDAR_TOKEN", "t0k3n")
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    made = webhook(
        url,
        headers={"Authorization": {"env": "CALENDAR_TOKEN", "prefix": "Bearer "}, "X-Line": "1"},
        signing_secret={"file": str(secret)},
    )
    result = await made.run({"day": "Friday"}, FakeCall())
    assert result.value == {"booked": True}
    (asked,), (body,) = server.asked, server.bodies
    assert (asked.method, json.loads(body)) == ("POST", {"day": "Friday"})
    assert asked.headers["Authorization"] == "Bearer t0k3n"
    assert asked.headers["X-Line"] == "1"
    at, mac = asked.headers["X-GLM-Voice-Signature"].removeprefix("t=").split(",v1=")
    assert mac == hmac.new(b"s3cret", at.encode() + b"." + body, hashlib.sha256).hexdigest()


async def test_get_puts_the_arguments_into_the_query(desk: tuple[Desk, str]) -> None:
    server, url = desk
    server.answers = [(200, "two tables")]
    result = await webhook(url, method="GET").run({"day": "Friday", "guests": 3}, FakeCall())
    assert result.text == "two tables"
    assert dict(server.asked[0].query) == {"day": "Friday", "guests": "3"}
    assert server.bodies == [b""]


async def test_only_an_idempotent_request_is_made_again(desk: tuple[Desk, str]) -> None:
    server, url = desk
    server.answers = [(503, ""), (503, ""), (200, "yes")]
    once = await webhook(url).run({"day": "Friday"}, FakeCall())
    assert json.loads(once.text) == {"error": "it answered with HTTP 503"}
    assert len(server.asked) == 1
    again = webhook(url, idempotent=True, retries=2, backoff=0.001)
    assert (await again.run({"day": "Friday"}, FakeCall())).text == "yes"
    keys = [request.headers["Idempotency-Key"] for request in server.asked]
    assert keys[1] == keys[2] != keys[0]


async def test_what_will_not_change_is_not_tried_again(desk: tuple[Desk, str]) -> None:
    server, url = desk
    server.answers = [(404, "")]
    again = webhook(url, idempotent=True, retries=2, backoff=0.001)
    result = await again.run({"day": "Friday"}, FakeCall())
    assert json.loads(result.text) == {"error": "it answered with HTTP 404"}


async def test_a_redirect_is_not_followed(desk: tuple[Desk, str]) -> None:
    server, url = desk
    server.answers = [(302, ""), (200, "secrets told")]
    result = await webhook(url).run({"day": "Friday"}, FakeCall())
    assert result.error
    assert len(server.asked) == 1


async def test_an_answer_as_long_as_a_book_is_a_failure(desk: tuple[Desk, str]) -> None:
    server, url = desk
    server.answers = [(200, "x" * 2001)]
    result = await webhook(url).run({"day": "Friday"}, FakeCall())
    assert json.loads(result.text) == {"error": "it answered with too much"}


async def test_a_server_that_is_not_there_is_a_failure(unused_tcp_port: int) -> None:
    result = await webhook(f"http://127.0.0.1:{unused_tcp_port}/").run(
        {"day": "Friday"}, FakeCall()
    )
    assert json.loads(result.text) == {"error": "it cannot be reached"}


async def test_webhook_arguments_are_checked_before_anything_is_sent(
    desk: tuple[Desk, str],
) -> None:
    server, url = desk
    result = await webhook(url).run({"day": "Friday", "guests": "many"}, FakeCall())
    assert "guests: Input should be a valid integer" in result.text
    assert server.asked == []


FACTS = {"Doctor Smith": "Monday", "Doctor Garcia": "Friday"}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("doctor smith", "Monday"),
        ("Doctor  Garcia.", "Friday"),
        ("Doctor Garzia", "Friday"),
        ("Doctor Who", "nothing is known of 'Doctor Who', but of Doctor Smith, Doctor Garcia"),
    ],
)
async def test_a_fact_is_found_by_nearly_its_name(asked: str, found: str) -> None:
    made = tool("look_up", description="Who is here.", parameter="doctor", facts=FACTS)
    result = await made.run({"doctor": asked}, FakeCall())
    assert result.text == found
    assert not result.error


async def test_facts_may_lie_in_a_file(tmp_path: Any) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text("parking: behind the building\n")
    made = tool("look_up", description="Facts.", file=str(path), unknown="none")
    assert (await made.run({"key": "parking"}, FakeCall())).text == "behind the building"
    assert (await made.run({"key": "the moon"}, FakeCall())).text == "none"
    path.write_text("parking: 3\n")
    with pytest.raises(ValueError, match="'parking': expected text"):
        tool("look_up", description="Facts.", file=str(path))


async def test_a_goodbye_before_the_call_of_the_tool_is_heard_first() -> None:
    call = FakeCall(said=True)
    result = await tool("hang_up").run({}, call)
    assert call.done == ["waited", "hung up"]
    assert not result.answer


async def test_a_goodbye_that_is_interrupted_keeps_the_call() -> None:
    call = FakeCall(said=True, heard=False)
    result = await tool("hang_up").run({}, call)
    assert call.done == ["waited"]
    assert json.loads(result.text) == {"error": "not done: the caller went on speaking"}


async def test_without_a_goodbye_the_answer_to_the_result_is_one() -> None:
    call = FakeCall()
    result = await tool("hang_up").run({}, call)
    assert (result.text, result.answer, call.done) == ("ended", True, [])
    (act,) = call.after
    await act()
    assert call.done == ["hung up"]


DESTINATIONS = {"front desk": "+15550100003", "nurse": "+15550100004"}


async def test_the_model_names_a_destination_and_never_a_number() -> None:
    made = tool("transfer", destinations=DESTINATIONS)
    assert "+1555" not in json.dumps(made.described)
    call = FakeCall(said=True)
    assert (await made.run({"to": "Front Desk"}, call)).text == "connected"
    assert call.done == ["waited", "+15550100003"]
    unknown = await made.run({"to": "+15550109999"}, call)
    assert "known are front desk, nurse" in unknown.text
    assert len(call.done) == 2


async def test_a_transfer_that_the_carrier_refuses_is_told() -> None:
    call = FakeCall(said=True)
    call.refuses = True
    result = await tool("transfer", destinations=DESTINATIONS).run({"to": "nurse"}, call)
    assert json.loads(result.text) == {"error": "not connected"}
    assert call.done[-1] == ("error", {"message": "no such number"})


async def test_digits_are_digits() -> None:
    call = FakeCall()
    assert not (await tool("send_digits").run({"digits": "12#"}, call)).answer
    assert call.done == ["12#"]
    assert (await tool("send_digits").run({"digits": "12A"}, call)).error


async def test_a_message_goes_into_the_record() -> None:
    call = FakeCall()
    await tool("take_message").run({"text": "Call me.", "name": "Ann"}, call)
    assert call.done == [("message_taken", {"text": "Call me.", "name": "Ann", "number": None})]
