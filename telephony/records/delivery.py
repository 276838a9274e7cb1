"""Delivers notices to webhooks: signed, tried again for a while, then a dead letter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
from loguru import logger
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from agent.outgoing import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, signature
from agent.record_settings import NoticeSettings
from telephony.clock import Clock, SystemClock
from telephony.records.schema import DEAD_LETTERS, NOTICES

_CLAIM_SECONDS = 60.0
"""A notice that a process is delivering is left alone by others for so long."""
_TIMEOUT = aiohttp.ClientTimeout(total=15)
_FIRST_RETRY, _LONGEST_RETRY = 2.0, 3600.0
_AT_ONCE = 16
_LOOK_SECONDS = 15.0
"""How often notices are looked for that were left by others or are due again."""

Row = Mapping[str, Any]


class Delivery:
    """Delivers what is in the table ``notices``; several processes may do so at once."""

    def __init__(
        self,
        engine: Engine,
        webhooks: Sequence[NoticeSettings],
        *,
        now: Callable[[], float] = time.time,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ):
        """Prepare to deliver.

        Args:
            engine: Of the database.
            webhooks: Where notices may go.
            now: Tells Unix time.
            clock: Lets it pass.
            chance: From 0 to 1, spreads the retries.

        Raises:
            ValueError: A secret is missing.
        """
        self._engine = engine
        self._webhooks = {webhook.url: (webhook, webhook.secret.read()) for webhook in webhooks}
        self._now = now
        self._clock = clock or SystemClock()
        self._chance = chance
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something to deliver; to be called in the event loop."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with _session() as session:
            while True:
                self._wake.clear()
                try:
                    found = await self._round(session)
                except (SQLAlchemyError, OSError) as error:
                    logger.bind(error=type(error).__name__).warning("Notices cannot be read")
                    found = 0
                if found < _AT_ONCE:
                    await self._pause()

    async def redeliver(self) -> tuple[int, int]:
        """Try every dead letter once more.

        Returns:
            How many were delivered, and how many were not.
        """
        letters = await asyncio.to_thread(self._dead)
        delivered = 0
        async with _session() as session:
            for letter in letters:
                error = await self._send(session, letter)
                if error is None:
                    delivered += 1
                    await asyncio.to_thread(self._forget_letter, letter)
                else:
                    await asyncio.to_thread(self._note_failure, letter, error)
        return delivered, len(letters) - delivered

    async def _pause(self) -> None:
        looking = asyncio.ensure_future(self._clock.sleep(_LOOK_SECONDS))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((looking, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            looking.cancel()
            waking.cancel()

    async def _round(self, session: aiohttp.ClientSession) -> int:
        """Try the notices that are due; returns how many there were."""
        notices = await asyncio.to_thread(self._claim)
        errors = await asyncio.gather(*(self._send(session, notice) for notice in notices))
        for notice, error in zip(notices, errors, strict=True):
            await asyncio.to_thread(self._settle, notice, error)
        return len(notices)

    async def _send(self, session: aiohttp.ClientSession, notice: Row) -> str | None:
        """Make the request; returns what went wrong."""
        if notice["url"] not in self._webhooks:
            return "this url is no longer in the settings"
        _, secret = self._webhooks[notice["url"]]
        body = notice["body"].encode()
        headers = {
            "Content-Type": "application/json",
            IDEMPOTENCY_HEADER: notice["id"],
            SIGNATURE_HEADER: signature(secret, int(self._now()), body),
        }
        try:
            async with session.post(
                notice["url"], data=body, headers=headers, allow_redirects=False
            ) as response:
                return None if response.status < 300 else f"HTTP {response.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return type(error).__name__

    # ---- the database; in threads

    def _claim(self) -> list[Row]:
        now = self._now()
        claimed: list[Row] = []
        with self._engine.begin() as connection:
            due = select(NOTICES).where(NOTICES.c.next_at <= now).order_by(NOTICES.c.next_at)
            for row in connection.execute(due.limit(_AT_ONCE)).mappings().all():
                mine = update(NOTICES).where(
                    NOTICES.c.id == row["id"], NOTICES.c.next_at == row["next_at"]
                )
                if connection.execute(mine.values(next_at=now + _CLAIM_SECONDS)).rowcount:
                    claimed.append(dict(row))
        return claimed

    def _settle(self, notice: Row, error: str | None) -> None:
        now = self._now()
        attempts = notice["attempts"] + 1
        with self._engine.begin() as connection:
            this = NOTICES.c.id == notice["id"]
            if error is None:
                connection.execute(delete(NOTICES).where(this))
                return
            known = self._webhooks.get(notice["url"])
            until = notice["created_at"] + known[0].give_up_secs if known else now
            wait = min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(attempts - 1, 20))
            next_at = now + wait * (0.5 + self._chance() / 2)
            if next_at < until:
                again = {"attempts": attempts, "error": error, "next_at": next_at}
                connection.execute(update(NOTICES).where(this).values(again))
                return
            # An erased call's notice is gone, and must not come back as a dead letter.
            if connection.execute(delete(NOTICES).where(this)).rowcount:
                names = ("id", "call_id", "url", "event", "body", "created_at")
                letter = {name: notice[name] for name in names}
                died = {"attempts": attempts, "error": error, "died_at": now}
                connection.execute(insert(DEAD_LETTERS).values(letter | died))
                logger.bind(event=notice["event"], error=error).error("A notice is a dead letter")

    def _dead(self) -> list[Row]:
        with self._engine.connect() as connection:
            letters = select(DEAD_LETTERS).order_by(DEAD_LETTERS.c.created_at)
            return [dict(row) for row in connection.execute(letters).mappings()]

    def _forget_letter(self, letter: Row) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(DEAD_LETTERS).where(DEAD_LETTERS.c.id == letter["id"]))

    def _note_failure(self, letter: Row, error: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                update(DEAD_LETTERS)
                .where(DEAD_LETTERS.c.id == letter["id"])
                .values(attempts=letter["attempts"] + 1, error=error)
            )


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=_TIMEOUT)
