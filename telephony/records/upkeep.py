"""What is done with the database every now and then, beside writing."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger
from sqlalchemy import Engine

from agent.record_settings import RecordSettings
from telephony.records.erasing import ended_before, erase, wipe_traces
from telephony.records.processes import Lease

_DAY = 86_400.0
_LOOK_SECONDS = 10.0
"""How often, at most, the calls of dead processes are looked for."""
_ERASED_AT_ONCE = 100
"""Calls of one round, so that what is happening now is not kept waiting."""


class Upkeep:
    """Renews the lease, ends what was broken off, erases what is too old."""

    def __init__(self, settings: RecordSettings, lease: Lease, now: Callable[[], float]):
        """Begin; the first round does everything."""
        self._settings = settings
        self._lease = lease
        self._now = now
        self._renew_at = float("-inf")
        self._erase_at = float("-inf")

    def round(self, engine: Engine) -> None:
        """Do what is due.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database cannot be reached.
        """
        now = self._now()
        if now >= self._renew_at:
            with engine.begin() as connection:
                self._lease.renew(connection, now)
                ended = self._lease.end_broken_off(connection, now, self._settings.webhooks)
            self._renew_at = now + min(_LOOK_SECONDS, self._settings.lease_secs / 4)
            if ended:
                logger.bind(calls=len(ended)).warning("Calls of a process that died were found")
        keep = self._settings.keep_days
        if keep is not None and now >= self._erase_at:
            erased = erase(engine, ended_before(now - keep * _DAY), _ERASED_AT_ONCE)
            if len(erased) < _ERASED_AT_ONCE:
                self._erase_at = now + _DAY
            if erased:
                wipe_traces(engine)
                logger.bind(calls=len(erased)).info("Calls were erased: they were too old")
