"""Has a running gateway make calls: what ``glm-voice dial`` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from telephony.clock import Clock, SystemClock
from telephony.outbound.call_list import Entry, Result, Results, read_list
from telephony.outbound.campaign import Campaign, NotNow, Plan

_WAIT_SECONDS = 30
_NOT_NOW = {"outside_hours": 60.0, "busy": 5.0, "engine": 15.0}
"""By reason, the seconds after which a gateway that made no call is asked again."""
_FINAL = {"do_not_call": "do_not_call", "invalid": "invalid", "carrier": "failed"}


class GatewayClient:
    """Asks a gateway for calls."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str):
        """Use a gateway.

        Args:
            session: Carries the requests.
            url: The gateway's, such as http://127.0.0.1:8080.
            token: The operators'.
        """
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, entry: Entry) -> Result:
        """Make a call and wait for its end.

        Raises:
            NotNow: It could not be made at this time.
            ValueError: The gateway does not know the token, or does not make calls.
        """
        order = {
            "to": entry.to,
            "agent": entry.agent,
            "time_zone": entry.time_zone,
            "variables": entry.variables,
        }
        status, made = await self._ask("POST", "/calls", order)
        if status != 201:
            reason, message = str(made.get("error", "")), str(made.get("message", ""))
            if reason in _NOT_NOW:
                raise NotNow(message, _NOT_NOW[reason])
            if reason in _FINAL:
                return Result(_FINAL[reason], detail=message)
            raise ValueError(f"{self._url}/calls answered HTTP {status} {message}".strip())
        sid = str(made["call_sid"])
        while made.get("outcome") is None:
            try:
                status, made = await self._ask("GET", f"/calls/{sid}?wait={_WAIT_SECONDS}")
            except NotNow:
                # The call goes on meanwhile, and must not be made again.
                await asyncio.sleep(1.0)
                continue
            if status != 200:
                detail = "the gateway has forgotten the call"
                return Result("failed", call_sid=sid, detail=detail)
        return Result(str(made["outcome"]), str(made["answered_by"]), int(made["seconds"]), sid)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=_WAIT_SECONDS + 30),
            ) as response:
                if response.content_type != "application/json":
                    raise ValueError(
                        f"{self._url}{path} answered HTTP {response.status}: "
                        + (await response.text()).strip()
                    )
                content: dict[str, Any] = await response.json()
                return response.status, content
        except aiohttp.ClientConnectorError as error:
            raise NotNow(f"the gateway cannot be reached: {error}", 15.0) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            if method == "GET":
                raise NotNow("the gateway does not answer", 15.0) from error
            raise ValueError(f"{self._url}{path}: not known whether a call was made") from error


async def dial_one(url: str, token: str, entry: Entry) -> Result:
    """Make one call and wait for its end.

    Raises:
        ValueError: It could not be made; says why.
    """
    async with aiohttp.ClientSession() as session:
        try:
            return await GatewayClient(session, url, token).call(entry)
        except NotNow as error:
            raise ValueError(str(error)) from error


async def dial_list(
    url: str,
    token: str,
    calls: Path,
    results: Path,
    plan: Plan,
    progress: Callable[[str], None],
    *,
    agent: str | None = None,
    clock: Clock | None = None,
) -> dict[str, int]:
    """Work through a list of calls.

    Args:
        url: The gateway's.
        token: The operators'.
        calls: Whom to call, CSV.
        results: Where it is written what became of them, CSV; what is there counts.
        plan: How.
        progress: Told what happens, as lines for a person.
        agent: Who makes the calls for which the list names nobody.
        clock: Paces the calls.

    Returns:
        How many of the list have come to each outcome.

    Raises:
        ValueError: The list or the results cannot be used, or the gateway makes no calls.
        OSError: The results cannot be written.
    """
    entries = [
        Entry(one.row, one.to, one.agent or agent, one.time_zone, one.variables)
        for one in read_list(calls)
    ]
    kept = Results(results, entries)
    async with aiohttp.ClientSession() as session:
        place = GatewayClient(session, url, token).call
        timer = clock or SystemClock()
        await Campaign(entries, plan, place, kept, timer, time.time, progress).run()
    counts: dict[str, int] = {}
    for entry in entries:
        outcome = kept.outcomes(entry)[-1]
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts
