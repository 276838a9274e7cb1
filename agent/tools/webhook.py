"""HTTP requests as tools."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp

from agent.outgoing import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, Secret, signature
from agent.tools.arguments import Arguments
from agent.tools.call import Call
from agent.tools.settings import WebhookSettings
from agent.tools.tool import Tool, ToolError

_IN_QUERY = ("GET", "DELETE")
_LARGEST_BODY = 256 * 1024
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


def webhook_tool(settings: WebhookSettings, now: Callable[[], float] = time.time) -> Tool:
    """Make a tool of a request.

    Args:
        settings: The request.
        now: Tells Unix time, for the signature.

    Raises:
        ValueError: A secret is missing, or the parameters are no schema that can be used.
    """
    headers = {
        name: value.read() if isinstance(value, Secret) else value
        for name, value in settings.headers.items()
    }
    secret = settings.signing_secret.read() if settings.signing_secret else None
    request = _Request(settings, headers, secret, now)
    arguments = Arguments.of_schema(settings.name, settings.parameters)
    return Tool(settings, settings.description, arguments, request.work)


class _Request:
    def __init__(
        self,
        settings: WebhookSettings,
        headers: dict[str, str],
        secret: str | None,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._headers = headers
        self._secret = secret
        self._now = now

    async def work(self, arguments: dict[str, Any], call: Call) -> Any:
        settings = self._settings
        given = {name: value for name, value in arguments.items() if value is not None}
        key = uuid.uuid4().hex
        async with aiohttp.ClientSession() as session:
            for attempt in range(settings.retries + 1):
                if attempt:
                    await asyncio.sleep(settings.backoff * 2 ** (attempt - 1))
                try:
                    status, text = await self._send(session, given, key)
                except (aiohttp.ClientError, OSError):
                    problem = "cannot be reached"
                    continue
                if status < 300:
                    return self._read(text)
                problem = f"answered with HTTP {status}"
                if status not in _AGAIN:
                    break
        raise ToolError(f"{settings.name} {problem}")

    async def _send(
        self, session: aiohttp.ClientSession, given: dict[str, Any], key: str
    ) -> tuple[int, str]:
        settings = self._settings
        headers = {**self._headers, IDEMPOTENCY_HEADER: key}
        query: dict[str, str] = {}
        body = b""
        if settings.method in _IN_QUERY:
            query = {name: _plain(value) for name, value in given.items()}
        else:
            body = json.dumps(given, ensure_ascii=False).encode()
            headers["Content-Type"] = "application/json"
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, int(self._now()), body)
        async with session.request(
            settings.method,
            settings.url,
            params=query,
            data=body or None,
            headers=headers,
            # Where it leads to has not been checked, and it would be told the secrets.
            allow_redirects=False,
        ) as response:
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > _LARGEST_BODY:
                    break
            return response.status, content.decode("utf-8", errors="replace")

    def _read(self, text: str) -> Any:
        if len(text) > self._settings.longest_result:
            raise ToolError(f"{self._settings.name} answered with too much")
        try:
            return json.loads(text) if text.strip() else None
        except json.JSONDecodeError:
            return text.strip()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
