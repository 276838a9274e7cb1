"""The loopback Twilio with its REST API: what a test or a program runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from telephony.clock import Clock
from telephony.simulator.callee import PhoneBook, load_phone_book
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.clock import UnixClock
from telephony.simulator.rest import RestApi, serving
from telephony.simulator.target import Target

_LOOK_SECONDS = 0.2
"""How often the program shows what has happened."""


@dataclass(frozen=True)
class Loopback:
    """A Twilio that runs.

    Attributes:
        twilio: Places calls to the agent.
        api: What the agent asked the REST API for, and what was wrong with it.
        url: What stands in the place of ``https://api.twilio.com``.
    """

    twilio: LoopbackTwilio
    api: RestApi
    url: str


@asynccontextmanager
async def running_twilio(
    target: Target,
    *,
    clock: Clock | None = None,
    phone_book: PhoneBook | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Loopback]:
    """Run a Twilio; on leaving, its calls are broken off.

    Args:
        target: The agent's server, and the account.
        clock: Paces the calls; the machine's own if not given.
        phone_book: Who answers the calls that the agent makes.
        host: Address that the REST API listens on.
        port: Its port; 0 takes a free one.
    """
    async with LoopbackTwilio(target, clock or UnixClock(), phone_book) as twilio:
        api = RestApi(twilio)
        async with serving(api, host, port) as url:
            yield Loopback(twilio, api, url)


async def serve_loopback(
    target: Target,
    phone_book: Path | None,
    host: str,
    port: int,
    progress: Callable[[str], None],
) -> int:
    """Run a Twilio until it is cancelled.

    Args:
        target: The agent's server, and the account.
        phone_book: A YAML file with who answers the calls that the agent makes.
        host: Address that the REST API listens on.
        port: Its port; 0 takes a free one.
        progress: Told what happens, as lines for a person.

    Returns:
        The exit status: 1 if the agent asked for something that Twilio does not know.

    Raises:
        ValueError: The phone book cannot be used.
        OSError: The address cannot be listened on.
    """
    book = load_phone_book(phone_book) if phone_book is not None else PhoneBook()
    async with running_twilio(target, phone_book=book, host=host, port=port) as running:
        progress(f"REST API {running.url}, account {target.account_sid}")
        # What has happened counts all the same.
        with contextlib.suppress(asyncio.CancelledError):
            await _show(running, progress)
        return 1 if running.api.faults else 0


async def _show(running: Loopback, progress: Callable[[str], None]) -> None:
    shown: dict[str, str] = {}
    faults = 0
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        for fault in running.api.faults[faults:]:
            progress(f"FAULT {fault}")
        faults = len(running.api.faults)
        for sid, call in running.twilio.calls.items():
            if shown.get(sid) == call.status:
                continue
            shown[sid] = call.status
            detail = f": {call.trace.cause}" if call.over.is_set() else ""
            progress(f"{sid} {call.from_} to {call.to} {call.status}{detail}")
            if call.over.is_set():
                for error in call.trace.errors:
                    progress(f"{sid} error {error.code} {error.detail}")
