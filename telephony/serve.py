"""The whole house under one roof: engine, turn detection and gateway, from settings to a URL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np
from aiohttp import web
from loguru import logger

from agent.conversation import CALLER_RATE
from agent.embedded import EmbeddedServer
from agent.pipeline import SharedModels
from agent.replica import EngineUnavailable
from agent.settings import Settings
from agent.speech.request import TurnRequest
from agent.triton import VoiceClient
from telephony.agents import CallCentre
from telephony.answering import Answering
from telephony.clock import Clock
from telephony.outbound.routes import add_outbound_routes
from telephony.reception import Reception
from telephony.records import CallRecords
from telephony.server import GATEWAY, OpenSwitchboard, create_app, drain, listening
from telephony.switchboard import Switchboard
from telephony.workers import working

_WARM_UP = TurnRequest(max_new_tokens=80, temperature=0.0)
_WARM_UP_SECONDS = 2
"""More than a block of the tokenizer, so that it runs as it does while a caller speaks."""


@dataclass
class Service:
    """A gateway that answers calls.

    Attributes:
        url: Its public base URL.
        settings: What it runs with.
    """

    url: str
    settings: CallCentre
    _drain: Callable[[], Awaitable[None]]
    _reception: Reception | None

    async def drain(self) -> None:
        """Take no more calls, and return when those that run have ended, or had their time."""
        await self._drain()

    def take_over(self, settings: CallCentre) -> list[str]:
        """Let the agents of other settings answer the calls that come from now on.

        Returns:
            The sections that differ otherwise, which count from the next start.

        Raises:
            ValueError: A tool cannot be made, or workers answer the calls; nothing has changed.
        """
        if self._reception is None:
            raise ValueError("gateway.workers: more than one read their settings at the start only")
        settings.build_tools()
        self._reception.agents = settings.staff
        now, then = self.settings, settings
        return [name for name in ("gateway", "triton") if getattr(now, name) != getattr(then, name)]


@asynccontextmanager
async def serving(settings: CallCentre, progress: Callable[[str], None]) -> AsyncIterator[Service]:
    """Start everything that answers calls; stop it on leaving.

    An embedded engine must start; replicas named by URL may come later, and until then callers
    are told to call again.

    Args:
        settings: All of them.
        progress: Told each step, as a line for a person.

    Yields:
        The gateway.

    Raises:
        ValueError: Settings that cannot be used, such as no auth token, or a tool's secret.
        agent.embedded.EmbeddedServerError: The embedded engine does not start.
        OSError: The address cannot be listened on.
    """
    settings.gateway.read_auth_token()
    settings.gateway.read_operator_token()
    settings.build_tools()
    if settings.gateway.workers == 1:
        async with serving_here(settings, progress) as service:
            yield service
        return
    async with AsyncExitStack() as stack:
        # One engine for all workers, and so one batch for all calls.
        urls = settings.triton.urls or (await _embedded(stack, settings, progress),)
        triton = settings.triton.model_copy(update={"urls": urls, "embedded": False})
        there = settings.model_copy(update={"triton": triton})
        workers = await stack.enter_async_context(working(there, progress))
        yield Service(workers.url, settings, workers.drain, None)


@asynccontextmanager
async def serving_here(
    settings: CallCentre,
    progress: Callable[[str], None],
    *,
    open_switchboard: OpenSwitchboard = Switchboard,
    clock: Clock | None = None,
) -> AsyncIterator[Service]:
    """As :func:`serving`, in this process alone.

    Args:
        settings: All of them; ``gateway.workers`` is not looked at.
        progress: Told each step, as a line for a person.
        open_switchboard: Opens one, where this process shares it with others on the same port.
        clock: Paces the calls.

    Yields:
        The gateway.
    """
    settings.build_tools()
    records = CallRecords(settings.records)
    async with AsyncExitStack() as stack:
        loading = asyncio.create_task(_load_models(progress))
        try:
            urls = settings.triton.urls or (await _embedded(stack, settings, progress),)
        finally:
            models = (await asyncio.gather(loading, return_exceptions=True))[0]
        if isinstance(models, BaseException):
            raise models
        client = VoiceClient(urls, chunk_timeout=settings.triton.chunk_timeout)
        stack.push_async_callback(client.close)
        await _warm_up(client, progress, required=not settings.triton.urls)

        answering = Answering(client.session, models)
        gateway = settings.gateway
        app = create_app(
            gateway,
            answering.answer,
            records,
            engine_ready=client.ready,
            engine_carries=lambda: client.carries,
            agents=settings.staff,
            prepare=answering.prepare,
            clock=clock,
            open_switchboard=open_switchboard,
        )
        shared = app[GATEWAY].switchboard.shared
        _add_outbound(app, settings)
        url = await stack.enter_async_context(
            listening(app, gateway.host, gateway.port, shared=shared)
        )
        progress(f"gateway listens, voice webhook {url}/voice")

        async def drain_here() -> None:
            await drain(app, gateway.drain_secs)

        yield Service(url, settings, drain_here, app[GATEWAY].reception)


def _add_outbound(app: web.Application, settings: CallCentre) -> None:
    """Let calls be made, where the settings say all that takes.

    Raises:
        ValueError: An agent calls people, but something is missing.
    """
    account, token = settings.gateway.account_sid, settings.gateway.read_operator_token()
    if account is not None and token is not None:
        add_outbound_routes(app, account, token)
        return
    if any(settings.staff[name].outbound is not None for name in settings.staff):
        missing = "gateway.account_sid" if account is None else "the operators' token"
        raise ValueError(f"outbound: calls are made with {missing}, which is not set")


async def _load_models(progress: Callable[[str], None]) -> SharedModels:
    begun = time.monotonic()
    models = await asyncio.to_thread(SharedModels.load)
    progress(f"turn detection ready after {time.monotonic() - begun:.1f} s")
    return models


async def _embedded(
    stack: AsyncExitStack, settings: Settings, progress: Callable[[str], None]
) -> str:
    begun = time.monotonic()
    states: dict[str, str] = {}

    def report(model: str, state: str) -> None:
        if states.get(model) != state:
            states[model] = state
            progress(f"model {model}: {state} after {time.monotonic() - begun:.1f} s")

    server = EmbeddedServer(checkpoint=settings.triton.checkpoint, progress=report)
    progress(f"starting Triton over {settings.triton.checkpoint}")
    await stack.enter_async_context(server)
    return server.url


async def _warm_up(client: VoiceClient, progress: Callable[[str], None], required: bool) -> None:
    """Answer once, so that no caller waits for what a first answer sets up."""
    begun = time.monotonic()
    session = client.session()
    murmur = np.random.default_rng(0).normal(0.0, 0.01, _WARM_UP_SECONDS * CALLER_RATE)
    try:
        session.push(murmur.astype(np.float32))
        async for _ in session.answer(_WARM_UP):
            pass
    except EngineUnavailable as error:
        if required:
            raise
        logger.bind(reason=str(error)).warning("The engine does not answer yet")
        progress(f"the engine does not answer yet: {error}")
    else:
        progress(f"the engine answers, first answer took {time.monotonic() - begun:.1f} s")
    finally:
        await session.close()
