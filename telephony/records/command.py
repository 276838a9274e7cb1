"""``glm-voice calls``: what an operator does with the records."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, Engine, or_
from sqlalchemy.exc import SQLAlchemyError

from agent.record_settings import RecordSettings
from agent.settings import load_settings
from telephony.records import spill, telling
from telephony.records.database import database_url, open_database
from telephony.records.delivery import Delivery
from telephony.records.erasing import ended_before, erase, going_on, of_number, wipe_traces
from telephony.records.migration import migrate
from telephony.records.reading import Search, events_of, find_calls, tool_calls_of, turns_of
from telephony.records.schema import CALLS
from telephony.records.storing import store
from telephony.records.writer import REFUSED


def run(options: argparse.Namespace) -> int:
    """Carry out one of the commands; returns the exit code.

    Raises:
        ValueError: Something that was asked for cannot be, such as a call that is not there.
        RuntimeError: The database cannot be used.
    """
    settings = load_settings(options.settings).records
    # A mistyped path is not to become a new database.
    missing = _missing_file(options.records or settings.database_url)
    if missing is not None and options.calls != "migrate":
        raise ValueError(f"{missing}: there are no records")
    engine = open_database(database_url(options.records or settings.database_url))
    work = {
        "list": _list,
        "show": _show,
        "export": _export,
        "forget": _forget,
        "migrate": _migrate,
        "redeliver": _redeliver,
    }[options.calls]
    try:
        migrate(engine)
        work(options, settings, engine)
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        raise RuntimeError(f"the database cannot be used: {reason}") from error
    finally:
        engine.dispose()
    return 0


def _search(options: argparse.Namespace) -> Search:
    return Search(options.number, options.since, options.before, options.agent)


def _list(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    with engine.connect() as connection:
        condition = _search(options).condition()
        calls = find_calls(connection, condition, time.time(), settings.lease_secs, options.limit)
    if options.json:
        for call in calls:
            print(json.dumps(call, ensure_ascii=False))
    else:
        telling.print_list(calls)


def _show(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    with engine.connect() as connection:
        calls = _calls_of(connection, [options.sid], settings)
        for call in calls:
            turns = turns_of(connection, call["id"])
            telling.print_call(call, turns, tool_calls_of(connection, call["id"]))


def _export(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    with engine.connect() as connection, _output(options.out) as out:
        if options.sids:
            calls = _calls_of(connection, options.sids, settings)
        else:
            condition = _search(options).condition()
            calls = find_calls(connection, condition, time.time(), settings.lease_secs)
        for call in calls:
            for event in events_of(connection, call):
                out.write(json.dumps(event, ensure_ascii=False) + "\n")


def _forget(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    if options.number is None and options.before is None:
        raise ValueError("give --number, --before or both")
    conditions = Search().condition()
    if options.number is not None:
        conditions &= of_number(options.number)
    if options.before is not None:
        conditions &= ended_before(options.before)
    if options.dry_run:
        with engine.connect() as connection:
            found = find_calls(connection, conditions, time.time(), settings.lease_secs)
        print(f"{len(found)} calls would be erased")
        return
    _take_in(settings, engine)
    erased = erase(engine, conditions)
    wipe_traces(engine)
    print(f"{len(erased)} calls erased")
    with engine.connect() as connection:
        going = going_on(connection, conditions)
    if going:
        print(f"{going} calls have not ended yet: ask again afterwards")
    if (settings.directory / REFUSED).exists():
        print(f"{settings.directory / REFUSED} holds what the database refused: look through it")
    if held := spill.held(settings.directory):
        print(f"{held} gateways keep records that wait for the database: ask again afterwards")


def _migrate(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    print("the tables are up to date")


def _redeliver(options: argparse.Namespace, settings: RecordSettings, engine: Engine) -> None:
    delivery = Delivery(engine, settings.webhooks)
    delivered, failed = asyncio.run(delivery.redeliver())
    print(f"{delivered} delivered, {failed} failed again")


def _calls_of(
    connection: Connection, sids: list[str], settings: RecordSettings
) -> list[dict[str, Any]]:
    condition = or_(*(CALLS.c.sid == sid for sid in sids))
    calls = find_calls(connection, condition, time.time(), settings.lease_secs)
    missing = [sid for sid in sids if all(call["sid"] != sid for call in calls)]
    if missing:
        raise ValueError(f"there is no call {', '.join(missing)}")
    return calls


def _take_in(settings: RecordSettings, engine: Engine) -> None:
    """What waited for the database must not come back after it was to be forgotten."""
    for _, entries in spill.left_behind(settings.directory):
        with engine.begin() as connection:
            store(connection, entries, settings.webhooks)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    # What callers said is for its owner alone.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield file


def _missing_file(records: str) -> str | None:
    url = database_url(records)
    if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
        return None
    return url.database
